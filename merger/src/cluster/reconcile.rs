//! After a start: did the last merger end in the middle of a write?
//!
//! Each node's newest task is compared with the newest that was acknowledged. A write under way reached some replicas of its
//! shard, or all, or none, and its client knows nothing of it: any outcome is right, but it must be the same on all.

use futures_util::future::join_all;
use http::Method;
use serde::Deserialize;
use weft_routing::placement::ShardId;

use super::watch::probe;
use super::{Heard, NodeRef, Topology, take_out};
use crate::app::App;
use crate::upstream::{NodeRequest, Target};

/// How many tasks beyond the acknowledged ones are looked at; more, and the replicas are compared document by document.
const LOOK_BACK: u32 = 20;

/// A replica with more tasks than were acknowledged, or with fewer.
struct Standing<'a> {
    node: &'a NodeRef,
    /// How many tasks it has beyond the newest acknowledged one; negative where it went back.
    beyond: i64,
}

/// Compares the replicas of all shards and takes out those that differ from their shard's first.
pub(super) async fn reconcile(app: &App, topology: &Topology) {
    let shards = topology.shards();
    join_all(
        shards
            .iter()
            .map(|shard| reconcile_shard(app, *shard, topology.nodes(*shard))),
    )
    .await;
}

/// Compares the replicas in sync of a shard; false if one of them gives no answer, so that it has to be done again.
pub(super) async fn compare(app: &App, shard: ShardId) -> bool {
    let topology = app.cluster.topology();
    reconcile_shard(app, shard, topology.nodes(shard)).await
}

async fn reconcile_shard(app: &App, shard: ShardId, nodes: &[NodeRef]) -> bool {
    let in_sync: Vec<&NodeRef> = nodes
        .iter()
        .filter(|node| app.cluster.in_sync.holds(&node.id))
        .collect();
    if in_sync.len() < 2 {
        return true;
    }
    let heard = join_all(in_sync.iter().map(|node| probe(app, node))).await;
    let all_heard = heard.iter().all(|heard| matches!(heard, Heard::Answer(_)));
    let standings: Vec<Standing<'_>> = in_sync
        .iter()
        .zip(heard)
        .filter_map(|(node, heard)| {
            let Heard::Answer(newest) = heard else {
                return None;
            };
            let place = |uid: Option<u32>| uid.map_or(-1, i64::from);
            let beyond = place(newest) - place(app.cluster.pulse.acknowledged(&node.id));
            Some(Standing { node, beyond })
        })
        .collect();
    // Who went back is no model for others; the watch takes it out.
    let Some(first) = standings.iter().find(|standing| standing.beyond >= 0) else {
        return all_heard;
    };
    for other in &standings {
        if std::ptr::eq(first, other) || other.beyond < 0 || alike(app, first, other).await {
            continue;
        }
        let reason = format!(
            "a write was cut off in its middle: {} has {} tasks that were not acknowledged, {} has {}",
            first.node.id, first.beyond, other.node.id, other.beyond
        );
        if let Err(error) = take_out(app, &other.node.id, &reason).await {
            tracing::error!(node = %other.node.id, shard = shard.0, %error, "a replica that differs could not be taken out");
            return false;
        }
    }
    all_heard
}

/// Whether both took the same beyond what was acknowledged.
async fn alike(app: &App, one: &Standing<'_>, two: &Standing<'_>) -> bool {
    if one.beyond != two.beyond {
        return false;
    }
    let Ok(count) = u32::try_from(one.beyond) else {
        return false;
    };
    if count == 0 {
        return true;
    }
    if count > LOOK_BACK {
        return false;
    }
    match (
        newest(app, one.node, count).await,
        newest(app, two.node, count).await,
    ) {
        (Some(one), Some(two)) => one == two,
        _ => false,
    }
}

#[derive(Deserialize)]
struct TaskList {
    results: Vec<Seen>,
}

/// What can be told of a task before it is done.
#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Seen {
    index_uid: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Details {
    #[serde(default)]
    received_documents: Option<u64>,
    #[serde(default)]
    provided_ids: Option<u64>,
}

async fn newest(app: &App, node: &NodeRef, count: u32) -> Option<Vec<Seen>> {
    let request = NodeRequest::new(
        Target::Node(node.address),
        Method::GET,
        format!("/tasks?limit={count}"),
        &app.own_authority(),
        app.options.search_timeout(),
    );
    let answer = app.upstream.send(request).await.ok()?;
    let list: TaskList = serde_json::from_slice(&answer.body).ok()?;
    Some(list.results)
}
