//! What follows from a task's end: placements of deleted and renamed indexes, and of those whose swap came to nothing.

use crate::app::App;
use crate::store::StoreError;
use crate::tasks::{Status, TaskView};

/// Acts on a task that has settled, and takes away its mark. What a crash cut off is done again: acting twice is the same as once.
///
/// # Errors
/// The store failed.
pub async fn on_settled(app: &App, view: &TaskView) -> Result<(), StoreError> {
    let placements = &app.cluster.placements;
    let done = view.status == Status::Succeeded;
    match (view.kind.as_str(), view.index_uid.as_deref()) {
        ("indexDeletion", Some(uid)) if done || is_not_found(view) => {
            placements.remove_deleted(uid, view.uid).await?;
            app.settings.forget(uid).await?;
        }
        ("indexDeletion", Some(uid)) => placements.unmark_deleted(uid, view.uid).await?,
        // The first write to an index came from a key that may not create it: the next write begins anew, on every shard.
        ("documentAdditionOrUpdate", Some(uid)) if is_not_found(view) => {
            placements.set_primary_key(uid, None).await?;
        }
        ("indexUpdate", Some(uid)) if done => index_updated(app, uid, view).await?,
        ("indexSwap", _) if done => {
            app.settings.swapped(&pairs(view), view.uid).await?;
            placements.swapped(view.uid).await?;
        }
        // The swap was refused after it had been accepted: the placements, which followed at once, go back.
        ("indexSwap", _) => placements.swap_back(&pairs(view), view.uid).await?,
        ("indexUpdate", Some(uid)) => {
            let new = view.details.as_ref();
            let new = new.and_then(|details| details.get("newIndexUid")?.as_str());
            placements
                .swap_back(&[(uid, new.unwrap_or(uid))], view.uid)
                .await?;
        }
        ("documentAdditionOrUpdate", _) if view.status == Status::Failed => {}
        _ => return Ok(()),
    }
    app.tasks.done_with(view.uid).await
}

fn is_not_found(view: &TaskView) -> bool {
    view.error
        .as_ref()
        .is_some_and(|error| error["code"] == "index_not_found")
}

async fn index_updated(app: &App, uid: &str, view: &TaskView) -> Result<(), StoreError> {
    let details = view.details.as_ref();
    let text = |name: &str| details?.get(name)?.as_str();
    let renamed = text("newIndexUid").filter(|new| *new != uid);
    if let Some(new) = renamed {
        app.settings.swapped(&[(uid, new)], view.uid).await?;
        app.cluster.placements.swapped(view.uid).await?;
    }
    if let Some(key) = text("primaryKey") {
        let uid = renamed.unwrap_or(uid);
        app.cluster
            .placements
            .set_primary_key(uid, Some(key))
            .await?;
    }
    Ok(())
}

fn pairs(view: &TaskView) -> Vec<(&str, &str)> {
    let swaps = view
        .details
        .as_ref()
        .and_then(|details| details.get("swaps")?.as_array());
    swaps
        .into_iter()
        .flatten()
        .filter_map(|swap| {
            let indexes = swap.get("indexes")?;
            Some((indexes.get(0)?.as_str()?, indexes.get(1)?.as_str()?))
        })
        .collect()
}
