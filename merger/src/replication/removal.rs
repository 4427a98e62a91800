//! Takes replicas out of the in-sync set.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use super::Context;
use crate::cluster::{NodeId, READS_FOLLOW, Removal};
use crate::store::{Patience, StoreError};

/// Takes a replica out, and lets its shard's tasks go on without it.
///
/// # Errors
/// The store failed: nothing that the replica missed may be acknowledged.
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
        // Somebody else took it out a moment ago, and still waits.
        Removal::AlreadyOut => reads_leave(ctx, node).await,
        Removal::RefusedLast => {}
    }
    Ok(outcome)
}

/// The same, however long the store takes: nobody would find again that the replica lacks something. `None` only if it never can.
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

/// Waits until Envoy has heard that the node serves no reads any more: before that, nothing that it missed is acknowledged.
pub(crate) async fn reads_leave(ctx: &Context, node: &NodeId) {
    let until = Instant::now() + READS_FOLLOW;
    while ctx.cluster.health.is_ready(node) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
