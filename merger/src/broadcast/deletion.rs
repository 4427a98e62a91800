//! Deletion of indexes: on all of their shards, or on none.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::BroadcastError;
use super::indexes::unplaced;
use super::spread::{Change, Reach, Spread, spread_in_turn};
use crate::answer::Answer;
use crate::app::App;
use crate::call::Call;
use crate::cluster::Placement;
use crate::tasks::NewTask;

/// `DELETE /indexes/{uid}`. The placement goes when the task has succeeded.
pub(super) async fn delete(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    let index_uid = call.index.clone();
    let uid = index_uid.clone().unwrap_or_default();
    let change = Change::of(app, call).await?;
    for _ in 0..ATTEMPTS {
        let outcome = match app.cluster.placement(&uid) {
            Some(placement) => delete_placed(app, &change, placement).await,
            None => unplaced(app, &change, index_uid.clone(), "indexDeletion").await,
        };
        match outcome {
            // It was placed, or placed elsewhere, before the turn came.
            Err(BroadcastError::Unsettled(_)) => {}
            outcome => return outcome,
        }
    }
    Err(BroadcastError::Unsettled(uid))
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
    let turn = app.sequencer.turn(placement.shards()).await;
    let now = app.cluster.placement(&placement.uid);
    if now.is_some_and(|now| now.shards() != placement.shards()) {
        return Err(BroadcastError::Unsettled(placement.uid.clone()));
    }
    let placements = &app.cluster.placements;
    let task = app.tasks.reserve();
    let uid = placement.uid.as_str();
    let marked_before = app
        .cluster
        .placement(uid)
        .and_then(|placement| placement.deleted_by);
    placements.mark_deleted(uid, task).await?;
    let shards = placement.shards().iter();
    let each: Vec<_> = shards.map(|shard| (*shard, change)).collect();
    let spread = spread_in_turn(app, &turn, &each, Reach::Replicas).await;
    match spread {
        Ok(Spread::Taken { parts, .. }) => {
            let new = NewTask {
                kind: "indexDeletion".to_owned(),
                parts,
                index_uid: Some(placement.uid.clone()),
                ..NewTask::default()
            };
            let enqueued = app.tasks.create_as(task, new).await?;
            Ok(Answer::json(StatusCode::ACCEPTED, &enqueued))
        }
        Ok(Spread::Refused(answer)) => {
            take_mark_back(app, uid, task, marked_before).await?;
            Ok(answer)
        }
        Err(error) => {
            take_mark_back(app, uid, task, marked_before).await?;
            Err(error)
        }
    }
}

/// Nothing was deleted: the index is as it was, be it that another deletion is under way.
async fn take_mark_back(
    app: &App,
    uid: &str,
    task: u32,
    before: Option<u32>,
) -> Result<(), BroadcastError> {
    app.cluster.placements.unmark_deleted(uid, task).await?;
    if let Some(other) = before {
        app.cluster.placements.mark_deleted(uid, other).await?;
    }
    Ok(())
}

/// How often the turn is taken anew because the index was placed meanwhile.
const ATTEMPTS: usize = 5;
/// How often a deletion that a crash cut off is tried to be finished.
const FINISH_EVERY: Duration = Duration::from_secs(1);

/// Deletes once more what a crash left half deleted: indexes with a mark of a task that was never registered. Ends when all are.
pub async fn finish_deletions(app: Arc<App>) {
    let mut cut_off = Vec::new();
    for placement in app.cluster.placements.all() {
        if let Some(task) = placement.deleted_by
            && !is_deletion(&app, task, &placement.uid).await
        {
            cut_off.push((placement.uid.clone(), task));
        }
    }
    while let Some((uid, task)) = cut_off.last() {
        let placement = app.cluster.placement(uid);
        let still = placement.filter(|placement| placement.deleted_by == Some(*task));
        let outcome = match still {
            // Somebody has written to it since, or deleted it.
            None => Ok(()),
            Some(placement) => {
                let path = format!("/indexes/{uid}");
                let change = Change::own(&app, Method::DELETE, path, &Value::Null);
                delete_placed(&app, &change, placement).await.map(drop)
            }
        };
        match outcome {
            Ok(()) => {
                tracing::warn!(index = uid, "a deletion that a crash cut off is finished");
                cut_off.pop();
            }
            Err(error) => {
                tracing::debug!(index = uid, %error, "a deletion that a crash cut off can't be finished yet");
                tokio::time::sleep(FINISH_EVERY).await;
            }
        }
    }
}

async fn is_deletion(app: &App, task: u32, uid: &str) -> bool {
    app.tasks
        .get(task)
        .await
        .is_ok_and(|view| view.kind == "indexDeletion" && view.index_uid.as_deref() == Some(uid))
}
