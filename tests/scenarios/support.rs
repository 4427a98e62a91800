//! What several scenarios need: a cluster with its client, sample documents, counters of Envoy.

use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, ClusterBuilder};

pub(crate) const MASTER_KEY: &str = "a-master-key-for-tests";

/// Starts a cluster with a master key, and a client that holds it.
pub(crate) async fn start(builder: ClusterBuilder) -> (Cluster, Api) {
    let cluster = builder.master_key(MASTER_KEY).start().await.unwrap();
    let api = Api::new(cluster.url(), Some(MASTER_KEY));
    (cluster, api)
}

/// A node of the cluster, asked directly.
pub(crate) fn node(cluster: &Cluster, shard: u16) -> Api {
    Api::new(cluster.node_url(shard, 0), Some(MASTER_KEY))
}

/// Documents `from..to`: `{"id": 7, "name": "…", "group": 7 % 10}`.
pub(crate) fn documents(ids: std::ops::Range<u64>) -> Value {
    let names = ["amber", "birch", "cedar", "dune", "ember"];
    ids.map(|id| {
        let name = names
            .iter()
            .cycle()
            .nth(usize::try_from(id % 5).unwrap())
            .unwrap();
        json!({"id": id, "name": format!("{name} number {id}"), "group": id % 10})
    })
    .collect()
}

/// The ids that a node or cluster holds, in ascending order.
pub(crate) async fn ids(api: &Api, index: &str) -> Vec<u64> {
    let list = api
        .get(&format!(
            "/indexes/{index}/documents?limit=1000000&fields=id"
        ))
        .await
        .unwrap();
    assert_eq!(list.status, 200, "{}", list.text);
    let mut ids: Vec<u64> = list
        .at("/results")
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| hit["id"].as_u64().unwrap())
        .collect();
    ids.sort_unstable();
    ids
}

/// The sum of a counter of Envoy or the filter whose name and labels contain all of `words`.
pub(crate) async fn counter(cluster: &Cluster, words: &[&str]) -> u64 {
    let stats = Api::new(cluster.admin_url(), None)
        .get("/stats/prometheus")
        .await
        .unwrap()
        .text;
    stats
        .lines()
        .filter(|line| !line.starts_with('#') && words.iter().all(|word| line.contains(word)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// How many requests the merger has received from the edge.
pub(crate) async fn merger_requests(cluster: &Cluster) -> u64 {
    counter(cluster, &["envoy_cluster_upstream_rq_total{", "\"merger\""]).await
}
