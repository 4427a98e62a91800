//! A spare node takes a replica's place while mergers come and go, and gives it back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use weft_cluster::{Api, Cluster, Deadline, until};

use super::{assert_nothing_lost, held, three, under_load};
use crate::support::MASTER_KEY;

const OUT: &str = "shard-0-node-1";
const SPARE: &str = "spare-node-0";

/// A file that a pair's Envoy watches.
fn file(cluster: &Cluster, pair: u16, name: &str) -> PathBuf {
    cluster.watched_folder_of(pair).join(name)
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Changes a file as an operator must: Envoy reads it when another one is moved into its place.
fn change(path: &Path, content: &Value) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content.to_string()).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// Waits until something is true of the last replacement.
async fn wait_replacement(api: &Api, what: &str, is_so: impl Fn(&Value) -> bool) {
    until(what, Deadline::after(Duration::from_secs(60)), || async {
        let nodes = api.get("/_cluster/nodes").await;
        let nodes = nodes.map_err(|error| error.line())?;
        match nodes.at("/replacements/0") {
            one if is_so(one) => Ok(()),
            _ => Err(nodes.text),
        }
    })
    .await
    .unwrap();
}

/// Waits until every Envoy sends reads to one node, and none to another.
async fn wait_in_place_of(cluster: &Cluster, out: &str, new: &str) {
    for pair in cluster.pairs() {
        cluster.wait_readable_at(pair, new, true).await.unwrap();
        cluster.wait_readable_at(pair, out, false).await.unwrap();
    }
}

#[tokio::test]
async fn a_spare_comes_into_every_envoys_files_whoever_leads_and_gives_its_place_back() {
    let builder = three().spares(1);
    let builder = builder.merger_env("WEFT_REPLACE_AFTER_S", "2");
    let builder = builder.merger_env("WEFT_NODE_DOWN_AFTER_MS", "1000");
    let (cluster, mut load) = under_load(builder).await;
    let before: Vec<Value> = (0..3)
        .map(|pair| read(&file(&cluster, pair, "shard-0.json")))
        .collect();
    let leader = cluster.wait_leader(None).await.unwrap();
    let [away, there] = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.pair(away).merger().kill().unwrap();
    cluster.node(0, 1).kill().unwrap();
    let edge = Api::new(cluster.pair(there).url(), Some(MASTER_KEY));
    wait_replacement(&edge, "the leader has decided", |one| one["in"] == SPARE).await;
    // It may have changed no file yet.
    cluster.pair(leader).merger().kill().unwrap();
    cluster.wait_leader(Some(leader)).await.unwrap();
    wait_replacement(&edge, "it is done", |one| one["state"] == "done").await;
    for pair in [leader, away] {
        cluster.pair(pair).merger().restart().unwrap();
    }
    wait_in_place_of(&cluster, OUT, SPARE).await;
    load.wait_for_progress().await;
    let nodes = edge.get("/_cluster/nodes").await.unwrap();
    let replacements = nodes.at("/replacements").as_array().unwrap();
    assert_eq!(replacements.len(), 1, "{}", nodes.text);
    for pair in 0..3 {
        let listed = read(&file(&cluster, pair, "shard-0.json")).to_string();
        assert!(listed.contains(SPARE) && !listed.contains(OUT), "{listed}");
        let spares = read(&file(&cluster, pair, "spare.json")).to_string();
        assert!(!spares.contains(SPARE), "{spares}");
    }

    // The operator gives the node its place back, with all that it has missed.
    cluster.node(0, 1).restart().unwrap();
    for (pair, mut before) in (0..3).zip(before) {
        let path = file(&cluster, pair, "shard-0.json");
        before["version_info"] = read(&path)["version_info"].clone();
        change(&path, &before);
    }
    wait_in_place_of(&cluster, SPARE, OUT).await;
    assert_nothing_lost(&cluster, load).await;
    let spare = Api::new(cluster.spare_url(0), Some(MASTER_KEY));
    assert!(!held(&spare).await.is_empty(), "it has served");
    for pair in 0..3 {
        let listed = read(&file(&cluster, pair, "shard-0.json")).to_string();
        assert!(listed.contains(OUT) && !listed.contains(SPARE), "{listed}");
    }
}
