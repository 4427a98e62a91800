//! Watches every node: probes it several times a second, checks that it is the one it was, and takes out those that stay away.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use weft_routing::placement::ShardId;

use super::establish::establish;
use super::seen::has_same_disk;
use super::{Heard, Life, Mark, NodeId, NodeRef, doubt, take_out};
use crate::app::App;
use crate::supervise::supervise;
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// How long a node may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Watches all nodes that there are; never ends.
pub async fn watch(app: Arc<App>) {
    let mut topology = app.cluster.watch_topology();
    let mut watched: hashbrown::HashSet<NodeId> = hashbrown::HashSet::new();
    loop {
        let now = topology.borrow_and_update().clone();
        for (_, node) in now.all_nodes() {
            if watched.insert(node.id.clone()) {
                let id = node.id.clone();
                supervise(&app, "watch-node", move |app| watch_node(app, id.clone()));
            }
        }
        if topology.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_node(app: Arc<App>, id: NodeId) {
    let every = Duration::from_millis(app.options.probe_interval_ms.max(10));
    loop {
        let topology = app.cluster.topology();
        // A node that left the configuration may come back under the same name.
        if let (Some(node), Some(shard)) = (topology.find(&id), topology.shard_of(&id)) {
            look(&app, shard, node).await;
        }
        tokio::time::sleep(every).await;
    }
}

/// One look at a node, and what follows from it.
async fn look(app: &Arc<App>, shard: ShardId, node: &NodeRef) {
    let pulse = &app.cluster.pulse;
    // Read before the node is asked: what it takes meanwhile must not make it look as if it had gone back.
    let mark = app.cluster.marks.mark(&node.id);
    let heard = probe(app, node).await;
    let goes_on = match (&heard, mark) {
        (Heard::Answer(newest), Mark::At(mark)) if *newest >= mark => {
            // It may have been away, and come back with another disk that had as many tasks.
            pulse.is_trusted(&node.id)
                || (has_same_disk(app, node).await != Some(false)
                    && !differs_perhaps(app, shard, &node.id, *newest > mark))
        }
        _ => false,
    };
    pulse.note(&node.id, &heard, goes_on);
    pulse.note_work(&node.id, app.tasks.has_outstanding(&node.id));
    match (heard, mark) {
        (Heard::Answer(newest), Mark::At(mark)) if !goes_on => {
            let reason = match newest < mark {
                true => went_back(newest, mark),
                false => OTHER_DISK.to_owned(),
            };
            let is_known = pulse.life(&node.id) == Life::Lost;
            if !is_known
                && app.cluster.in_sync.holds(&node.id)
                && is_last(take_out(app, &node.id, &reason).await)
            {
                pulse.lose(&node.id);
            }
        }
        (Heard::Answer(_), Mark::Unknown { .. }) => establish(app, shard).await,
        (Heard::Answer(_) | Heard::Blind, _) => {}
        (Heard::Gone | Heard::Nonsense(_), _) => take_out_if_down(app, shard, node).await,
    }
}

/// Whether a node that comes back has taken more than is accounted for, while others of its shard may not have it: they are compared
/// before it is trusted. It took a write whose answer was lost with the merger, or that nobody could answer.
fn differs_perhaps(app: &Arc<App>, shard: ShardId, node: &NodeId, has_more: bool) -> bool {
    let is_one_of_several =
        app.cluster.in_sync.holds(node) && app.cluster.replicas(shard).len() > 1;
    if has_more && is_one_of_several {
        doubt(app, shard);
    }
    has_more && is_one_of_several
}

/// Why a node with as many tasks, but others, is not trusted.
pub(super) const OTHER_DISK: &str =
    "a task that it had is another one now: its disk is not the one that it was";

/// Why a node whose newest task is older than its mark is not trusted.
pub(super) fn went_back(newest: Option<u32>, mark: Option<u32>) -> String {
    let told = |uid: Option<u32>| uid.map_or("none".to_owned(), |uid| uid.to_string());
    format!(
        "its newest task is {}, and {} was acknowledged: its disk is empty or an older one",
        told(newest),
        told(mark)
    )
}

fn is_last(outcome: Result<super::TakenOut, crate::store::StoreError>) -> bool {
    matches!(outcome, Ok(super::TakenOut::Last))
}

/// After so many missed heartbeats a node is down. If another replica in sync is there, the shard goes on without it.
async fn take_out_if_down(app: &App, shard: ShardId, node: &NodeRef) {
    if app.cluster.is_up(&node.id) || !app.cluster.in_sync.holds(&node.id) {
        return;
    }
    let another = app
        .cluster
        .replicas(shard)
        .iter()
        // What only the lost one has taken, another must have got first.
        .any(|other| {
            other.id != node.id
                && app.cluster.is_up(&other.id)
                && app.cluster.lanes.is_even(&other.id)
        });
    if another {
        let silence = app.cluster.pulse.silence(&node.id).as_secs();
        let reason = format!("it has not answered for {silence} s");
        if let Err(error) = take_out(app, &node.id, &reason).await {
            tracing::error!(node = %node.id, %error, "a node that is down could not be taken out");
        }
    }
}

#[derive(Deserialize)]
struct TaskList {
    results: Vec<LocalTask>,
}

#[derive(Deserialize)]
struct LocalTask {
    uid: u32,
}

/// Asks a node for its newest task.
pub(super) async fn probe(app: &App, node: &NodeRef) -> Heard {
    let request = NodeRequest::new(
        Target::Node(node.address),
        Method::GET,
        "/tasks?limit=1",
        &app.own_authority(),
        PROBE_TIMEOUT,
    );
    let answer = match app.upstream.send(request).await {
        Ok(answer) => answer,
        Err(UpstreamError::NoEgress { .. }) => return Heard::Blind,
        Err(UpstreamError::Unreachable { detail, .. }) if is_connection_failure(&detail) => {
            return Heard::Gone;
        }
        Err(error) => return Heard::Nonsense(error.to_string()),
    };
    if answer.status != StatusCode::OK {
        return Heard::Nonsense(format!("it answered {}", answer.status));
    }
    match serde_json::from_slice::<TaskList>(&answer.body) {
        Ok(list) => Heard::Answer(list.results.first().map(|task| task.uid)),
        Err(error) => Heard::Nonsense(error.to_string()),
    }
}

/// Whether Envoy says that the connection failed or was cut, and not that it had no room for one more.
fn is_connection_failure(detail: &str) -> bool {
    !detail.contains("overflow")
}
