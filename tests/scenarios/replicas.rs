//! Replicas that die, come back old or empty, differ or are drained: nothing acknowledged is lost, nothing stale is served.

use std::time::Duration;

use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, HarnessError, Line, until};

use crate::support::{MASTER_KEY, documents, ids, start};

fn replica(cluster: &Cluster, shard: u16, replica: u16) -> Api {
    Api::new(cluster.node_url(shard, replica), Some(MASTER_KEY))
}

async fn health(api: &Api, wanted: &str) {
    let what = format!("a {wanted} cluster");
    until(&what, Deadline::after(Duration::from_secs(60)), || async {
        let health = api
            .get("/_cluster/health")
            .await
            .map_err(|e| e.to_string())?;
        if health.at("/status") == wanted {
            return Ok(());
        }
        let nodes = api
            .get("/_cluster/nodes")
            .await
            .map_err(|e| e.to_string())?;
        Err(format!("{}\n{}", health.text, nodes.text))
    })
    .await
    .unwrap();
}

/// What a node holds of an index: every document, in the order of the ids, and the settings.
async fn contents(node: &Api, index: &str) -> (Vec<Value>, Value) {
    let list = node
        .get(&format!(
            "/indexes/{index}/documents?limit=100000&retrieveVectors=true"
        ))
        .await
        .unwrap();
    let mut documents = list.at("/results").as_array().cloned().unwrap_or_default();
    documents.sort_by_key(|document| document["id"].as_u64());
    let settings = node
        .get(&format!("/indexes/{index}/settings"))
        .await
        .unwrap();
    (documents, settings.body)
}

async fn assert_replicas_equal(cluster: &Cluster, index: &str) {
    for shard in 0..cluster.layout().shards() {
        let one = contents(&replica(cluster, shard, 0), index).await;
        let two = contents(&replica(cluster, shard, 1), index).await;
        assert!(!one.0.is_empty(), "shard {shard} is empty");
        assert_eq!(one, two, "shard {shard}");
    }
}

async fn write(api: &Api, index: &str, range: std::ops::Range<u64>) -> Result<Value, HarnessError> {
    let path = format!("/indexes/{index}/documents?primaryKey=id");
    let accepted = api.post(&path, &documents(range)).await?;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    api.succeed(&accepted).await
}

#[tokio::test]
async fn a_replica_that_was_down_catches_up_by_itself_and_serves_no_reads_before() {
    let (cluster, api) = start(Cluster::builder().shards(2).replicas(2)).await;
    write(&api, "x", 0..200).await.unwrap();
    cluster.node(0, 1).kill().unwrap();
    // While it is down: more documents, deletions, settings, a new index, a deleted index, a key.
    write(&api, "x", 200..300).await.unwrap();
    write(&api, "gone", 0..20).await.unwrap();
    api.succeed(
        &api.post(
            "/indexes/x/documents/delete-batch",
            &json!([1, 2, 3, 4, 5, 6, 7, 8]),
        )
        .await
        .unwrap(),
    )
    .await
    .unwrap();
    let settings = json!({"filterableAttributes": ["group"], "synonyms": {"amber": ["resin"]}});
    let change = api
        .json(reqwest::Method::PATCH, "/indexes/x/settings", &settings)
        .await
        .unwrap();
    api.succeed(&change).await.unwrap();
    write(&api, "new", 0..50).await.unwrap();
    api.succeed(&api.delete("/indexes/gone").await.unwrap())
        .await
        .unwrap();
    let key = json!({"actions": ["search"], "indexes": ["x"], "expiresAt": null});
    let key = api.post("/keys", &key).await.unwrap();
    assert_eq!(key.status, 201, "{}", key.text);
    health(&api, "yellow").await;
    let shards = api.get("/_cluster/shards").await.unwrap();
    assert_eq!(
        shards.at("/shards/0/inSync"),
        &json!(["shard-0-node-0"]),
        "{}",
        shards.text
    );

    cluster.node(0, 1).restart().unwrap();
    health(&api, "green").await;
    assert_replicas_equal(&cluster, "x").await;
    assert_replicas_equal(&cluster, "new").await;
    assert_eq!(
        replica(&cluster, 0, 1)
            .get("/indexes/gone")
            .await
            .unwrap()
            .status,
        404
    );
    let copied = replica(&cluster, 0, 1)
        .get(&format!("/keys/{}", key.at("/uid").as_str().unwrap()))
        .await
        .unwrap();
    assert_eq!(copied.at("/key"), key.at("/key"));
    // It gets writes again like any other replica.
    write(&api, "x", 300..400).await.unwrap();
    assert_replicas_equal(&cluster, "x").await;
}

#[tokio::test]
async fn a_node_with_an_empty_disk_serves_no_reads_and_is_filled_again() {
    let (cluster, api) = start(Cluster::builder().shards(1).replicas(2)).await;
    write(&api, "x", 0..500).await.unwrap();
    health(&api, "green").await;
    cluster.node(0, 0).kill().unwrap();
    // Replacing a disk takes longer than noticing that the node is down.
    cluster.wait_node_readable(0, 0, false).await.unwrap();
    cluster.node(0, 0).wipe().unwrap();
    cluster.node(0, 0).restart().unwrap();
    let mut answered = 0;
    let deadline = Deadline::after(Duration::from_secs(60));
    until("the replica in sync again", deadline, || async {
        // Meanwhile, reads find all documents.
        let found = api
            .post(
                "/indexes/x/search",
                &json!({"q": "", "page": 1, "hitsPerPage": 1}),
            )
            .await
            .map_err(|error| error.to_string())?;
        assert_eq!(found.at("/totalHits"), 500, "{}", found.text);
        let shards = api
            .get("/_cluster/shards")
            .await
            .map_err(|e| e.to_string())?;
        let in_sync = shards.at("/shards/0/inSync").as_array().map(Vec::len);
        if in_sync == Some(2) {
            Ok(())
        } else {
            Err(shards.text)
        }
    })
    .await
    .unwrap();
    for id in 0..50 {
        let document = api
            .get(&format!("/indexes/x/documents/{id}"))
            .await
            .unwrap();
        answered += u32::from(document.status == 200);
    }
    assert_eq!(answered, 50);
    health(&api, "green").await;
    assert_replicas_equal(&cluster, "x").await;
}

#[tokio::test]
async fn the_last_replica_in_sync_is_waited_for_and_a_stale_one_never_takes_its_place() {
    let (cluster, api) = start(Cluster::builder().shards(1).replicas(2)).await;
    write(&api, "x", 0..10).await.unwrap();
    cluster.node(0, 1).kill().unwrap();
    write(&api, "x", 10..20).await.unwrap();
    cluster.node(0, 0).kill().unwrap();
    cluster.node(0, 1).restart().unwrap();
    health(&api, "red").await;
    let search = api
        .post("/indexes/x/search", &json!({"q": ""}))
        .await
        .unwrap();
    assert_eq!(search.status, 503, "{}", search.text);
    let refused = api
        .post("/indexes/x/documents", &documents(20..30))
        .await
        .unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text);
    cluster.node(0, 0).restart().unwrap();
    health(&api, "green").await;
    assert_eq!(ids(&api, "x").await, (0..20).collect::<Vec<_>>());
    assert_replicas_equal(&cluster, "x").await;
}

#[tokio::test]
async fn a_green_cluster_answers() {
    let (cluster, api) = start(Cluster::builder().shards(1)).await;
    write(&api, "x", 0..10).await.unwrap();
    for _ in 0..5 {
        cluster.node(0, 0).kill().unwrap();
        health(&api, "red").await;
        cluster.node(0, 0).restart().unwrap();
        health(&api, "green").await;
        assert_eq!(ids(&api, "x").await, (0..10).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_node_is_drained_upgraded_and_resumed_without_losing_a_write() {
    let (cluster, api) = start(Cluster::builder().shards(1).replicas(2)).await;
    write(&api, "x", 0..100).await.unwrap();
    for node in 0..2 {
        let name = format!("shard-0-node-{node}");
        let drained = api
            .post(&format!("/_cluster/nodes/{name}/drain"), &json!({}))
            .await
            .unwrap();
        assert_eq!(drained.status, 200, "{}", drained.text);
        assert_eq!(drained.at("/status"), "drained");
        assert_eq!(drained.at("/role"), "replica");
        let other = format!("/_cluster/nodes/shard-0-node-{}/drain", 1 - node);
        let refused = api.post(&other, &json!({})).await.unwrap();
        assert_eq!(
            (refused.status, refused.at("/code")),
            (409, &json!("last_replica_in_sync"))
        );
        // The new version would be started here.
        cluster.node(0, node).terminate().unwrap();
        let from = 100 * u64::from(node + 1);
        write(&api, "x", from..from + 100).await.unwrap();
        cluster.node(0, node).restart().unwrap();
        let resumed = api
            .post(&format!("/_cluster/nodes/{name}/resume"), &json!({}))
            .await
            .unwrap();
        assert_eq!(resumed.status, 200, "{}", resumed.text);
        health(&api, "green").await;
    }
    assert_eq!(ids(&api, "x").await, (0..300).collect::<Vec<_>>());
    assert_replicas_equal(&cluster, "x").await;
    let report = api.post("/_cluster/verify", &json!({})).await.unwrap();
    assert_eq!(report.at("/differences"), 0, "{}", report.text);
}

#[tokio::test]
async fn a_difference_between_replicas_is_found_reported_and_repaired() {
    let (cluster, api) = start(Cluster::builder().shards(1).replicas(2)).await;
    write(&api, "x", 0..100).await.unwrap();
    health(&api, "green").await;
    let other = replica(&cluster, 0, 1);
    let by_hand = json!([{"id": 7, "name": "changed by hand"}, {"id": 900, "name": "new"}]);
    let change = other.post("/indexes/x/documents", &by_hand).await.unwrap();
    other.succeed(&change).await.unwrap();
    other
        .succeed(&other.delete("/indexes/x/documents/8").await.unwrap())
        .await
        .unwrap();
    let report = api.post("/_cluster/verify", &json!({})).await.unwrap();
    assert_eq!(report.at("/differences"), 3, "{}", report.text);
    let named = report
        .at("/shards/0/differences/0/indexes/0/ids")
        .as_array()
        .unwrap();
    let mut named: Vec<&str> = named.iter().filter_map(Value::as_str).collect();
    named.sort_unstable();
    assert_eq!(named, ["7", "8", "900"], "{}", report.text);
    health(&api, "green").await;
    assert_replicas_equal(&cluster, "x").await;
    let report = api.post("/_cluster/verify", &json!({})).await.unwrap();
    assert_eq!(report.at("/differences"), 0, "{}", report.text);
}

#[tokio::test]
async fn the_cluster_api_needs_the_master_key_and_lists_its_nodes() {
    let (cluster, api) = start(Cluster::builder().shards(2).replicas(2)).await;
    write(&api, "x", 0..10).await.unwrap();
    health(&api, "green").await;
    let anonymous = Api::new(cluster.url(), None);
    for path in ["/_cluster/health", "/_cluster/nodes", "/indexes/x/_shards"] {
        assert_eq!(anonymous.get(path).await.unwrap().status, 401, "{path}");
    }
    let health = api.get("/_cluster/health").await.unwrap();
    for (field, count) in [
        ("nodeCount", 4),
        ("activeShards", 4),
        ("unassignedShards", 0),
    ] {
        assert_eq!(health.body[field], count, "{}", health.text);
    }
    let index = api.get("/indexes/x/_shards").await.unwrap();
    assert_eq!(
        (index.at("/shardCount"), index.at("/replicationFactor")),
        (&json!(2), &json!(2))
    );
    let slots: u64 = index
        .at("/shards")
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard["slots"].as_u64().unwrap())
        .sum();
    assert_eq!(slots, 4096);
    assert_eq!(api.get("/indexes/nope/_shards").await.unwrap().status, 404);
    assert_eq!(
        api.post("/_cluster/nodes/nope/drain", &json!({}))
            .await
            .unwrap()
            .status,
        404
    );
    for (name, value) in [("x-weft-read", "odd"), ("x-weft-after-task", "odd")] {
        let refused = api
            .send(
                reqwest::Method::GET,
                "/indexes/x/documents/1",
                &[(name, value)],
                Vec::new(),
            )
            .await
            .unwrap();
        assert_eq!(refused.status, 400, "{name}: {}", refused.text);
    }
    let mine = write(&api, "x", 10..12).await.unwrap()["uid"].to_string();
    for (name, value) in [
        ("x-weft-read", "primary"),
        ("x-weft-after-task", mine.as_str()),
    ] {
        let read = api
            .send(
                reqwest::Method::GET,
                "/indexes/x/documents/11",
                &[(name, value)],
                Vec::new(),
            )
            .await
            .unwrap();
        assert_eq!(read.status, 200, "{name}: {}", read.text);
    }
    assert_eq!(api.get("/_cluster/nonsense").await.unwrap().status, 404);
}

#[tokio::test]
async fn a_write_that_one_replica_applied_without_answering_reaches_the_other() {
    let (cluster, api) = start(Cluster::builder().shards(1).replicas(2).links(true)).await;
    write(&api, "x", 0..10).await.unwrap();
    let link = |number| cluster.link(0, number).unwrap();
    link(0).set(Line::AnswersLost);
    link(1).set(Line::ServerErrors);
    let failed = api
        .post("/indexes/x/documents", &documents(10..20))
        .await
        .unwrap();
    assert!(failed.status >= 500, "{}", failed.text);
    // As long as no replica answers, the cluster isn't green.
    assert_eq!(in_doubt(&api).await, json!(true));
    let said = api.get("/_cluster/health").await.unwrap();
    assert_ne!(said.at("/status"), "green", "{}", said.text);
    link(0).set(Line::Open);
    link(1).set(Line::Open);
    // Before the next write, the merger finds out which replica has the write, and repairs the other from it.
    write(&api, "x", 20..30).await.unwrap();
    health(&api, "green").await;
    assert_replicas_equal(&cluster, "x").await;
    let held = ids(&replica(&cluster, 0, 0), "x").await;
    assert_eq!(held, (0..30).collect::<Vec<_>>());
    assert_eq!(in_doubt(&api).await, json!(false));
}

/// Whether the replicas of the first shard still have to be compared.
async fn in_doubt(api: &Api) -> Value {
    let shards = api.get("/_cluster/shards").await.unwrap();
    shards.at("/shards/0/inDoubt").clone()
}
