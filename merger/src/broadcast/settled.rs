//! What follows from a task's end: placements of deleted, renamed and swapped indexes.

use serde_json::Value;

use crate::app::App;
use crate::store::StoreError;
use crate::tasks::{Status, TaskView};

/// Acts on a task that has settled. Acting twice is the same as once.
///
/// # Errors
/// The store failed.
pub async fn on_settled(app: &App, view: &TaskView) -> Result<(), StoreError> {
    let placements = &app.cluster.placements;
    let done = view.status == Status::Succeeded;
    match (view.kind.as_str(), view.index_uid.as_deref()) {
        ("indexDeletion", Some(uid)) if done || is_not_found(view) => {
            placements.remove_deleted(uid, view.uid).await
        }
        ("indexDeletion", Some(uid)) if view.status.is_settled() => {
            placements.unmark_deleted(uid, view.uid).await
        }
        // The first write to an index came from a key that may not create it: the next write begins anew, on every shard.
        ("documentAdditionOrUpdate", Some(uid)) if is_not_found(view) => {
            placements.set_primary_key(uid, None).await
        }
        ("indexUpdate", Some(uid)) if done => index_updated(app, uid, view).await,
        ("indexSwap", _) if done => indexes_swapped(app, view).await,
        _ => Ok(()),
    }
}

fn is_not_found(view: &TaskView) -> bool {
    view.error
        .as_ref()
        .is_some_and(|error| error["code"] == "index_not_found")
}

async fn index_updated(app: &App, uid: &str, view: &TaskView) -> Result<(), StoreError> {
    let Some(details) = &view.details else {
        return Ok(());
    };
    let renamed = details
        .get("newIndexUid")
        .and_then(Value::as_str)
        .filter(|new| *new != uid);
    if let Some(new) = renamed {
        app.cluster.placements.swap(uid, new).await?;
    }
    match details.get("primaryKey").and_then(Value::as_str) {
        Some(key) => {
            app.cluster
                .placements
                .set_primary_key(renamed.unwrap_or(uid), Some(key))
                .await
        }
        None => Ok(()),
    }
}

async fn indexes_swapped(app: &App, view: &TaskView) -> Result<(), StoreError> {
    let swaps = view
        .details
        .as_ref()
        .and_then(|details| details.get("swaps")?.as_array());
    for swap in swaps.into_iter().flatten() {
        let uids: Vec<&str> = swap["indexes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if let [one, two] = uids.as_slice() {
            app.cluster.placements.swap(one, two).await?;
        }
    }
    Ok(())
}
