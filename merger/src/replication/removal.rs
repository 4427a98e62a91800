//! Removes replicas from the in-sync set.

use std::ops::ControlFlow;

use tokio::time::Instant;

use super::Context;
use crate::cluster::{NodeId, READS_LEAVE, Removal, until};
use crate::store::{Patience, StoreError};

/// Removes a replica from the in-sync set, and lets its shard's tasks go on without it.
///
/// # Errors
/// The store failed. No write that the replica missed may be acknowledged then.
pub async fn remove_replica(
    ctx: &Context,
    node: &NodeId,
    reason: &str,
) -> Result<Removal, StoreError> {
    let outcome = ctx.cluster.in_sync.remove_replica(node, reason).await?;
    match outcome {
        Removal::Removed => {
            ctx.metrics.taken_out.inc();
            reads_leave(ctx, node).await;
            ctx.tasks.abandon(node).await;
        }
        // Another caller may have removed it a moment ago and still be waiting.
        Removal::AlreadyOut => reads_leave(ctx, node).await,
        Removal::RefusedLast => {}
    }
    Ok(outcome)
}

/// Like [`remove_replica`], but retries while the store fails, because nothing would show later that the replica lacks something.
/// `None` if the store can never do it.
pub(crate) async fn remove_replica_surely(
    ctx: &Context,
    node: &NodeId,
    reason: &str,
) -> Option<Removal> {
    let mut patience = Patience::with("that a replica is out of sync");
    loop {
        let outcome = remove_replica(ctx, node, reason).await;
        if let ControlFlow::Break(taken_out) = patience.after(outcome).await {
            return taken_out;
        }
    }
}

/// Waits until every Envoy knows that the node serves no reads, or must have heard it by now: this merger's and those of the mergers
/// that follow. Before that, no write that the node missed is acknowledged.
pub(crate) async fn reads_leave(ctx: &Context, node: &NodeId) {
    let health = &ctx.cluster.health;
    let followed = Instant::now() + READS_LEAVE;
    // An Envoy that asks no more counts no more from a certain moment on. Nothing tells of that.
    while let Some(forgotten) = health.ready_until(node)
        && Instant::now() < followed
    {
        let gone = || health.ready_until(node).is_none().then_some(());
        let gone = until([&health.changes], gone);
        let _ = tokio::time::timeout_at(forgotten.min(followed), gone).await;
    }
    let epoch = ctx.cluster.in_sync.epoch();
    tokio::select! {
        () = ctx.cluster.mergers.until_all_keep_to(epoch) => {}
        // Nothing is acknowledged any more.
        () = ctx.upstream.lease_over() => {}
    }
}
