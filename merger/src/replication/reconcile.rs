//! Finds writes that were cut off, when the last merger stopped or when the way to the nodes failed.
//!
//! Each node's newest tasks are compared with the newest one that is accounted for, the node's [mark](crate::cluster::Marks). A
//! write that was cut off reached some, all or none of its shard's replicas, and its client got no answer. Any outcome is right,
//! but it must be the same on all replicas. Two replicas have taken the same if their tasks beyond the marks were asked for in
//! the same words. Each write of documents has an identifier of its own among them (`customMetadata`).

use std::time::Duration;

use futures_util::future::join_all;
use weft_routing::placement::ShardId;

use super::reasons::{OTHER_DISK, went_back};
use super::seen::{Beyond, beyond, has_same_disk};
use super::{Context, remove_replica, remove_replica_surely};
use crate::cluster::{Mark, NodeId, NodeRef, Probe, READS_LEAVE, Removal, Topology};
use crate::probe::probe;
use crate::store::StoreError;

/// A request that was cut off reaches its node within this time, or never. The nodes are looked at again until nothing new
/// arrives.
const LANDS_WITHIN: Duration = Duration::from_millis(300);
/// How often they are looked at again at most.
const LOOKS: usize = 20;

/// A replica that answered, and its tasks beyond its mark.
struct Standing<'a> {
    node: &'a NodeRef,
    newest: Option<u32>,
    beyond: Beyond,
}

/// How many nodes answered what they have taken, and which didn't.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) heard: usize,
    pub(crate) silent: Vec<NodeId>,
    /// The first replica has taken a write that was not acknowledged. Silent replicas may lack it.
    pub(crate) took_more: bool,
    /// The newest task of each node that answered and is in sync.
    newest: Vec<(NodeId, Option<u32>)>,
}

impl Compared {
    /// From now on, the tasks of the nodes that answered are accounted for. Silent replicas that may lack some of them must be out
    /// of sync by now: nothing would show it later.
    pub(crate) async fn account(self, ctx: &Context) {
        for (node, newest) in self.newest {
            ctx.cluster.marks.raise(&node, newest).await;
        }
    }
}

/// Compares the replicas of all shards, and removes those that differ from the first of their shard from the in-sync set.
pub(crate) async fn reconcile(ctx: &Context, topology: &Topology) {
    remove_other_disks(ctx, topology).await;
    let compared = topology.shards().into_iter().map(async |shard| {
        match compare(ctx, topology.nodes(shard)).await {
            Ok(compared) => {
                // Otherwise the silent replicas would come back as if nothing had been written.
                if compared.took_more {
                    for node in &compared.silent {
                        let reason = "another replica has a write that was cut off, and this one does not say whether it has it";
                        remove_replica_surely(ctx, node, reason).await;
                    }
                }
                compared.account(ctx).await;
            }
            Err(error) => {
                tracing::error!(shard = shard.0, %error, "a replica that differs could not be taken out");
            }
        }
    });
    join_all(compared).await;
}

/// Removes the nodes whose disk is not the one that they had when the last merger stopped. Waits until every Envoy knows it
/// before anything is read from nodes.
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
        tokio::time::sleep(READS_LEAVE).await;
    }
}

/// Compares the in-sync replicas of a shard that answer, and removes those that differ from the first. The caller removes silent
/// ones where that is needed, and then calls [`Compared::account`].
pub(crate) async fn compare(ctx: &Context, nodes: &[NodeRef]) -> Result<Compared, StoreError> {
    // A node whose mark isn't known yet is not compared here: its mark is established when it answers.
    let is_known = |node: &&NodeRef| matches!(ctx.cluster.marks.mark(&node.id), Mark::At(_));
    let (in_sync, unknown): (Vec<&NodeRef>, Vec<&NodeRef>) = nodes
        .iter()
        .filter(|node| ctx.cluster.in_sync.holds(&node.id))
        .partition(is_known);
    let mut silent: Vec<NodeId> = unknown.into_iter().map(|node| node.id.clone()).collect();
    if in_sync.len() < 2 {
        // There is no other replica to compare with.
        let heard = in_sync.len();
        let took_more = match in_sync.first() {
            Some(alone) if !silent.is_empty() => has_taken_more(ctx, alone).await,
            _ => false,
        };
        return Ok(Compared {
            heard,
            silent,
            took_more,
            newest: Vec::new(),
        });
    }
    let mut standings = Vec::new();
    let heard = newest_of_all(ctx, &in_sync).await;
    for (node, answer) in in_sync.into_iter().zip(heard) {
        let Probe::Answer(newest) = answer else {
            silent.push(node.id.clone());
            continue;
        };
        // A node that went back shows nothing about the writes and is no model for others. The watch removes it.
        if newest < ctx.cluster.marks.newest(&node.id) {
            continue;
        }
        match beyond(ctx, node, newest).await {
            None => silent.push(node.id.clone()),
            Some(beyond) => standings.push(Standing {
                node,
                newest,
                beyond,
            }),
        }
    }
    let took_more = |standing: &Standing<'_>| standing.beyond != Beyond::Tasks(Vec::new());
    let mut compared = Compared {
        heard: standings.len(),
        silent,
        took_more: standings.first().is_some_and(took_more),
        newest: Vec::new(),
    };
    let Some((first, others)) = standings.split_first() else {
        return Ok(compared);
    };
    for other in others {
        let is_told = matches!(first.beyond, Beyond::Tasks(_));
        if is_told && first.beyond == other.beyond {
            continue;
        }
        let count = |standing: &Standing<'_>| match &standing.beyond {
            Beyond::Tasks(tasks) => tasks.len().to_string(),
            Beyond::Untold => "many".to_owned(),
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
    let in_sync = standings
        .iter()
        .map(|standing| (standing.node.id.clone(), standing.newest))
        .filter(|(node, _)| ctx.cluster.in_sync.holds(node));
    compared.newest.extend(in_sync);
    Ok(compared)
}

/// Whether a node has a task beyond its mark that may change something.
async fn has_taken_more(ctx: &Context, node: &NodeRef) -> bool {
    let Probe::Answer(newest) = probe(ctx, node).await else {
        return false;
    };
    match beyond(ctx, node, newest).await {
        Some(Beyond::Tasks(tasks)) => !tasks.is_empty(),
        Some(Beyond::Untold) => true,
        None => false,
    }
}

/// The newest task of each node, once nothing new arrives.
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
