//! How many replicas must have a write before it is acknowledged, and large writes that one half of the replicas applies after the
//! other.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, Reply, until};

use crate::support::{MASTER_KEY, documents, ids, start};

fn replica(cluster: &Cluster, replica: u16) -> Api {
    Api::new(cluster.node_url(0, replica), Some(MASTER_KEY))
}

async fn write(api: &Api, mode: &str, range: std::ops::Range<u64>) -> Reply {
    let body = documents(range).to_string();
    let headers = [("content-type", "application/json"), ("x-weft-write", mode)];
    api.send(
        Method::POST,
        "/indexes/x/documents?primaryKey=id",
        &headers,
        body,
    )
    .await
    .unwrap()
}

async fn node(api: &Api, id: &str) -> Value {
    let nodes = api.get("/_cluster/nodes").await.unwrap();
    let all = nodes.at("/nodes").as_array().unwrap();
    all.iter().find(|node| node["id"] == id).unwrap().clone()
}

async fn wait_for(api: &Api, what: &str, id: &str, is: impl Fn(&Value) -> bool) {
    until(what, Deadline::after(Duration::from_secs(60)), || async {
        let node = node(api, id).await;
        if is(&node) {
            Ok(())
        } else {
            Err(node.to_string())
        }
    })
    .await
    .unwrap();
}

fn in_sync(node: &Value) -> bool {
    node["inSync"] == true
}

async fn assert_equal_replicas(cluster: &Cluster, replicas: u16, wanted: &[u64]) {
    for number in 0..replicas {
        assert_eq!(
            ids(&replica(cluster, number), "x").await,
            wanted,
            "replica {number}"
        );
    }
}

/// Ten documents on both replicas, and ten more that only the first has, acknowledged while the second hangs.
async fn with_a_write_that_a_hanging_replica_lacks(patience_ms: &str) -> (Cluster, Api, Reply) {
    let builder = Cluster::builder().shards(1).replicas(2);
    let (cluster, api) = start(builder.merger_env("WEFT_REPLICA_PATIENCE_MS", patience_ms)).await;
    api.succeed(&write(&api, "sync", 0..10).await)
        .await
        .unwrap();
    cluster.node(0, 1).pause().unwrap();
    let reply = write(&api, "async", 10..20).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    (cluster, api, reply)
}

#[tokio::test]
async fn an_async_write_waits_for_one_replica_and_reaches_the_others_in_order() {
    let patience = "20000";
    let builder = Cluster::builder().shards(1).replicas(2);
    let (cluster, api) = start(builder.merger_env("WEFT_REPLICA_PATIENCE_MS", patience)).await;
    api.succeed(&write(&api, "sync", 0..10).await)
        .await
        .unwrap();
    cluster.node(0, 1).pause().unwrap();
    let mut accepted = Vec::new();
    for start in [10, 20, 30] {
        let begun = std::time::Instant::now();
        let reply = write(&api, "async", start..start + 10).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        assert!(begun.elapsed() < Duration::from_secs(5), "the write waited");
        accepted.push(reply);
    }
    let behind = node(&api, "shard-0-node-1").await;
    assert_eq!(behind["behind"], 3, "{behind}");
    // A replica that has the write can be read from, although the task hasn't ended.
    let headers = [(
        "x-weft-after-task",
        &*accepted[2].at("/taskUid").to_string(),
    )];
    let read = api
        .send(Method::GET, "/indexes/x/documents/35", &headers, "")
        .await
        .unwrap();
    assert_eq!(read.status, 200, "{}", read.text);
    let task = api
        .get(&format!("/tasks/{}", accepted[0].at("/taskUid")))
        .await
        .unwrap();
    assert_eq!(task.at("/status"), "processing", "{}", task.text);
    cluster.node(0, 1).resume().unwrap();
    for reply in &accepted {
        api.succeed(reply).await.unwrap();
    }
    let behind = node(&api, "shard-0-node-1").await;
    assert_eq!(
        (&behind["behind"], &behind["inSync"]),
        (&json!(0), &json!(true))
    );
    assert_equal_replicas(&cluster, 2, &(0..40).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_replica_that_misses_an_acknowledged_write_is_out_of_sync_and_repaired() {
    let (cluster, api, reply) = with_a_write_that_a_hanging_replica_lacks("500").await;
    wait_for(&api, "a replica out of sync", "shard-0-node-1", |node| {
        !in_sync(node)
    })
    .await;
    // The task ends without that replica.
    api.succeed(&reply).await.unwrap();
    cluster.node(0, 1).resume().unwrap();
    wait_for(&api, "a replica in sync again", "shard-0-node-1", in_sync).await;
    assert_equal_replicas(&cluster, 2, &(0..20).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_restarted_merger_knows_which_replica_lacks_an_acknowledged_write() {
    let (cluster, api, reply) = with_a_write_that_a_hanging_replica_lacks("60000").await;
    cluster.merger().kill().unwrap();
    cluster.merger().restart().unwrap();
    until(
        "the merger",
        Deadline::after(Duration::from_secs(30)),
        || async {
            let reply = api
                .get("/_cluster/nodes")
                .await
                .map_err(|e| e.to_string())?;
            let known = reply
                .at("/nodes")
                .as_array()
                .is_some_and(|nodes| nodes.len() == 2);
            if known { Ok(()) } else { Err(reply.text) }
        },
    )
    .await
    .unwrap();
    let out = node(&api, "shard-0-node-1").await;
    assert_eq!(out["inSync"], false, "{out}");
    assert!(
        out["reason"]
            .as_str()
            .unwrap()
            .contains("acknowledged write"),
        "{out}"
    );
    cluster.node(0, 1).resume().unwrap();
    wait_for(&api, "a replica in sync again", "shard-0-node-1", in_sync).await;
    api.succeed(&reply).await.unwrap();
    assert_equal_replicas(&cluster, 2, &(0..20).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_quorum_write_does_not_wait_for_the_slowest_replica_and_needs_a_majority() {
    let builder = Cluster::builder().shards(1).replicas(3);
    let (cluster, api) = start(builder.merger_env("WEFT_REPLICA_PATIENCE_MS", "20000")).await;
    let created = json!({"uid": "x", "primaryKey": "id", "sharding": {"write": "quorum"}});
    api.succeed(&api.post("/indexes", &created).await.unwrap())
        .await
        .unwrap();
    let shards = api.get("/indexes/x/_shards").await.unwrap();
    assert_eq!(shards.at("/writeMode"), "quorum", "{}", shards.text);
    cluster.node(0, 2).pause().unwrap();
    let begun = std::time::Instant::now();
    let reply = api
        .post("/indexes/x/documents", &documents(0..10))
        .await
        .unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text);
    assert!(begun.elapsed() < Duration::from_secs(5), "the write waited");
    cluster.node(0, 2).resume().unwrap();
    api.succeed(&reply).await.unwrap();
    assert_equal_replicas(&cluster, 3, &(0..10).collect::<Vec<_>>()).await;
    for number in [1, 2] {
        let id = format!("/_cluster/nodes/shard-0-node-{number}/drain");
        let drained = api.post(&id, &json!({})).await.unwrap();
        assert_eq!(drained.status, 200, "{}", drained.text);
    }
    let refused = api
        .post("/indexes/x/documents", &documents(10..20))
        .await
        .unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text.contains("quorum"), "{}", refused.text);
    assert_eq!(ids(&replica(&cluster, 0), "x").await.len(), 10);
    // A request can choose another mode, and so can an index.
    api.succeed(&write(&api, "sync", 10..20).await)
        .await
        .unwrap();
    let changed = json!({"sharding": {"write": "async"}});
    let changed = api
        .json(Method::PATCH, "/indexes/x", &changed)
        .await
        .unwrap();
    api.succeed(&changed).await.unwrap();
    let reply = api
        .post("/indexes/x/documents", &documents(20..30))
        .await
        .unwrap();
    api.succeed(&reply).await.unwrap();
    let unknown = write(&api, "some", 30..40).await;
    assert_eq!(unknown.status, 400, "{}", unknown.text);
}

#[tokio::test]
async fn a_staggered_import_is_applied_by_one_replica_after_the_other_and_loses_nothing() {
    let builder = Cluster::builder().shards(1).replicas(2);
    let builder = builder
        .merger_env("WEFT_STAGGERED", "true")
        .merger_env("WEFT_STAGGERED_MIN_BYTES", "20000");
    let (cluster, api) = start(builder).await;
    api.succeed(&write(&api, "sync", 0..10).await)
        .await
        .unwrap();
    let large = write(&api, "sync", 10..3000).await;
    assert_eq!(large.status, 202, "{}", large.text);
    let held = node(&api, "shard-0-node-0").await;
    assert!(held["behind"].as_u64().unwrap() >= 1, "{held}");
    // Meanwhile: small writes, a deletion, settings.
    let mut others = vec![write(&api, "sync", 3000..3010).await];
    others.push(api.delete("/indexes/x/documents/5").await.unwrap());
    let settings = json!({"filterableAttributes": ["group"]});
    others.push(
        api.json(Method::PATCH, "/indexes/x/settings", &settings)
            .await
            .unwrap(),
    );
    others.push(write(&api, "sync", 3010..3020).await);
    for reply in std::iter::once(&large).chain(&others) {
        api.succeed(reply).await.unwrap();
    }
    let metrics = Api::new(cluster.merger_url(), None)
        .get("/_weft/metrics")
        .await
        .unwrap();
    let counted = metrics.text.lines().find_map(|line| {
        let count = line.strip_prefix("weft_merger_staggered_total ")?;
        count.parse::<u64>().ok()
    });
    assert!(counted.is_some_and(|count| count > 0), "{counted:?}");
    let wanted: Vec<u64> = (0..3020).filter(|id| *id != 5).collect();
    assert_equal_replicas(&cluster, 2, &wanted).await;
    for number in [0, 1] {
        let list = replica(&cluster, number)
            .get("/indexes/x/settings/filterable-attributes")
            .await
            .unwrap();
        assert_eq!(list.body, json!(["group"]), "replica {number}");
        wait_for(
            &api,
            "a replica that has applied everything",
            &format!("shard-0-node-{number}"),
            |node| node["behind"] == 0 && in_sync(node),
        )
        .await;
    }
    // After that, small writes wait for both replicas again.
    api.succeed(&write(&api, "sync", 5..6).await).await.unwrap();
    assert_equal_replicas(&cluster, 2, &(0..3020).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_replica_that_dies_in_a_staggered_import_loses_nothing() {
    let builder = Cluster::builder().shards(1).replicas(2);
    let builder = builder
        .merger_env("WEFT_STAGGERED", "true")
        .merger_env("WEFT_STAGGERED_MIN_BYTES", "20000")
        .merger_env("WEFT_NODE_DOWN_AFTER_MS", "1500");
    let (cluster, api) = start(builder).await;
    api.succeed(&write(&api, "sync", 0..10).await)
        .await
        .unwrap();
    let large = write(&api, "sync", 10..3000).await;
    assert_eq!(large.status, 202, "{}", large.text);
    // The second replica applies the import first. It is killed, and its disk is replaced.
    cluster.node(0, 1).kill().unwrap();
    api.succeed(&large).await.unwrap();
    cluster.node(0, 1).wipe().unwrap();
    cluster.node(0, 1).restart().unwrap();
    wait_for(&api, "a replica in sync again", "shard-0-node-1", in_sync).await;
    assert_equal_replicas(&cluster, 2, &(0..3000).collect::<Vec<_>>()).await;
}
