//! Swaps of indexes.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;

use super::BroadcastError;
use super::spread::{Change, Reach, Spread, spread};
use crate::answer::Answer;
use crate::app::App;
use crate::call::Call;
use crate::tasks::NewTask;

#[derive(Deserialize)]
struct SwapPair {
    indexes: Vec<String>,
}

/// `POST /swap-indexes`: each node swaps; the placements follow when the task has succeeded.
pub(super) async fn swap(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    let change = Change::of(app, call).await?;
    let pairs: Vec<SwapPair> = serde_json::from_slice(&change.body).unwrap_or_default();
    for pair in &pairs {
        if let [one, two] = pair.indexes.as_slice()
            && let (Some(first), Some(second)) =
                (app.cluster.placement(one), app.cluster.placement(two))
            && first.slots != second.slots
        {
            return Err(BroadcastError::DifferentPlacements {
                one: one.clone(),
                two: two.clone(),
            });
        }
    }
    let placed = pairs
        .iter()
        .flat_map(|pair| &pair.indexes)
        .find_map(|uid| app.cluster.placement(uid));
    let shards = placed.map_or_else(
        || app.cluster.shards(),
        |placement| placement.shards().to_vec(),
    );
    match spread(app, &change, &shards, Reach::Replicas).await? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { parts, .. } => {
            let task = NewTask {
                kind: "indexSwap".to_owned(),
                parts,
                ..NewTask::default()
            };
            Ok(Answer::json(
                StatusCode::ACCEPTED,
                &app.tasks.create(task).await?,
            ))
        }
    }
}
