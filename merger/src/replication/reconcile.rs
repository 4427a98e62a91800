//! Did a write end in its middle: with the last merger, or with the way to the nodes?
//!
//! Each node's newest tasks are compared with the newest that is accounted for, its [mark](crate::cluster::Marks). A write under way reached
//! some replicas of its shard, or all, or none, and its client knows nothing of it: any outcome is right, but it must be the same on
//! all. Two replicas have taken the same if their tasks beyond the marks were asked for in the same words; each write of
//! documents has a mark of its own among them (`customMetadata`).

use std::time::Duration;

use futures_util::future::join_all;
use weft_routing::placement::ShardId;

use super::probe::{OTHER_DISK, probe, went_back};
use super::seen::{Seen, beyond, has_same_disk};
use super::{Context, remove_replica, remove_replica_surely};
use crate::cluster::{Mark, NodeId, NodeRef, Probe, READS_FOLLOW, Removal, Topology};
use crate::store::StoreError;

/// A request that was cut off reaches its node within this time, or never: the nodes are looked at again until nothing new comes.
const LANDS_WITHIN: Duration = Duration::from_millis(300);
/// How often they are looked at for that.
const LOOKS: usize = 20;

/// A replica with tasks beyond its mark.
struct Standing<'a> {
    node: &'a NodeRef,
    newest: Option<u32>,
    /// What the tasks beyond the mark are; `None` if that can't be told, or the node went back.
    beyond: Option<Vec<Seen>>,
    went_back: bool,
}

/// Which nodes said what they have taken, and which didn't.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) heard: usize,
    pub(crate) silent: Vec<NodeId>,
    /// The model has taken something that nobody was acknowledged: those that are silent may lack it.
    pub(crate) took_more: bool,
}

/// Compares the replicas of all shards and takes out those that differ from their shard's first.
pub(crate) async fn reconcile(ctx: &Context, topology: &Topology) {
    remove_other_disks(ctx, topology).await;
    let compared = topology.shards().into_iter().map(async |shard| {
        match compare(ctx, topology.nodes(shard)).await {
            // They would come back as if nothing had been written.
            Ok(compared) if compared.took_more => {
                for node in compared.silent {
                    let reason = "another replica has a write that was cut off, and this one does not say whether it has it";
                    remove_replica_surely(ctx, &node, reason).await;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(shard = shard.0, %error, "a replica that differs could not be taken out");
            }
        }
    });
    join_all(compared).await;
}

/// Takes out the nodes that have another disk than they had when the last merger ended. Nothing is read from nodes before every Envoy
/// has heard of it.
async fn remove_other_disks(ctx: &Context, topology: &Topology) {
    let in_sync = |(_, node): &(ShardId, &NodeRef)| ctx.cluster.in_sync.holds(&node.id);
    let nodes: Vec<(ShardId, &NodeRef)> = topology.all_nodes().filter(in_sync).collect();
    let heard = join_all(nodes.iter().map(|(_, node)| probe(ctx, node))).await;
    let mut any = false;
    for ((_, node), heard) in nodes.into_iter().zip(heard) {
        let (Probe::Answer(newest), Mark::At(mark)) = (heard, ctx.cluster.marks.mark(&node.id))
        else {
            continue;
        };
        let reason = match newest < mark {
            true => went_back(newest, mark),
            false if has_same_disk(ctx, node).await == Some(false) => OTHER_DISK.to_owned(),
            false => continue,
        };
        any = true;
        match remove_replica(ctx, &node.id, &reason).await {
            Ok(Removal::RefusedLast) => ctx.cluster.health.mark_data_lost(&node.id),
            Ok(Removal::Removed | Removal::AlreadyOut) => {}
            Err(error) => {
                tracing::error!(node = %node.id, %error, "a node with another disk could not be taken out");
            }
        }
    }
    if any {
        tokio::time::sleep(READS_FOLLOW).await;
    }
}

/// Compares those of a shard's nodes that are in sync, as far as they answer, and takes out those that differ from the first. The
/// tasks of the others are accounted for from then on.
pub(crate) async fn compare(ctx: &Context, nodes: &[NodeRef]) -> Result<Compared, StoreError> {
    // A node whose mark isn't known yet is looked at when it answers, in another way.
    let is_known = |node: &&NodeRef| matches!(ctx.cluster.marks.mark(&node.id), Mark::At(_));
    let (in_sync, unknown): (Vec<&NodeRef>, Vec<&NodeRef>) = nodes
        .iter()
        .filter(|node| ctx.cluster.in_sync.holds(&node.id))
        .partition(is_known);
    let mut silent: Vec<NodeId> = unknown.into_iter().map(|node| node.id.clone()).collect();
    if in_sync.len() < 2 {
        // There is nobody to differ from.
        let heard = in_sync.len();
        let took_more = match in_sync.first() {
            Some(alone) if !silent.is_empty() => has_taken_more(ctx, alone).await,
            _ => false,
        };
        return Ok(Compared {
            heard,
            silent,
            took_more,
        });
    }
    let mut standings = Vec::new();
    let heard = newest_of_all(ctx, &in_sync).await;
    for (node, answer) in in_sync.into_iter().zip(heard) {
        let Probe::Answer(newest) = answer else {
            silent.push(node.id.clone());
            continue;
        };
        let mark = ctx.cluster.marks.newest(&node.id);
        let went_back = newest < mark;
        standings.push(Standing {
            node,
            newest,
            beyond: match went_back {
                true => None,
                false => beyond(ctx, node, mark, newest).await,
            },
            went_back,
        });
    }
    // A node that went back says nothing of what was written, and is no model for others; the watch takes it out.
    standings.retain(|standing| !standing.went_back);
    let took_more = |standing: &Standing<'_>| standing.beyond != Some(Vec::new());
    let compared = Compared {
        heard: standings.len(),
        silent,
        took_more: standings.first().is_some_and(took_more),
    };
    let Some((first, others)) = standings.split_first() else {
        return Ok(compared);
    };
    for other in others {
        if first.beyond.is_some() && first.beyond == other.beyond {
            continue;
        }
        let count = |standing: &Standing<'_>| match &standing.beyond {
            Some(beyond) => beyond.len().to_string(),
            None => "many".to_owned(),
        };
        let reason = format!(
            "a write was cut off in its middle: {} has {} tasks that were not acknowledged, {} has {}",
            first.node.id,
            count(first),
            other.node.id,
            count(other)
        );
        remove_replica(ctx, &other.node.id, &reason).await?;
    }
    for standing in &standings {
        let node = &standing.node.id;
        if ctx.cluster.in_sync.holds(node) {
            ctx.cluster.marks.raise(node, standing.newest).await;
        }
    }
    Ok(compared)
}

/// Whether a node has taken something beyond its mark that changes anything.
async fn has_taken_more(ctx: &Context, node: &NodeRef) -> bool {
    let Probe::Answer(newest) = probe(ctx, node).await else {
        return false;
    };
    let mark = ctx.cluster.marks.newest(&node.id);
    newest > mark && beyond(ctx, node, mark, newest).await != Some(Vec::new())
}

/// The newest task of each, when nothing new comes any more.
async fn newest_of_all(ctx: &Context, nodes: &[&NodeRef]) -> Vec<Probe> {
    let look = || join_all(nodes.iter().map(|node| probe(ctx, node)));
    let mut before = look().await;
    for _ in 0..LOOKS {
        tokio::time::sleep(LANDS_WITHIN).await;
        let now = look().await;
        if now == before {
            break;
        }
        before = now;
    }
    before
}
