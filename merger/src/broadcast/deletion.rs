//! Deletion of indexes: on all of their shards, or on none.

use std::sync::Arc;

use serde_json::{Value, json};

use super::BroadcastError;
use super::indexes::unplaced;
use super::intents::{Effect, Intent, carry_out};
use super::place::until_settled;
use super::spread::Change;
use crate::answer::Answer;
use crate::app::App;
use crate::call::Call;
use crate::cluster::Placement;

/// `DELETE /indexes/{uid}`. The placement goes when the task has succeeded.
pub(super) async fn delete(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    let index_uid = call.index.clone();
    let uid = index_uid.clone().unwrap_or_default();
    let change = Change::of(app, call).await?;
    until_settled(&uid, || async {
        match app.cluster.placement(&uid) {
            Some(placement) => delete_placed(app, &change, placement).await,
            None => unplaced(app, &change, index_uid.clone(), "indexDeletion").await,
        }
    })
    .await
}

/// Deletes an index on all of its shards.
///
/// The mark comes before the deletion reaches the first node: whatever is written by then is deleted, and whatever is written later
/// finds the mark, and begins the index anew on every shard.
async fn delete_placed(
    app: &Arc<App>,
    change: &Change,
    placement: Arc<Placement>,
) -> Result<Answer, BroadcastError> {
    let turn = app.locks.lock(placement.shards()).await;
    let now = app.cluster.placement(&placement.uid);
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
    carry_out(app, turn, change, intent).await
}
