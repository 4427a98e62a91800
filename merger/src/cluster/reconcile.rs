//! Did a write end in its middle: with the last merger, or with the way to the nodes?
//!
//! Each node's newest task is compared with the newest that was acknowledged. A write under way reached some replicas of its
//! shard, or all, or none, and its client knows nothing of it: any outcome is right, but it must be the same on all.

use futures_util::future::join_all;
use http::Method;
use serde::Deserialize;

use super::watch::probe;
use super::{Heard, NodeId, NodeRef, Topology, take_out};
use crate::app::App;
use crate::store::StoreError;
use crate::upstream::{NodeRequest, Target};

/// How many tasks beyond the acknowledged ones are looked at; more, and the replicas are compared document by document.
const LOOK_BACK: u32 = 20;

/// A replica with more tasks than were acknowledged, or with fewer.
struct Standing<'a> {
    node: &'a NodeRef,
    /// How many tasks it has beyond the newest acknowledged one; negative where it went back.
    beyond: i64,
}

/// Who said what it has taken, and who didn't.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) heard: usize,
    pub(super) silent: Vec<NodeId>,
}

/// Compares the replicas of all shards and takes out those that differ from their shard's first.
pub(super) async fn reconcile(app: &App, topology: &Topology) {
    let compared = topology.shards().into_iter().map(async |shard| {
        if let Err(error) = compare(app, topology.nodes(shard)).await {
            tracing::error!(shard = shard.0, %error, "a replica that differs could not be taken out");
        }
    });
    join_all(compared).await;
}

/// Compares those of a shard's nodes that are in sync, as far as they answer, and takes out who differs from the first.
pub(super) async fn compare(app: &App, nodes: &[NodeRef]) -> Result<Compared, StoreError> {
    let in_sync: Vec<&NodeRef> = nodes
        .iter()
        .filter(|node| app.cluster.in_sync.holds(&node.id))
        .collect();
    if in_sync.len() < 2 {
        // There is nobody to differ from.
        return Ok(Compared {
            heard: in_sync.len(),
            silent: Vec::new(),
        });
    }
    let answers = join_all(in_sync.iter().map(|node| probe(app, node))).await;
    let (mut standings, mut silent) = (Vec::new(), Vec::new());
    for (node, answer) in in_sync.into_iter().zip(answers) {
        let Heard::Answer(newest) = answer else {
            silent.push(node.id.clone());
            continue;
        };
        let place = |uid: Option<u32>| uid.map_or(-1, i64::from);
        let beyond = place(newest) - place(app.cluster.pulse.acknowledged(&node.id));
        standings.push(Standing { node, beyond });
    }
    let compared = Compared {
        heard: standings.len(),
        silent,
    };
    // Who went back is no model for others; the watch takes it out.
    let Some(first) = standings.iter().find(|standing| standing.beyond >= 0) else {
        return Ok(compared);
    };
    for other in &standings {
        if std::ptr::eq(first, other) || other.beyond < 0 || alike(app, first, other).await {
            continue;
        }
        let reason = format!(
            "a write was cut off in its middle: {} has {} tasks that were not acknowledged, {} has {}",
            first.node.id, first.beyond, other.node.id, other.beyond
        );
        take_out(app, &other.node.id, &reason).await?;
    }
    Ok(compared)
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
