//! Clusters whose Envoys watch files: they get a shard, or a spare node, while clients write and search.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use weft_cluster::{Api, Cluster, Deadline, until};

use crate::envoy_configuration::envoys;
use crate::moving::{DOCUMENTS, ambers, assert_spread, sorted_ids, wait_for_moves};
use crate::support::{MASTER_KEY, documents, ids, node, start};

/// Sends a write, and waits until it is applied everywhere.
async fn applied(api: &Api, path: &str, body: Value) {
    let sent = api.post(path, &body).await.unwrap();
    api.succeed(&sent).await.unwrap();
}

/// An index `x` on all shards, also those that come later.
async fn index(api: &Api) {
    let index = json!({"uid": "x", "primaryKey": "id"});
    applied(api, "/indexes", index).await;
    let settings = json!({"sortableAttributes": ["id"]});
    let set = api.json(reqwest::Method::PATCH, "/indexes/x/settings", &settings);
    api.succeed(&set.await.unwrap()).await.unwrap();
    applied(api, "/indexes/x/documents", documents(0..DOCUMENTS)).await;
}

/// Clients that go on until they are told to stop. None of their requests may fail.
struct Clients {
    stop: Arc<AtomicBool>,
    searcher: JoinHandle<usize>,
    writer: JoinHandle<BTreeSet<u64>>,
}

impl Clients {
    fn begin(api: &Api) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let searcher = tokio::spawn(search(api.clone(), Arc::clone(&stop)));
        let writer = tokio::spawn(write(api.clone(), Arc::clone(&stop)));
        Self {
            stop,
            searcher,
            writer,
        }
    }

    /// Returns all documents that there must be.
    async fn end(self) -> BTreeSet<u64> {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.searcher.await.unwrap() > 3, "searches went on");
        let added = self.writer.await.unwrap();
        assert!(added.len() > 3, "writes went on");
        (0..DOCUMENTS).chain(added).collect()
    }
}

async fn search(api: Api, stop: Arc<AtomicBool>) -> usize {
    let (expected, mut searches) = (ambers(), 0);
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(sorted_ids(&api, 0, 20).await, expected[..20]);
        let one = api.get("/indexes/x/documents/777").await.unwrap();
        assert_eq!(one.status, 200, "{}", one.text);
        searches += 1;
    }
    searches
}

async fn write(api: Api, stop: Arc<AtomicBool>) -> BTreeSet<u64> {
    let mut added = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let id = 100_000 + u64::try_from(added.len()).unwrap();
        let new = json!([{"id": id, "name": "zinc"}]);
        let reply = api.post("/indexes/x/documents", &new).await.unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text);
        added.insert(id);
    }
    added
}

/// Waits until all that was written is applied everywhere.
async fn wait_applied(api: &Api) {
    let last = json!([{"id": 1, "name": "birch number 1", "group": 1}]);
    applied(api, "/indexes/x/documents", last).await;
}

async fn nodes(api: &Api) -> Value {
    let listed = api.get("/_cluster/nodes").await.unwrap();
    assert_eq!(listed.status, 200, "{}", listed.text);
    serde_json::from_str(&listed.text).unwrap()
}

/// Waits until something is true of `/_cluster/nodes`.
async fn wait_nodes(api: &Api, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    until(what, Deadline::after(Duration::from_secs(60)), || async {
        let nodes = nodes(api).await;
        is_so(&nodes)
            .then(|| nodes.clone())
            .ok_or(nodes.to_string())
    })
    .await
    .unwrap()
}

/// A node in `/_cluster/nodes`.
fn find<'a>(nodes: &'a Value, list: &str, id: &str) -> Option<&'a Value> {
    let mut listed = nodes[list].as_array().unwrap().iter();
    listed.find(|node| node["id"] == id)
}

fn serves(nodes: &Value, id: &str) -> bool {
    find(nodes, "nodes", id).is_some_and(|node| node["inSync"] == true && node["ready"] == true)
}

#[tokio::test]
async fn a_shard_that_is_added_while_clients_go_on_takes_its_share() {
    let builder = Cluster::builder().shards(3).watched(1);
    let builder = builder.merger_env("WEFT_LEASE_MS", "1000");
    let (mut cluster, api) = start(builder.merger_env("WEFT_MOVE_BATCH", "100")).await;
    index(&api).await;
    let envoy = cluster.envoy().id();
    let clients = Clients::begin(&api);
    assert_eq!(cluster.add_shard().await.unwrap(), 3);
    let shards = api.get("/_cluster/shards").await.unwrap();
    assert_eq!(shards.at("/shards/3/indexes"), 0, "{}", shards.text);
    let planned = api.post("/_cluster/rebalance", &json!({})).await.unwrap();
    assert_eq!(planned.status, 202, "{}", planned.text);
    let slots = planned.at("/plan").as_array().unwrap().iter();
    assert_eq!(
        slots
            .map(|step| step["slots"].as_u64().unwrap())
            .sum::<u64>(),
        1_024,
        "{}",
        planned.text
    );
    let ended = wait_for_moves(&api, 0).await;
    assert!(
        ended
            .iter()
            .all(|one| one["state"] == "done" && one["to"] == 3),
        "{ended:?}"
    );
    let wanted = clients.end().await;
    wait_applied(&api).await;
    assert_spread(&cluster, &[0, 1, 2, 3], 4, &wanted).await;
    assert_eq!(cluster.envoy().id(), envoy, "Envoy was not restarted");
    // A merger that restarts finds the same shards.
    cluster.merger().terminate().unwrap();
    cluster.merger().restart().unwrap();
    cluster.wait_ready().await.unwrap();
    assert_eq!(ids(&api, "x").await, wanted.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_spare_takes_the_place_of_a_replica_that_stays_away() {
    let builder = Cluster::builder().shards(2).replicas(2).spares(2);
    let builder = builder.merger_env("WEFT_REPLACE_AFTER_S", "2");
    let builder = builder.merger_env("WEFT_NODE_DOWN_AFTER_MS", "1000");
    let (cluster, api) = start(builder).await;
    index(&api).await;
    let free = |nodes: &Value| {
        nodes["spares"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|spare| spare["ready"] == true)
            .count()
    };
    wait_nodes(&api, "two spares answer", |nodes| free(nodes) == 2).await;
    // One that is gone is no spare.
    cluster.spare(0).kill().unwrap();
    wait_nodes(&api, "one spare answers", |nodes| free(nodes) == 1).await;
    let clients = Clients::begin(&api);
    cluster.node(0, 1).kill().unwrap();
    let now = wait_nodes(&api, "the spare serves", |nodes| {
        serves(nodes, "spare-node-1")
    })
    .await;
    assert_eq!(find(&now, "nodes", "spare-node-1").unwrap()["shard"], 0);
    assert_eq!(find(&now, "nodes", "shard-0-node-1"), None, "{now}");
    assert_eq!(find(&now, "spares", "spare-node-1"), None, "{now}");
    let done = wait_nodes(&api, "it is done", |nodes| {
        nodes["replacements"][0]["state"] == "done"
    })
    .await;
    for (name, value) in [
        ("shard", json!(0)),
        ("out", json!("shard-0-node-1")),
        ("in", json!("spare-node-1")),
    ] {
        assert_eq!(done["replacements"][0][name], value, "{done}");
    }
    // What came back is no member, and the next one that goes finds no spare.
    cluster.node(0, 1).restart().unwrap();
    cluster.node(1, 0).kill().unwrap();
    let wanted = clients.end().await;
    wait_applied(&api).await;
    let spare = Api::new(cluster.spare_url(1), Some(MASTER_KEY));
    assert_eq!(ids(&spare, "x").await, ids(&node(&cluster, 0), "x").await);
    assert_eq!(
        ids(&api, "x").await,
        wanted.iter().copied().collect::<Vec<_>>()
    );
    // A merger that restarts keeps to it.
    cluster.merger().kill().unwrap();
    cluster.merger().restart().unwrap();
    cluster.wait_ready().await.unwrap();
    let now = wait_nodes(&api, "the spare serves again", |nodes| {
        serves(nodes, "spare-node-1")
    })
    .await;
    assert_eq!(now["replacements"].as_array().unwrap().len(), 1, "{now}");
    assert!(find(&now, "nodes", "shard-1-node-0").is_some(), "{now}");
    assert_eq!(find(&now, "nodes", "shard-0-node-1"), None, "{now}");
    let metrics = Api::new(cluster.merger_url(), None)
        .get("/_weft/metrics")
        .await
        .unwrap();
    assert!(
        metrics
            .text
            .contains("weft_merger_replicas_replaced_total 0"),
        "{}",
        metrics.text
    );
    // The other spare comes back, and is taken at once for the one that is away.
    cluster.spare(0).restart().unwrap();
    wait_nodes(&api, "the other spare serves", |nodes| {
        serves(nodes, "spare-node-0")
    })
    .await;
    assert_eq!(ids(&api, "x").await, wanted.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_oldest_envoy_and_the_newest_watch_files_with_nodes() {
    for envoy in envoys() {
        let builder = Cluster::builder().spares(1).watched(1).envoy(envoy);
        let (mut cluster, api) = start(builder).await;
        index(&api).await;
        let shard = cluster.add_shard().await.unwrap();
        wait_nodes(&api, "the spare answers", |nodes| {
            nodes["spares"][0]["ready"] == true
        })
        .await;
        let planned = api.post("/_cluster/rebalance", &json!({})).await.unwrap();
        assert_eq!(planned.status, 202, "{}", planned.text);
        wait_for_moves(&api, 0).await;
        assert_spread(&cluster, &[0, shard], 2, &(0..DOCUMENTS).collect()).await;
        let log = std::fs::read_to_string(cluster.envoy().log()).unwrap();
        assert!(!log.to_lowercase().contains("deprecated"), "{log}");
    }
}
