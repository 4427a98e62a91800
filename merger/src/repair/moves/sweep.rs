//! Removes what moves that were cut off have left: documents on a shard that doesn't own their slots.

use std::sync::Arc;

use weft_routing::document_id::DocumentId;
use weft_routing::placement::ShardId;

use super::ids::{IdsBySlot, Reading};
use super::send::{Write, send};
use super::tail::settled;
use super::{MoveError, Noting, join, primary_key, remote, source};
use crate::cluster::{Placement, Slotting};
use crate::repair::Context;

/// How many documents are deleted with one task.
const AT_ONCE: usize = 5_000;
/// How often it is looked again for documents that were written meanwhile.
const ROUNDS: usize = 20;

/// Sweeps all shards of an index that are unsettled, and notes that they are settled.
pub(super) async fn settle(ctx: &Arc<Context>, index: &str) -> Result<(), MoveError> {
    let renamed = ctx.cluster.moves.logs.watch(index);
    let unsettled = match ctx.cluster.placement(index) {
        Some(placement) => placement.unsettled.clone(),
        None => return Ok(()),
    };
    for shard in unsettled {
        sweep(ctx, index, shard).await?;
        settled(ctx, (index, &renamed), &[shard]).await?;
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
    let slotting = Slotting::new(placement.slots.strategy(), &primary_key);
    let reading = Reading {
        remote: remote(ctx, &node),
        index,
        slotting,
    };
    let is_strange = |slot| placement.slots.shard_of_slot(slot) != shard;
    let mut strangers = IdsBySlot::default();
    strangers.read(&reading, is_strange, |_| Ok(())).await?;
    if strangers.len() > 0 {
        tracing::info!(
            index,
            shard = shard.0,
            documents = strangers.len(),
            "documents that a move has left are removed"
        );
    }
    remove(ctx, &placement, slotting, shard, strangers.all()).await
}

/// Deletes those of these documents on a shard whose slots it doesn't own. Where an id doesn't tell the slot, a client may give a
/// document back to the shard at any moment: so it is looked at while writes are noted, and left alone if it was written since.
pub(super) async fn remove(
    ctx: &Arc<Context>,
    placement: &Placement,
    slotting: Slotting<'_>,
    shard: ShardId,
    mut ids: Vec<String>,
) -> Result<(), MoveError> {
    let (index, slots) = (placement.uid.as_str(), &placement.slots);
    let logs = &ctx.cluster.moves.logs;
    // The leader that handed slots over may be gone, and a merger that hears late still reads them on this shard.
    ctx.cluster.mergers_follow().await;
    for _ in 0..ROUNDS {
        if ids.is_empty() {
            return Ok(());
        }
        let begin = || logs.begin(&[shard], index, slots.strategy(), &[]);
        ctx.locks.between_writes(shard, begin).await;
        let _noting = Noting { ctx, index };
        let mut again = Vec::new();
        for some in ids.chunks(AT_ONCE) {
            let strange: Vec<String> = match slotting.is_by_id() {
                true => some
                    .iter()
                    .filter(|id| is_strange_by_id(placement, shard, id))
                    .cloned()
                    .collect(),
                false => {
                    let node = source(ctx, shard)?;
                    let node = remote(ctx, &node);
                    node.applied().await?;
                    let found = node.fields_of(index, &slotting.fields(), some).await?;
                    let told = found.iter().filter_map(|document| slotting.of(document));
                    let is_strange =
                        |slot: weft_routing::slot::Slot| slots.shard_of_slot(slot) != shard;
                    told.filter(|told| told.slot.is_some_and(is_strange))
                        .map(|told| told.id)
                        .collect()
                }
            };
            let guard = ctx.locks.lock(&[shard]).await;
            let now = ctx.cluster.placement(index);
            // Slots move under the lock only.
            if now.is_none_or(|now| now.slots != *slots || now.deleted_by.is_some())
                || logs.is_broken(index)
            {
                return Err(MoveError::Changed);
            }
            let touched = logs.touched(index, &strange);
            let (left, free): (Vec<String>, Vec<String>) =
                strange.into_iter().partition(|id| touched.contains(id));
            again.extend(left);
            if free.is_empty() {
                continue;
            }
            let tasks = send(ctx, &guard, shard, Write::deletion(index, &free)).await?;
            drop(guard);
            tasks.done(ctx).await?;
        }
        ids = again;
    }
    match ids.len() {
        0 => Ok(()),
        left => Err(MoveError::StillDiffers(left)),
    }
}

/// Whether an id's slot belongs to another shard.
fn is_strange_by_id(placement: &Placement, shard: ShardId, id: &str) -> bool {
    let document = DocumentId::from_text(id).ok();
    let owner = document.and_then(|document| placement.slots.shard_of(&document));
    owner.is_some_and(|owner| owner != shard)
}
