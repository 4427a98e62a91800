//! After the nodes have made a change of settings, checks that every one of them has it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::repair::{PATIENCE, Said, drifted, mend, read};
use super::undo::undo;
use crate::broadcast::Context;
use crate::cluster::{NodeRef, until};
use crate::desired::{Values, decide};
use crate::replication::lock_when_whole;
use crate::store::StoreError;
use crate::supervise::survive;
use crate::tasks::{ReadBack, TaskView};

/// The pause before nodes that didn't answer are asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// After this many panics, the check is given up, and the task tells the client so.
const MOST_PANICS: usize = 3;
/// The error of a task whose nodes could not be asked for their settings.
const UNSEEN: &str = "It isn't known whether the settings are the same on every node";

/// Checks changes of settings that the nodes have made, and ends their tasks.
pub fn look_into(ctx: &Arc<Context>, uids: Vec<u32>) {
    for uid in uids {
        let ctx = Arc::clone(ctx);
        tokio::spawn(async move {
            let mut found = None;
            for _ in 0..MOST_PANICS {
                let looking = look_until_seen(&ctx, uid);
                found = survive(&ctx.metrics.panics, "read-settings-back", looking).await;
                if found.is_some() {
                    break;
                }
                tokio::time::sleep(AGAIN).await;
            }
            let found = found.unwrap_or_else(|| failed(UNSEEN));
            ctx.tasks.read_back(uid, found).await;
        });
    }
}

/// Checks until every in-sync node has answered: a node that doesn't is removed from the in-sync set sooner or later.
async fn look_until_seen(ctx: &Context, task: u32) -> ReadBack {
    let mut complained = false;
    loop {
        match look(ctx, task).await {
            Ok(Looked::Seen(found)) => return found,
            Ok(Looked::Silent(nodes)) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(
                        task,
                        nodes,
                        "a change of settings can't be read back from all nodes yet"
                    );
                }
            }
            Err(error) => {
                tracing::error!(task, %error, "a change of settings can't be looked into");
                return ReadBack::Done(Vec::new());
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The result of a check.
pub(super) enum Looked {
    /// All nodes have answered.
    Seen(ReadBack),
    /// These nodes didn't answer.
    Silent(String),
}

impl Looked {
    pub(super) fn silent(nodes: &[NodeRef]) -> Self {
        let names: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
        Self::Silent(names.join(", "))
    }
}

async fn look(ctx: &Context, task: u32) -> Result<Looked, StoreError> {
    let nothing = Ok(Looked::Seen(ReadBack::Done(Vec::new())));
    let Ok(view) = ctx.tasks.get(task).await else {
        return nothing;
    };
    let uid = view.index_uid.as_deref().unwrap_or_default();
    // Changes are checked one after the other, in the order in which the nodes made them.
    let is_next = || (!ctx.tasks.other_settings_changes(uid, task).0).then_some(());
    until([&ctx.tasks.changes], is_next).await;
    let Some(placement) = ctx.cluster.placement(uid) else {
        return nothing;
    };
    if let Some((touches, failed)) = ctx.tasks.failed_somewhere(task) {
        return undo(ctx, &placement, task, &touches, &failed).await;
    }
    let guard = lock_when_whole(ctx, placement.shards()).await;
    // While the locks are held, no settings change. A change that is open by now was sent later, and is checked when it is
    // done.
    if ctx.tasks.changes_settings(uid, Some(task)) {
        return nothing;
    }
    let Said {
        settings: said,
        silent,
    } = read(ctx, &placement).await;
    if !silent.is_empty() {
        return Ok(Looked::silent(&silent));
    }
    let before = ctx.settings.get(uid).await?;
    let values: Vec<&Values> = said.iter().map(|(_, values)| values).collect();
    let truth = decide(&values, before.as_ref(), &touched(&view));
    let drifts = drifted(&truth, &said);
    if !truth.is_empty() {
        ctx.settings.put(uid, &truth).await?;
    }
    if drifts.is_empty() {
        return nothing;
    }
    Ok(Looked::Seen(
        match mend(ctx, uid, drifts, guard, PATIENCE).await {
            Ok(mended) => ReadBack::Done(mended),
            Err(error) => failed(&format!(
                "The settings are not the same on every node: {error}"
            )),
        },
    ))
}

fn failed(why: &str) -> ReadBack {
    ReadBack::Failed(json!({
        "message": format!("{why}. Setting them again is safe."),
        "code": "internal",
        "type": "internal",
        "link": "https://docs.meilisearch.com/errors#internal",
    }))
}

/// The settings that the change touched, from the task's details.
fn touched(view: &TaskView) -> BTreeSet<String> {
    let details = view.details.iter().flatten();
    details.map(|(name, _)| name.clone()).collect()
}
