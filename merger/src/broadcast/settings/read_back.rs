//! After the nodes have done a change of settings: is it on every one of them?

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::repair::{drifted, mend, read};
use super::truth::{Values, decide};
use crate::app::App;
use crate::cluster::turn_when_whole;
use crate::store::StoreError;
use crate::tasks::{ReadBack, TaskView};

/// Looks into changes of settings that the nodes have done, and lets their tasks end.
pub fn look_into(app: &Arc<App>, uids: Vec<u32>) {
    for uid in uids {
        let app = Arc::clone(app);
        tokio::spawn(async move {
            let found = look(&app, uid).await.unwrap_or_else(|error| {
                tracing::error!(uid, %error, "a change of settings can't be looked into");
                ReadBack::Done(Vec::new())
            });
            app.tasks.read_back(uid, found).await;
        });
    }
}

async fn look(app: &App, task: u32) -> Result<ReadBack, StoreError> {
    let nothing = Ok(ReadBack::Done(Vec::new()));
    let Ok(view) = app.tasks.get(task).await else {
        return nothing;
    };
    let uid = view.index_uid.as_deref().unwrap_or_default();
    let Some(placement) = app.cluster.placement(uid) else {
        return nothing;
    };
    let turn = turn_when_whole(app, placement.shards()).await;
    // In the turn nobody changes settings; what is open by now was sent later, and is looked into when it is done.
    if app.tasks.changes_settings(uid, Some(task)) {
        return nothing;
    }
    let said = read(app, &placement).await;
    let before = app.settings.get(uid).await?;
    let values: Vec<&Values> = said.iter().map(|(_, values)| values).collect();
    let truth = decide(&values, before.as_ref(), &touched(&view));
    let drifts = drifted(&truth, &said);
    if !truth.is_empty() {
        app.settings.put(uid, &truth).await?;
    }
    if drifts.is_empty() {
        return nothing;
    }
    Ok(match mend(app, uid, drifts, turn).await {
        Ok(mended) => ReadBack::Done(mended),
        Err(error) => ReadBack::Failed(json!({
            "message": format!("The settings are not the same on every node: {error}. Setting them again is safe."),
            "code": "internal",
            "type": "internal",
            "link": "https://docs.meilisearch.com/errors#internal",
        })),
    })
}

/// The settings that the change was about: its details name them.
fn touched(view: &TaskView) -> BTreeSet<String> {
    let details = view.details.iter().flatten();
    details.map(|(name, _)| name.clone()).collect()
}
