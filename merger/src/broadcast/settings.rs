//! Settings: the same on every shard of an index.

use std::sync::Arc;

use http::Method;

use super::BroadcastError;
use super::indexes::{is_uid, spread_as_task, unplaced};
use super::spread::Change;
use crate::answer::Answer;
use crate::app::App;
use crate::call::Call;
use crate::tasks::NewTask;

/// All settings routes that change something. On a node they create the index if it isn't there, so they place it here.
pub(super) async fn change(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    let kind = "settingsUpdate";
    let Some(uid) = call.index.clone().filter(|uid| is_uid(uid)) else {
        return unplaced(app, call, kind).await;
    };
    let resets = call.method == Method::DELETE;
    let known = app.cluster.placement(&uid);
    if resets && known.is_none() {
        return unplaced(app, call, kind).await;
    }
    let change = Change::of(app, call).await?;
    let placement = match &known {
        Some(placement) => Arc::clone(placement),
        None => app.cluster.create_placement(&uid, None, 1).await?,
    };
    app.cluster.placements.revive(&uid).await?;
    let task = NewTask {
        kind: kind.to_owned(),
        ..NewTask::default()
    };
    let answer = spread_as_task(app, &change, &placement, task).await;
    if known.is_none()
        && !answer
            .as_ref()
            .is_ok_and(|answer| answer.status.is_success())
    {
        app.cluster.placements.remove(&uid).await?;
    }
    answer
}
