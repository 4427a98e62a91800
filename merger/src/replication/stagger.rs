//! Staggered writes: what keeps a replica busy for long is applied by some replicas while the others answer searches, and
//! then the other way round.
//!
//! ```text
//! a large write ──► writers take and apply it,      ──► parts change: those who waited  ──► nothing large is left:
//!                   readers are held back and read      take what was kept for them        all take what they lack
//! ```
//!
//! Held back means that the line of a replica ([`ReplicaQueues`]) doesn't go on: what is acknowledged meanwhile is kept
//! by the merger, and named as pending by the tasks' records. Searches prefer readers, because writers are told to Envoy as
//! degraded; a reader shows what was applied before, as a replica does that has a write in its queue.
//!
//! Invariants: at least one replica takes every write before it is acknowledged. Nobody is held back longer than the writers
//! live, all replicas are in sync, and what is kept stays within bounds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::OwnedMutexGuard;
use weft_routing::placement::ShardId;

use super::Context;
use crate::cluster::{Groups, NodeId, NodeRef, NodeStatus, QueuePlace};
use crate::supervise::{AGAIN, survive};

/// How often it is looked how far the writers have come.
const LOOK: Duration = Duration::from_millis(25);
/// Until every Envoy knows whom to prefer: its readiness interval and a little.
const READERS_KNOWN: Duration = Duration::from_millis(300);
/// What is kept for a replica that is held back: beyond that, it takes it.
const MAX_KEPT_WRITES: u64 = 10_000;
const MAX_KEPT_BYTES: u64 = 1 << 30;
/// So few writes are taken while the shard's writers wait.
const FEW: u64 = 4;

/// A large write is about to be sent: holds half of the shard's replicas back, where all of them are in sync and well. The
/// caller has the shard's turn.
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
    // The primary goes on answering who asks for it.
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
    tokio::spawn(see_through(Arc::clone(ctx), shard, places));
}

fn hold_back(ctx: &Context, nodes: &[NodeId]) -> Vec<QueuePlace> {
    nodes
        .iter()
        .map(|node| ctx.cluster.queues.enqueue(node))
        .collect()
}

async fn see_through(ctx: Arc<Context>, shard: ShardId, places: Vec<QueuePlace>) {
    let held = survive(
        &ctx.metrics.panics,
        "stagger",
        take_turns(&ctx, shard, places),
    )
    .await;
    ctx.cluster.stagger.end(shard);
    drop(held);
    // Until then, all writes to the shard would be late for the readers.
    let together = || survive(&ctx.metrics.panics, "stagger", rejoin(&ctx, shard));
    while together().await.is_none() {
        tokio::time::sleep(AGAIN).await;
    }
    tracing::info!(
        shard = shard.0,
        "a shard's replicas have all the same again"
    );
}

/// Parts change while there is something large; gives the places of those who are held back last.
async fn take_turns(
    ctx: &Context,
    shard: ShardId,
    places: Vec<QueuePlace>,
) -> Vec<OwnedMutexGuard<()>> {
    let mut held = join_all(places).await;
    while writers_are_done(ctx, shard).await
        && let Some(places) = swap_roles(ctx, shard).await
    {
        tokio::time::sleep(READERS_KNOWN).await;
        drop(held);
        held = join_all(places).await;
    }
    held
}

/// Waits until the writers have applied what is large. False if it has to end before.
async fn writers_are_done(ctx: &Context, shard: ShardId) -> bool {
    loop {
        tokio::time::sleep(LOOK).await;
        let groups = ctx.cluster.stagger.change(shard, |groups| {
            let all = [groups.writers.clone(), groups.readers.clone()];
            (all, groups.ends)
        });
        let Some(([writers, readers], false)) = groups else {
            return false;
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
            return false;
        }
        let done =
            |node: &NodeId| ctx.cluster.queues.caught_up(node) && !ctx.tasks.has_outstanding(node);
        if writers.iter().all(done) {
            return true;
        }
    }
}

/// Those who wrote read from now on, and are held back; the others get what was kept for them. `None` where nothing large was.
async fn swap_roles(ctx: &Context, shard: ShardId) -> Option<Vec<QueuePlace>> {
    // In the shard's turn nobody is sending: a write goes to the parts of before or to those of after.
    let _turn = ctx.locks.lock(&[shard]).await;
    ctx.cluster.stagger.change(shard, |groups| {
        if !groups.large_kept || groups.ends {
            return None;
        }
        std::mem::swap(&mut groups.writers, &mut groups.readers);
        groups.large_kept = false;
        Some(hold_back(ctx, &groups.readers))
    })?
}

/// Waits until the readers have taken what was kept for them, and lets writes wait for them again.
async fn rejoin(ctx: &Context, shard: ShardId) {
    let readers = ctx.cluster.stagger.deferred(shard);
    let most_kept = || {
        let kept = readers
            .iter()
            .map(|node| ctx.cluster.queues.lag(node).writes);
        kept.max().unwrap_or_default()
    };
    while most_kept() > FEW {
        tokio::time::sleep(LOOK).await;
    }
    // Those few last ones don't end while there are always new.
    let _turn = ctx.locks.lock(&[shard]).await;
    while most_kept() > 0 {
        tokio::time::sleep(LOOK).await;
    }
    ctx.cluster.stagger.lock().remove(&shard);
}
