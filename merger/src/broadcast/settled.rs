//! Acts on ended tasks: updates the placements of deleted and renamed indexes, and takes back those of swaps that failed.

use crate::broadcast::Context;
use crate::store::StoreError;
use crate::tasks::{Status, TaskView};

/// Acts on a task that has settled, and removes its mark. After a crash it may run again: acting twice is the same as once.
///
/// # Errors
/// The store failed.
pub async fn on_settled(ctx: &Context, view: &TaskView) -> Result<(), StoreError> {
    let placements = &ctx.cluster.placements;
    let done = view.status == Status::Succeeded;
    match (view.kind.as_str(), view.index_uid.as_deref()) {
        ("indexDeletion", Some(uid)) if done || is_not_found(view) => {
            placements.remove_deleted(uid, view.uid).await?;
            ctx.settings.forget(uid).await?;
        }
        ("indexDeletion", Some(uid)) => placements.unmark_deleted(uid, view.uid).await?,
        // The first write to an index used a key that may not create it. The next write starts anew, on every shard.
        ("documentAdditionOrUpdate", Some(uid)) if is_not_found(view) => {
            placements.set_primary_key(uid, None).await?;
        }
        // The nodes have another primary key than the one on record.
        ("documentAdditionOrUpdate", Some(uid)) if names_another_key(ctx, uid, view) => {
            placements.set_primary_key(uid, None).await?;
        }
        // The exchange happened, but a primary key requested with it may have been refused.
        ("indexSwap" | "indexUpdate", uid) if view.has_exchanged() => {
            let exchanged = view.exchanged();
            if !exchanged.is_empty() {
                ctx.settings.swapped(&exchanged, view.uid).await?;
                placements.swapped(view.uid).await?;
            }
            if let (Some(uid), false) = (uid, done) {
                let now = exchanged.first().map_or(uid, |(_, new)| *new);
                forget_key(ctx, now, view).await?;
            }
        }
        // The nodes accepted the task and then failed it: the placements, which were exchanged at once, are exchanged back.
        ("indexSwap" | "indexUpdate", uid) => {
            placements.swap_back(&view.exchanged(), view.uid).await?;
            if let Some(uid) = uid {
                forget_key(ctx, uid, view).await?;
            }
        }
        ("documentAdditionOrUpdate", _) if view.status == Status::Failed => {}
        _ => return Ok(()),
    }
    ctx.tasks.done_with(view.uid).await
}

fn is_not_found(view: &TaskView) -> bool {
    failed_with(view, "index_not_found")
}

fn failed_with(view: &TaskView, code: &str) -> bool {
    let error = view.error.as_ref();
    error.is_some_and(|error| error["code"] == code)
}

/// Whether a write failed because the index has another primary key than the one on record.
fn names_another_key(ctx: &Context, uid: &str, view: &TaskView) -> bool {
    let placement = ctx.cluster.placement(uid);
    let known = placement.and_then(|placement| placement.primary_key.clone());
    let message = view
        .error
        .as_ref()
        .and_then(|error| error["message"].as_str());
    failed_with(view, "index_primary_key_already_exists")
        && known
            .is_some_and(|known| message.is_some_and(|said| !said.contains(&format!("`{known}`"))))
}

/// The nodes didn't take the requested primary key, which is on record: removes it, so that the nodes are asked for theirs.
async fn forget_key(ctx: &Context, uid: &str, view: &TaskView) -> Result<(), StoreError> {
    let details = view.details.as_ref();
    let asked = details.and_then(|details| details.get("primaryKey")?.as_str());
    let placement = ctx.cluster.placement(uid);
    let known = placement.and_then(|placement| placement.primary_key.clone());
    match known {
        Some(known) if asked == Some(known.as_str()) => {
            ctx.cluster.placements.set_primary_key(uid, None).await
        }
        _ => Ok(()),
    }
}
