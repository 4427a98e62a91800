//! Several pairs of Envoy and merger: any merger may be killed, frozen or cut off, and clients of the other Envoys notice at most a
//! pause of writes.
//!
//! [`Load`] writes, reads its own writes through other Envoys, and searches, all the time; each scenario breaks something meanwhile.

mod cut_off;
mod etcd_gone;
mod guarded;
mod leader_gone;
mod load;
mod remembered;
mod restarts;
mod spares;
mod together;
mod traced;

use std::time::Duration;

use serde_json::Value;
use weft_cluster::{Api, Cluster, ClusterBuilder, Deadline, Layout, until};

use crate::support::MASTER_KEY;
use load::Load;

/// For how long writes may pause when a leader is gone: its lease, and the doubt after it.
const PAUSE: Duration = Duration::from_secs(5);
/// How much longer a pause may look to a client here: the test's own clients wait between attempts.
const SLACK: Duration = Duration::from_millis(500);

/// Two shards of two nodes behind three pairs.
fn three() -> ClusterBuilder {
    Cluster::builder().shards(2).replicas(2).mergers(3)
}

/// A cluster under load that is whole: the leader has judged all nodes, and every Envoy has taken writes and answered reads.
async fn under_load(builder: ClusterBuilder) -> (Cluster, Load) {
    let cluster = builder.master_key(MASTER_KEY).start().await.unwrap();
    for edge in cluster.edges() {
        wait_green(&edge).await;
    }
    let load = load(&cluster).await;
    (cluster, load)
}

/// The same as soon as every Envoy has taken writes and answered reads: the leader has only begun to lead.
async fn under_load_at_once(builder: ClusterBuilder) -> (Cluster, Load) {
    let cluster = builder.master_key(MASTER_KEY).start().await.unwrap();
    let load = load(&cluster).await;
    (cluster, load)
}

async fn load(cluster: &Cluster) -> Load {
    let mut load = Load::start(cluster).await;
    load.wait_for_progress().await;
    load
}

/// Waits until the cluster is whole, ends the load, and checks what became of every write.
async fn assert_nothing_lost(cluster: &Cluster, mut load: Load) -> load::Noted {
    cluster.wait_ready().await.unwrap();
    load.wait_for_progress().await;
    let noted = load.end().await;
    wait_green(&cluster.edges()[0]).await;
    noted.assert_sound();
    for edge in cluster.edges() {
        noted.assert_all_there(&held(&edge).await, edge.base());
    }
    assert_replicas_equal(cluster).await;
    noted
}

async fn wait_green(api: &Api) {
    let deadline = Deadline::after(Duration::from_secs(60));
    until("a green cluster", deadline, || async {
        let health = api.get("/_cluster/health").await;
        let health = health.map_err(|error| error.line())?;
        match health.at("/status") == "green" {
            true => Ok(()),
            false => Err(health.text),
        }
    })
    .await
    .unwrap();
}

/// What a node or a cluster holds of the load's index, in the order of the ids.
async fn held(api: &Api) -> Vec<Value> {
    let path = format!("/indexes/{}/documents?limit=1000000", load::INDEX);
    let list = api.get(&path).await.unwrap();
    assert_eq!(list.status, 200, "{}: {}", api.base(), list.text);
    let mut documents = list.at("/results").as_array().unwrap().clone();
    documents.sort_by_key(|document| document["id"].as_u64());
    documents
}

async fn assert_replicas_equal(cluster: &Cluster) {
    for shard in 0..cluster.layout().shards() {
        let node = |replica| Api::new(cluster.node_url(shard, replica), Some(MASTER_KEY));
        let first = held(&node(0)).await;
        assert!(!first.is_empty(), "shard {shard} is empty");
        for replica in 1..cluster.layout().replicas() {
            assert!(
                first == held(&node(replica)).await,
                "{} differs",
                Layout::node_name(shard, replica)
            );
        }
    }
}
