//! Removes what moves that were cut off have left: documents on a shard that doesn't own their slots.

use std::sync::Arc;

use weft_routing::placement::ShardId;

use super::ids::IdsBySlot;
use super::send::{Write, send};
use super::{MoveError, join, primary_key, remote, source};
use crate::repair::Context;

/// How many documents are deleted with one task.
const AT_ONCE: usize = 5_000;

/// Sweeps all shards of an index that are unsettled, and notes that they are settled.
pub(super) async fn settle(ctx: &Arc<Context>, index: &str) -> Result<(), MoveError> {
    let unsettled = match ctx.cluster.placement(index) {
        Some(placement) => placement.unsettled.clone(),
        None => return Ok(()),
    };
    for shard in unsettled {
        sweep(ctx, index, shard).await?;
        let placements = &ctx.cluster.placements;
        placements.set_unsettled(index, &[shard], false).await?;
    }
    Ok(())
}

/// Deletes the documents of an index on a shard that doesn't own their slots, or the index if the shard owns no slot of it.
pub(super) async fn sweep(
    ctx: &Arc<Context>,
    index: &str,
    shard: ShardId,
) -> Result<(), MoveError> {
    let placement = ctx.cluster.placement(index).ok_or(MoveError::Gone)?;
    if placement.deleted_by.is_some() {
        return Err(MoveError::Changed);
    }
    if !placement.shards().contains(&shard) {
        return join::leave(ctx, index, shard).await;
    }
    if !join::exists(ctx, index, shard).await? {
        return Ok(());
    }
    let node = source(ctx, shard)?;
    let Some(primary_key) = primary_key(ctx, &placement, &node).await? else {
        return Ok(());
    };
    let slots = Arc::clone(&placement.slots);
    let is_strange = |slot| slots.shard_of_slot(slot) != shard;
    let strangers =
        IdsBySlot::read(&remote(ctx, &node), index, &primary_key, &slots, is_strange).await?;
    if strangers.len() > 0 {
        tracing::info!(
            index,
            shard = shard.0,
            documents = strangers.len(),
            "documents that a move has left are removed"
        );
    }
    for ids in strangers.all().chunks(AT_ONCE) {
        let guard = ctx.locks.lock(&[shard]).await;
        let now = ctx.cluster.placement(index);
        // Slots move under the lock only.
        if now.is_none_or(|now| now.slots != slots || now.deleted_by.is_some()) {
            return Err(MoveError::Changed);
        }
        let tasks = send(ctx, &guard, shard, Write::deletion(index, ids)).await?;
        drop(guard);
        tasks.done(ctx).await?;
    }
    Ok(())
}
