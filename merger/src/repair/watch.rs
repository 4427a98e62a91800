//! Watches every node: probes it several times a second, checks that its disk is still the same, and removes nodes that stay away
//! from the in-sync set.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weft_routing::placement::ShardId;

use super::Context;
use super::verify::verify_shard;
use crate::cluster::{Mark, NodeId, NodeRef, NodeStatus, Probe, Removal};
use crate::probe::for_each_node;
use crate::replication::{
    Established, OTHER_DISK, dated, establish_locked, has_same_disk, probe, proves_its_disk,
    put_in_doubt, remove_replica, went_back,
};
use crate::store::StoreError;
use crate::supervise::supervise;

/// The pause before a node that waits for others is tried again.
const REST: Duration = Duration::from_millis(500);

/// How long a task may be unknown before it is taken for one that somebody else has sent.
const STRANGE_AFTER: Duration = Duration::from_secs(2);

/// Watches all nodes of the topology; never ends.
pub async fn watch(ctx: Arc<Context>) {
    for_each_node(&ctx.cluster, |id| {
        supervise(&ctx, &ctx.metrics.panics, "watch-node", move |ctx| {
            watch_node(ctx, id.clone())
        });
    })
    .await;
}

async fn watch_node(ctx: Arc<Context>, id: NodeId) {
    let every = ctx.options.probe_interval;
    let (mut stranger, mut shown) = (None, None);
    loop {
        let topology = ctx.cluster.topology();
        // A node that left the configuration may come back under the same name.
        if let (Some(node), Some(shard)) = (topology.find(&id), topology.shard_of(&id)) {
            let heard = look(&ctx, shard, node).await;
            if let Probe::Answer(newest) = heard {
                look_for_strangers(&ctx, shard, &id, newest, &mut stranger);
                forget_answers_before(&ctx, node, newest, &mut shown);
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// How a node's tasks look beside its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tasks {
    /// They go on where they were: it is the same disk.
    GoOn,
    /// It is the same disk, but the node has tasks that other replicas may lack. It is trusted once the replicas were compared.
    InDoubt,
    /// The node has fewer tasks than it had.
    WentBack {
        newest: Option<u32>,
        mark: Option<u32>,
    },
    /// A task that the node had is another one now.
    OtherDisk,
    /// The node didn't answer, or its mark isn't known.
    Unknown,
}

/// Where several mergers share the state: puts a shard in doubt if a node has a task that this merger has not sent. It may be a
/// write of the last leader that was still on its way when the replicas were compared, and only some of them may have it.
fn look_for_strangers(
    ctx: &Context,
    shard: ShardId,
    node: &NodeId,
    newest: Option<u32>,
    stranger: &mut Option<(u32, Instant)>,
) {
    let cluster = &ctx.cluster;
    if !cluster.mergers.are_several() {
        return;
    }
    let unaccounted = cluster.marks.unaccounted(node, newest, 1);
    *stranger = match (unaccounted.first(), *stranger) {
        (None, _) => None,
        // The answer to a write of this merger comes within that time.
        (Some(uid), Some((known, since))) if known == *uid => {
            if since.elapsed() < STRANGE_AFTER {
                return;
            }
            if cluster.in_sync.holds(node) && cluster.replicas(shard).len() > 1 {
                tracing::warn!(%node, task = uid, "a task that this merger has not sent: the shard's replicas are compared");
                put_in_doubt(&ctx.replication, shard);
            }
            None
        }
        (Some(uid), _) => Some((*uid, Instant::now())),
    };
}

/// Notes that answers to searches may not hold any more if a node has a new task that this merger has not sent: somebody has written
/// to it past Weft. `shown` is the newest task that the node had before.
fn forget_answers_before(
    ctx: &Context,
    node: &NodeRef,
    newest: Option<u32>,
    shown: &mut Option<u32>,
) {
    let is_new = std::mem::replace(shown, newest) != newest;
    if is_new
        && !ctx
            .cluster
            .marks
            .unaccounted(&node.id, newest, 1)
            .is_empty()
    {
        ctx.upstream.changing().touch_node(node.address);
    }
}

/// Probes a node once and acts on the result.
async fn look(ctx: &Arc<Context>, shard: ShardId, node: &NodeRef) -> Probe {
    let health = &ctx.cluster.health;
    // The mark is read before the probe. Otherwise a write taken meanwhile could make the node look as if it had gone back.
    let mark = ctx.cluster.marks.mark(&node.id);
    let asked = Instant::now();
    let heard = probe(ctx, node).await;
    if let Probe::Answer(_) = heard {
        health.note_probe_time(&node.id, asked.elapsed());
    }
    let was_lost = health.status(&node.id) == NodeStatus::Lost;
    let tasks = match (&heard, mark) {
        (Probe::Answer(newest), Mark::At(mark)) => {
            judge(ctx, shard, node, *newest, mark, was_lost).await
        }
        _ => Tasks::Unknown,
    };
    let goes_on = tasks == Tasks::GoOn;
    if goes_on && was_lost {
        tracing::info!(node = %node.id, "a node that was lost has its disk again");
        health.begins_anew(&node.id);
    }
    health.note(&node.id, &heard, goes_on);
    if let (true, Mark::At(Some(uid)), None) = (goes_on, mark, ctx.cluster.marks.shown_by(&node.id))
    {
        // A node that had no task when it was first met has one by now.
        let task = dated(ctx, node, uid).await;
        if task.enqueued_at.is_some() {
            ctx.cluster.marks.show(&node.id, task).await;
        }
    }
    health.note_work(&node.id, ctx.tasks.has_outstanding(&node.id));
    match (&heard, mark) {
        (Probe::Answer(_), Mark::At(_)) => {
            let reason = match tasks {
                Tasks::WentBack { newest, mark } => went_back(newest, mark),
                Tasks::OtherDisk => OTHER_DISK.to_owned(),
                Tasks::GoOn | Tasks::InDoubt | Tasks::Unknown => return heard,
            };
            if !was_lost
                && ctx.cluster.in_sync.holds(&node.id)
                && is_last(remove_replica(ctx, &node.id, &reason).await)
            {
                health.mark_data_lost(&node.id);
            }
        }
        (Probe::Answer(_), Mark::Unknown { .. }) => establish(ctx, shard).await,
        (Probe::ProxyDown, _) => {}
        (Probe::ConnectionFailed | Probe::Invalid(_), _) => remove_if_down(ctx, shard, node).await,
    }
    heard
}

/// Compares the tasks of a node that answers with its mark.
async fn judge(
    ctx: &Arc<Context>,
    shard: ShardId,
    node: &NodeRef,
    newest: Option<u32>,
    mark: Option<u32>,
    was_lost: bool,
) -> Tasks {
    if newest < mark {
        return Tasks::WentBack { newest, mark };
    }
    if was_lost {
        return match proves_its_disk(ctx, node).await {
            true => Tasks::GoOn,
            false => Tasks::OtherDisk,
        };
    }
    if ctx.cluster.health.is_trusted(&node.id) {
        return Tasks::GoOn;
    }
    // The node may have been away, and may have come back with another disk that has as many tasks.
    match has_same_disk(ctx, node).await {
        Some(false) => Tasks::OtherDisk,
        _ if differs_perhaps(ctx, shard, &node.id, newest) => Tasks::InDoubt,
        _ => Tasks::GoOn,
    }
}

/// Whether a node that comes back has tasks that aren't accounted for and that other replicas of its shard may lack. Then the
/// replicas are compared before the node is trusted. Such a task is a write whose answer was lost with the merger or on the way.
fn differs_perhaps(ctx: &Arc<Context>, shard: ShardId, node: &NodeId, newest: Option<u32>) -> bool {
    let differs = !ctx.cluster.marks.unaccounted(node, newest, 1).is_empty()
        && ctx.cluster.in_sync.holds(node)
        && ctx.cluster.replicas(shard).len() > 1;
    if differs {
        put_in_doubt(&ctx.replication, shard);
    }
    differs
}

fn is_last(outcome: Result<Removal, StoreError>) -> bool {
    matches!(outcome, Ok(Removal::RefusedLast))
}

/// Whether a node answers, if slowly, and was seen to have its disk since it was last away.
fn has_its_disk(ctx: &Context, node: &NodeId) -> bool {
    let status = ctx.cluster.health.status(node);
    ctx.cluster.is_up(node) && matches!(status, NodeStatus::Up | NodeStatus::Slow)
}

/// Removes a node from the in-sync set if it is down and another replica in sync is up: the shard then goes on without it.
async fn remove_if_down(ctx: &Context, shard: ShardId, node: &NodeRef) {
    if ctx.cluster.is_up(&node.id) || !ctx.cluster.in_sync.holds(&node.id) {
        return;
    }
    let another = ctx
        .cluster
        .replicas(shard)
        .iter()
        // The other replica must have no lag: it must have all acknowledged writes that the lost node has.
        .any(|other| {
            other.id != node.id
                && has_its_disk(ctx, &other.id)
                && ctx.cluster.queues.caught_up(&other.id)
        });
    if another {
        let silence = ctx.cluster.health.silence(&node.id).as_secs();
        let reason = format!("it has not answered for {silence} s");
        if let Err(error) = remove_replica(ctx, &node.id, &reason).await {
            tracing::error!(node = %node.id, %error, "a node that is down could not be taken out");
        }
    }
}

/// Establishes the marks of a shard's replicas that answer.
async fn establish(ctx: &Arc<Context>, shard: ShardId) {
    let guard = ctx.locks.lock(&[shard]).await;
    let outcome = establish_locked(ctx, shard).await;
    drop(guard);
    match outcome {
        Ok(Established::Nothing) => tokio::time::sleep(REST).await,
        Ok(Established::Alone) => {}
        // Each replica may have the right disk and still differ from the others.
        Ok(Established::BesideOthers) => {
            supervise(ctx, &ctx.metrics.panics, "verify", move |ctx| async move {
                verify_shard(&ctx, shard).await;
            });
        }
        Err(error) => {
            tracing::error!(shard = shard.0, %error, "which disks a shard's nodes have can't be stored");
        }
    }
}
