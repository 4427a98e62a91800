//! A node that hangs (it accepts requests and answers none) delays its own shard no longer than a node that is down, and delays
//! no other shard.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, Reply, until};

use crate::support::{documents, ids, start};

/// A node is down after five seconds without an answer.
const DOWN_AFTER: Duration = Duration::from_secs(5);
/// How much longer a write that waits for such a node may take: until the next check, and what a busy machine adds.
const SLACK: Duration = Duration::from_secs(8);
/// How long a write may take that waits for nothing.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Two shards of two replicas, and an index on both.
async fn cluster() -> (Cluster, Api) {
    let builder = Cluster::builder().shards(2).replicas(2);
    let builder = builder.merger_env("WEFT_NODE_DOWN_AFTER_MS", "5000");
    let (cluster, api) = start(builder).await;
    let accepted = write(&api, "both", 0).await;
    api.succeed(&accepted).await.unwrap();
    (cluster, api)
}

async fn write(api: &Api, index: &str, from: u64) -> Reply {
    let path = format!("/indexes/{index}/documents?primaryKey=id");
    let reply = api.post(&path, &documents(from..from + 50)).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text);
    reply
}

/// Creates an index that is on this shard only.
async fn on_one_shard(api: &Api, shard: u16) -> String {
    for number in 0..50 {
        let uid = format!("on-{shard}-{number}");
        let created = json!({"uid": uid, "primaryKey": "id", "sharding": {"shardCount": 1}});
        let created = api.post("/indexes", &created).await.unwrap();
        api.succeed(&created).await.unwrap();
        let shards = api.get(&format!("/indexes/{uid}/_shards")).await.unwrap();
        if shards.at("/shards/0/shardId") == shard {
            return uid;
        }
    }
    panic!("none of 50 indexes is on shard {shard}");
}

/// The number of the first shard's primary.
async fn primary(api: &Api) -> u16 {
    let shards = api.get("/_cluster/shards").await.unwrap();
    match shards.at("/shards/0/primary").as_str() {
        Some("shard-0-node-0") => 0,
        Some("shard-0-node-1") => 1,
        other => panic!("the first shard has no primary: {other:?}"),
    }
}

/// Requests a change while the first shard's primary hangs, then a write to that shard, and writes to the other shard. Returns the
/// longest time that one of the latter took.
async fn behind_a_hung_primary(
    cluster: &Cluster,
    api: &Api,
    path: String,
    change: Value,
) -> Duration {
    let on_the_other_shard = on_one_shard(api, 1).await;
    let hung = primary(api).await;
    cluster.node(0, hung).pause().unwrap();
    let begun = Instant::now();
    let changing = tokio::spawn({
        let api = api.clone();
        async move { api.json(Method::PATCH, &path, &change).await }
    });
    // By now the change is being sent, and its shards are locked.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let on_the_other_shard = tokio::spawn({
        let api = api.clone();
        async move {
            let mut longest = Duration::ZERO;
            for number in 0..10 {
                let begun = Instant::now();
                write(&api, &on_the_other_shard, 50 * number).await;
                longest = longest.max(begun.elapsed());
            }
            longest
        }
    });
    let behind = write(api, "both", 50).await;
    let waited = begun.elapsed();
    assert!(waited < DOWN_AFTER + SLACK, "a write waited {waited:?}");
    let changed = changing.await.unwrap().unwrap();
    let waited = begun.elapsed();
    assert!(changed.status < 300, "{}", changed.text);
    assert!(waited < DOWN_AFTER + SLACK, "the change took {waited:?}");
    // The shard works without the hanging node, and with it once it is back.
    api.succeed(&behind).await.unwrap();
    cluster.node(0, hung).resume().unwrap();
    until(
        "green",
        Deadline::after(Duration::from_secs(60)),
        || async {
            let health = api.get("/_cluster/health").await;
            let health = health.map_err(|error| error.to_string())?;
            match health.at("/status") == "green" {
                true => Ok(()),
                false => Err(health.text),
            }
        },
    )
    .await
    .unwrap();
    let counts = [0, 1].map(|replica| {
        let node = Api::new(cluster.node_url(0, replica), cluster.master_key());
        async move { ids(&node, "both").await }
    });
    let [one, two] = counts;
    assert_eq!(one.await, two.await);
    on_the_other_shard.await.unwrap()
}

#[tokio::test]
async fn a_write_behind_a_change_of_features_waits_no_longer_for_a_hung_primary_than_for_a_dead_one()
 {
    let (cluster, api) = cluster().await;
    let (path, change) = (
        "/experimental-features".to_owned(),
        json!({"metrics": true}),
    );
    // A change of features concerns the other shard, too.
    let longest = behind_a_hung_primary(&cluster, &api, path, change).await;
    assert!(
        longest < DOWN_AFTER + SLACK,
        "a write to the other shard waited {longest:?}"
    );
}

#[tokio::test]
async fn a_change_of_settings_that_waits_for_a_hung_primary_holds_up_no_other_shard() {
    let (cluster, api) = cluster().await;
    let path = format!("/indexes/{}/settings", on_one_shard(&api, 0).await);
    let change = json!({"filterableAttributes": ["group"]});
    let longest = behind_a_hung_primary(&cluster, &api, path, change).await;
    assert!(
        longest < AT_ONCE,
        "a write to the other shard waited {longest:?}"
    );
}
