//! Deletes an index on all of its shards, or on none.

use std::sync::Arc;

use serde_json::{Value, json};

use super::BroadcastError;
use super::indexes::unplaced;
use super::intents::{Effect, Intent, carry_out};
use super::place::{cancel_moves, have_guests, until_settled};
use super::spread::NodeChange;
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;
use crate::cluster::Placement;

/// `DELETE /indexes/{uid}`. The placement is removed when the task has succeeded.
pub(super) async fn delete(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    let index_uid = call.index.clone();
    let uid = index_uid.clone().unwrap_or_default();
    let change = NodeChange::of(ctx, call).await?;
    until_settled(&uid, || async {
        match ctx.cluster.placement(&uid) {
            Some(placement) => delete_placed(ctx, &change, placement).await,
            None => unplaced(ctx, &change, index_uid.clone(), "indexDeletion").await,
        }
    })
    .await
}

/// Deletes an index on all of its shards.
///
/// The placement is marked as deleted before the deletion reaches the first node. Documents written before the mark are
/// deleted. A later write finds the mark, and creates the index anew on every shard.
async fn delete_placed(
    ctx: &Arc<Context>,
    change: &NodeChange,
    placement: Arc<Placement>,
) -> Result<Answer, BroadcastError> {
    // A new index of this name has nothing to do with its moves.
    cancel_moves(ctx, &[&placement.uid]).await?;
    let guard = ctx.locks.lock(placement.shards()).await;
    if have_guests(ctx, &[&placement.uid]) {
        return Err(BroadcastError::Unsettled(placement.uid.clone()));
    }
    let now = ctx.cluster.placement(&placement.uid);
    if now
        .as_ref()
        .is_some_and(|now| now.shards() != placement.shards())
    {
        return Err(BroadcastError::Unsettled(placement.uid.clone()));
    }
    let uid = placement.uid.clone();
    let before = now.and_then(|placement| placement.deleted_by);
    let shards = placement.shards().iter();
    let each = shards.map(|shard| (*shard, Value::Null)).collect();
    let index_uid = Some(uid.clone());
    let effect = Effect::Deletion { uid, before };
    let intent = Intent::new(effect, change, each, index_uid, json!({}));
    carry_out(ctx, guard, change, intent).await
}
