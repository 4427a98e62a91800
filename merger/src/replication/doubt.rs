//! Settles [doubts](crate::cluster::InDoubt): replicas that may differ are compared before the next write.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use weft_routing::placement::ShardId;

use super::establish::establish_locked;
use super::reconcile::compare;
use super::seen::are_harmless;
use super::{Context, WriteGuard, remove_replica};
use crate::cluster::{ClusterError, Doubt, Mark, NodeId, NodeRef, until};
use crate::supervise::supervise;

/// The pause between attempts.
const AGAIN: Duration = Duration::from_millis(200);

/// Waits for the locks of shards until none of them has a write fence. For callers that must not see some shards before a change
/// and others after it.
pub(crate) async fn lock_when_whole(ctx: &Context, shards: &[ShardId]) -> WriteGuard {
    let in_doubt = &ctx.cluster.in_doubt;
    let is_whole = || {
        let mut shards = shards.iter();
        let is_fenced = shards.any(|shard| in_doubt.blocks_writes(*shard));
        (!is_fenced).then_some(())
    };
    loop {
        until([&in_doubt.changes], is_whole).await;
        let guard = ctx.locks.lock(shards).await;
        // There may be another fence by now.
        if is_whole().is_some() {
            return guard;
        }
    }
}

/// Notes that replicas may differ because a write was cut off. The caller has the shard's lock.
pub(crate) fn put_in_doubt(ctx: &Arc<Context>, shard: ShardId) {
    tracing::warn!(
        shard = shard.0,
        "nobody knows which replicas took a write that failed: they are compared"
    );
    note(ctx, shard, |doubt| doubt.cut_off = true);
}

/// Notes replicas that missed what others took. They must be removed from the in-sync set before anything else is written. The
/// caller has the shard's lock.
pub(crate) fn put_missed_in_doubt(
    ctx: &Arc<Context>,
    shard: ShardId,
    missed: Vec<(NodeId, String)>,
) {
    note(ctx, shard, |doubt| doubt.missed.extend(missed));
}

/// Notes that a node has tasks whose sender is unknown. The caller has the shard's lock.
pub(crate) fn put_numbers_in_doubt(
    ctx: &Arc<Context>,
    shard: ShardId,
    node: &NodeId,
    tasks: Vec<u32>,
) {
    let unknown = (node.clone(), tasks);
    note(ctx, shard, |doubt| doubt.unknown.push(unknown));
}

fn note(ctx: &Arc<Context>, shard: ShardId, what: impl FnOnce(&mut Doubt)) {
    if ctx.cluster.replicas(shard).len() < 2 {
        return;
    }
    let is_new = {
        let mut shards = ctx.cluster.in_doubt.lock();
        let is_new = !shards.contains_key(&shard);
        what(shards.entry(shard).or_default());
        is_new
    };
    if !is_new {
        return;
    }
    supervise(
        ctx,
        &ctx.metrics.panics,
        "settle-doubts",
        move |ctx| async move {
            while ctx.cluster.in_doubt.contains(shard) {
                tokio::time::sleep(AGAIN).await;
                let _guard = ctx.locks.lock(&[shard]).await;
                if let Err(error) = settle_doubt(&ctx, shard).await {
                    tracing::debug!(shard = shard.0, %error, "replicas can't be compared yet");
                }
            }
        },
    );
}

/// Compares the replicas of a shard that is in doubt. The caller has the shard's lock.
///
/// # Errors
/// No replica answered which writes it has taken, or one that differs could not be removed, or the shard has a write fence:
/// nothing may be written yet.
pub(crate) async fn settle_doubt(ctx: &Context, shard: ShardId) -> Result<(), ClusterError> {
    let is_unknown =
        |node: &NodeRef| matches!(ctx.cluster.marks.mark(&node.id), Mark::Unknown { .. });
    if ctx.cluster.replicas(shard).iter().any(is_unknown) {
        // If a node took a write before its mark is established, the merger would take its present disk for the right one.
        establish_locked(ctx, shard).await?;
    }
    if !ctx.cluster.in_doubt.contains(shard) {
        return Ok(());
    }
    if ctx.cluster.in_doubt.blocks_writes(shard) {
        return Err(ClusterError::Held(shard));
    }
    let doubt = ctx.cluster.in_doubt.lock().get(&shard).cloned();
    let Some(Doubt {
        cut_off,
        missed,
        unknown,
    }) = doubt
    else {
        return Ok(());
    };
    for (node, reason) in &missed {
        remove_replica(ctx, node, reason).await?;
    }
    if cut_off {
        let topology = ctx.cluster.topology();
        let compared = compare(ctx, topology.nodes(shard)).await?;
        if compared.heard == 0 {
            return Err(ClusterError::InDoubt(shard));
        }
        for node in &compared.silent {
            let reason = "it does not say whether it took a write that was cut off";
            remove_replica(ctx, node, reason).await?;
        }
        compared.account(ctx).await;
    }
    look_into(ctx, shard, unknown).await?;
    ctx.cluster.in_doubt.lock().remove(&shard);
    Ok(())
}

/// Removes replicas that may differ by tasks of unknown senders, if those tasks change anything. Only the primary, or the
/// replicas without such tasks, stay in sync.
async fn look_into(
    ctx: &Context,
    shard: ShardId,
    unknown: Vec<(NodeId, Vec<u32>)>,
) -> Result<(), ClusterError> {
    let replicas = ctx.cluster.replicas(shard);
    let mut foreign: BTreeSet<&NodeId> = BTreeSet::new();
    for (node, tasks) in &unknown {
        let Some(found) = replicas.iter().find(|replica| replica.id == *node) else {
            continue;
        };
        if !foreign.contains(node) && !are_harmless(ctx, found, tasks).await {
            foreign.insert(node);
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    let Some((primary, others)) = replicas.split_first() else {
        return Ok(());
    };
    let primary_has = foreign.contains(&primary.id);
    for other in others {
        if !primary_has && !foreign.contains(&other.id) {
            continue;
        }
        let has = if primary_has { &primary.id } else { &other.id };
        let reason = format!("{has} has tasks that were not sent through Weft");
        remove_replica(ctx, &other.id, &reason).await?;
    }
    Ok(())
}
