//! Staggered writes: some replicas apply a large write while the others answer searches, and then they change roles.
//!
//! ```text
//! a large write ──► writers take and apply it,      ──► roles change: the old readers  ──► no large write is left:
//!                   readers are held back and read      take what was kept for them       all take what they lack
//! ```
//!
//! A replica is held back while its queue ([`ReplicaQueues`](crate::cluster::ReplicaQueues)) doesn't go on. The merger keeps what is acknowledged meanwhile, and
//! the tasks' records name it as pending. Searches prefer readers, because Envoy is told that writers are degraded. A reader
//! shows what was applied before, like a replica that has the write in its own task queue.
//!
//! Invariants: at least one replica takes every write before it is acknowledged. A replica is held back only while the writers
//! are up, all replicas are in sync, and what is kept stays within bounds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::OwnedMutexGuard;
use weft_routing::placement::ShardId;

use super::Context;
use crate::cluster::{Groups, NodeId, NodeRef, NodeStatus, QueuePlace, until};
use crate::supervise::{AGAIN, survive};

/// The pause before the first look at the writers' progress: the write that is staggered is only about to be sent then.
const FIRST_LOOK: Duration = Duration::from_millis(25);
/// How long writes wait, before roles are changed, for small writes to be applied that were sent just before.
const SMALL_APPLIED: Duration = Duration::from_millis(100);
/// How long until every Envoy knows which replicas to prefer: its readiness interval and a little more.
const READERS_KNOWN: Duration = Duration::from_millis(300);
/// The most that is kept for a replica that is held back. Beyond that, the staggered write ends and the replica takes it.
const MAX_KEPT_WRITES: u64 = 10_000;
const MAX_KEPT_BYTES: u64 = 1 << 30;
/// The shard's writers wait only while the readers take their last writes, up to this many.
const FEW: u64 = 4;

/// Called before a large write is sent. Holds back half of the shard's replicas, if all of them are in sync, up and have no lag.
/// The caller has the shard's lock.
pub(crate) fn stagger(ctx: &Arc<Context>, shard: ShardId, bytes: u64) {
    if ctx.options.staggered_from.is_none_or(|from| bytes < from) {
        return;
    }
    let stagger = &ctx.cluster.stagger;
    if stagger
        .change(shard, |groups| groups.large_kept = true)
        .is_some()
    {
        return;
    }
    let replicas = ctx.cluster.replicas(shard);
    let well = |node: &NodeRef| {
        ctx.cluster.health.status(&node.id) == NodeStatus::Up
            && ctx.cluster.queues.caught_up(&node.id)
    };
    let complete = replicas.len() == ctx.cluster.topology().nodes(shard).len();
    if replicas.len() < 2 || !complete || !replicas.iter().all(well) {
        return;
    }
    // The primary is among the readers, so it goes on answering reads that ask for it.
    let (readers, writers) = replicas.split_at(replicas.len().div_ceil(2));
    let names = |nodes: &[NodeRef]| nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
    let places = hold_back(ctx, &names(readers));
    tracing::info!(
        shard = shard.0,
        ?readers,
        ?writers,
        "a large write is staggered"
    );
    let groups = Groups {
        writers: names(writers),
        readers: names(readers),
        large_kept: true,
        ends: false,
    };
    stagger.lock().insert(shard, groups);
    ctx.metrics.staggered.inc();
    tokio::spawn(run_staggered(Arc::clone(ctx), shard, places));
}

fn hold_back(ctx: &Context, nodes: &[NodeId]) -> Vec<QueuePlace> {
    nodes
        .iter()
        .map(|node| ctx.cluster.queues.enqueue(node))
        .collect()
}

async fn run_staggered(ctx: Arc<Context>, shard: ShardId, places: Vec<QueuePlace>) {
    let held = survive(
        &ctx.metrics.panics,
        "stagger",
        take_turns(&ctx, shard, places),
    )
    .await;
    ctx.cluster.stagger.end(shard);
    drop(held);
    // Until the replicas are together again, all writes to the shard come late to the readers, so this must not be given up.
    let together = || survive(&ctx.metrics.panics, "stagger", rejoin(&ctx, shard));
    while together().await.is_none() {
        tokio::time::sleep(AGAIN).await;
    }
    tracing::info!(
        shard = shard.0,
        "a shard's replicas have all the same again"
    );
}

/// Changes roles while a large write is kept for the readers. Returns the queue places of the replicas that are held back at the
/// end.
async fn take_turns(
    ctx: &Context,
    shard: ShardId,
    places: Vec<QueuePlace>,
) -> Vec<OwnedMutexGuard<()>> {
    let mut held = join_all(places).await;
    loop {
        tokio::time::sleep(FIRST_LOOK).await;
        if turn_ends(ctx, shard).await == Turn::CutShort {
            break;
        }
        match swap_roles(ctx, shard).await {
            Swap::Swapped(places) => {
                tokio::time::sleep(READERS_KNOWN).await;
                drop(held);
                held = join_all(places).await;
            }
            Swap::NotYet => {}
            Swap::Over => break,
        }
    }
    held
}

/// How the turn of a shard's writers ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// They have taken and applied everything.
    Done,
    /// The staggered write has to end before they have.
    CutShort,
}

/// Waits until the turn of the writers ends.
async fn turn_ends(ctx: &Context, shard: ShardId) -> Turn {
    let cluster = &ctx.cluster;
    let states = [
        &cluster.health.changes,
        &cluster.stagger.changes,
        &cluster.in_sync.changes,
        &cluster.queues.changes,
        &ctx.tasks.changes,
    ];
    until(states, || look(ctx, shard)).await
}

/// How the turn of the writers has ended; `None` if they are still at it.
fn look(ctx: &Context, shard: ShardId) -> Option<Turn> {
    let groups = ctx.cluster.stagger.change(shard, |groups| {
        let all = [groups.writers.clone(), groups.readers.clone()];
        (all, groups.ends)
    });
    let Some(([writers, readers], false)) = groups else {
        return Some(Turn::CutShort);
    };
    let fails = |node: &NodeId| {
        !ctx.cluster.in_sync.holds(node)
            || matches!(
                ctx.cluster.health.status(node),
                NodeStatus::Silent | NodeStatus::Lost
            )
    };
    let too_much = |node: &NodeId| {
        let kept = ctx.cluster.queues.lag(node);
        kept.writes > MAX_KEPT_WRITES || kept.bytes > MAX_KEPT_BYTES
    };
    if writers.iter().chain(&readers).any(fails) || readers.iter().any(too_much) {
        return Some(Turn::CutShort);
    }
    let done =
        |node: &NodeId| ctx.cluster.queues.caught_up(node) && !ctx.tasks.has_outstanding(node);
    writers.iter().all(done).then_some(Turn::Done)
}

/// The outcome of an attempt to change roles.
enum Swap {
    /// The roles have changed; these are the queue places of the new readers.
    Swapped(Vec<QueuePlace>),
    /// The writers have got something to do meanwhile.
    NotYet,
    /// No large write was kept, or the staggered write ends.
    Over,
}

/// Changes roles: the writers become readers and are held back, and the readers get what was kept for them.
async fn swap_roles(ctx: &Context, shard: ShardId) -> Swap {
    // Under the shard's lock no write is being sent: each write goes either to the old groups or to the new ones.
    let _guard = ctx.locks.lock(&[shard]).await;
    // A write that was only about to be sent at the last look has reached the writers by now. Small ones are applied soon.
    match tokio::time::timeout(SMALL_APPLIED, turn_ends(ctx, shard)).await {
        Ok(Turn::Done) => {}
        Ok(Turn::CutShort) => return Swap::Over,
        Err(_) => return Swap::NotYet,
    }
    let swapped = ctx.cluster.stagger.change(shard, |groups| {
        if !groups.large_kept || groups.ends {
            return None;
        }
        std::mem::swap(&mut groups.writers, &mut groups.readers);
        groups.large_kept = false;
        Some(hold_back(ctx, &groups.readers))
    });
    swapped.flatten().map_or(Swap::Over, Swap::Swapped)
}

/// Waits until the readers have taken what was kept for them, and ends the groups: writes wait for all replicas again.
async fn rejoin(ctx: &Context, shard: ShardId) {
    let readers = ctx.cluster.stagger.deferred(shard);
    let queues = &ctx.cluster.queues;
    let no_more_than = |few: u64| {
        let mut kept = readers.iter().map(|node| queues.lag(node).writes);
        kept.all(|writes| writes <= few).then_some(())
    };
    until([&queues.changes], || no_more_than(FEW)).await;
    // While new writes keep coming, a few always remain. So the last ones are taken under the shard's lock.
    let _guard = ctx.locks.lock(&[shard]).await;
    until([&queues.changes], || no_more_than(0)).await;
    ctx.cluster.stagger.lock().remove(&shard);
}
