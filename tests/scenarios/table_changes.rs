//! The routing table is large enough that filters are told only what has changed in it. They route by every change.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;
use weft_cluster::{Api, Cluster, Deadline, until};

use crate::moving::wait_for_moves;
use crate::support::{counter, merger_requests, node, start};

/// Indexes at first: more than a table must have for its changes to be told alone.
const FIRST: usize = 80;
/// How many are added, and how many are taken away.
const MORE: usize = 30;

/// The sum of a counter of the merger whose labels contain this text.
async fn polls(cluster: &Cluster, outcome: &str) -> u64 {
    let metrics = Api::new(cluster.merger_url(), None);
    let text = metrics.get("/_weft/metrics").await.unwrap().text;
    let name = format!("weft_merger_table_polls_total{{outcome=\"{outcome}\"}} ");
    let counts = text.lines().filter_map(|line| line.strip_prefix(&name));
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

fn name(number: usize) -> String {
    format!("tenant-{number}")
}

/// Makes an index of one shard with a document of its own.
async fn make(api: &Api, number: usize) {
    let uid = name(number);
    let create = json!({"uid": uid, "primaryKey": "id", "sharding": {"shardCount": 1}});
    let made = api.post("/indexes", &create).await.unwrap();
    assert_eq!(made.status, 202, "{}", made.text);
    let own = json!([{"id": 1, "tenant": uid}]);
    let path = format!("/indexes/{uid}/documents");
    api.succeed(&api.post(&path, &own).await.unwrap())
        .await
        .unwrap();
}

/// Reads the document of each of these indexes by id; returns how many of the reads reached the merger.
async fn read_all(cluster: &Cluster, api: &Api, numbers: &BTreeSet<usize>) -> u64 {
    let before = merger_requests(cluster).await;
    for number in numbers {
        let uid = name(*number);
        let path = format!("/indexes/{uid}/documents/1");
        let read = api.get(&path).await.unwrap();
        assert_eq!(read.status, 200, "{path}: {}", read.text);
        assert_eq!(read.at("/tenant"), uid.as_str(), "{path}");
    }
    merger_requests(cluster).await - before
}

/// Waits until reads of all these indexes go directly to their shards: every worker's filter knows each of them. Polls of the
/// table reach the merger, too.
async fn wait_direct(cluster: &Cluster, api: &Api, numbers: &BTreeSet<usize>) {
    until(
        "filters route all indexes",
        Deadline::after(std::time::Duration::from_secs(60)),
        || async {
            let reached = read_all(cluster, api, numbers).await;
            let few = numbers.len() as u64 / 4;
            (reached < few)
                .then_some(())
                .ok_or(format!("{reached} reads or polls reached the merger"))
        },
    )
    .await
    .unwrap();
}

/// Moves everything away from a shard, so that many routes change.
async fn empty(api: &Api, shard: u16) {
    let path = format!("/_cluster/shards/shard-{shard}/drain");
    let drained = api.post(&path, &json!({})).await.unwrap();
    assert_eq!(drained.status, 202, "{}", drained.text);
    let before = drained.at("/moves").as_array().unwrap().len();
    assert!(before > 0, "{}", drained.text);
    let ended = wait_for_moves(api, before - 1).await;
    assert!(ended.iter().all(|one| one["state"] == "done"), "{ended:?}");
}

#[tokio::test]
async fn filters_of_a_large_table_follow_many_changes_that_alone_are_told() {
    let builder = Cluster::builder().shards(3);
    let builder = builder.merger_env("WEFT_LEASE_MS", "1000");
    let (cluster, api) = start(builder).await;
    let mut alive: BTreeSet<usize> = (0..FIRST).collect();
    for number in &alive {
        make(&api, *number).await;
    }
    wait_direct(&cluster, &api, &alive).await;
    let (whole, changes) = (
        polls(&cluster, "changed").await,
        polls(&cluster, "changes").await,
    );
    let failed = counter(&cluster, &["table_poll_failed"]).await;
    for number in FIRST..FIRST + MORE {
        make(&api, number).await;
        alive.insert(number);
        let old = number - FIRST;
        let gone = api.delete(&format!("/indexes/{}", name(old))).await;
        api.succeed(&gone.unwrap()).await.unwrap();
        alive.remove(&old);
    }
    empty(&api, 1).await;
    wait_direct(&cluster, &api, &alive).await;
    for old in 0..MORE {
        let path = format!("/indexes/{}/documents/1", name(old));
        let gone = api.get(&path).await.unwrap();
        assert_eq!(gone.status, 404, "{path}: {}", gone.text);
    }
    let left = node(&cluster, 1).get("/indexes?limit=1000").await.unwrap();
    assert_eq!(left.at("/total"), 0, "{}", left.text);
    // A write goes where the changed route says, too.
    let moved = name(*alive.last().unwrap());
    let path = format!("/indexes/{moved}/documents");
    let more = json!([{"id": 2, "tenant": moved}]);
    let written = api.json(Method::PUT, &path, &more).await.unwrap();
    api.succeed(&written).await.unwrap();
    let read = api.get(&format!("{path}/2")).await.unwrap();
    assert_eq!(read.at("/tenant"), moved.as_str(), "{}", read.text);
    assert_eq!(
        polls(&cluster, "changed").await,
        whole,
        "nobody needed the whole table"
    );
    let told = polls(&cluster, "changes").await - changes;
    assert!(told > MORE as u64 / 2, "changes were told {told} times");
    assert_eq!(counter(&cluster, &["table_poll_failed"]).await, failed);
}
