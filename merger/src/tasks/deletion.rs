//! Deleting tasks, here and on the nodes that worked on them.
//!
//! A node deletes what has ended, and a deletion waits for the batch that is under way. So it does here: tasks that nodes work on, or
//! begin with next, are waited for; tasks behind them stay.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::TaskError;
use super::change::paths;
use super::handle::filter;
use super::record::{NewTask, ReadBack};
use super::registry::DELETION;
use crate::answer::Answer;
use crate::app::App;
use crate::call::{Along, Call};
use crate::cluster::NodeId;
use crate::replication::task_uid;
use crate::supervise::survive;
use crate::upstream::{NodeRequest, Target};

/// How many tasks a deletion deletes on the nodes too; beyond that, nodes clean their lists themselves.
const MAX_DELETED_ON_NODES: usize = 10_000;
/// How often a deletion looks whether what it waits for has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How many deletions may wait at once; what comes beyond deletes what has ended, and waits for nothing.
const MAX_WAITING: usize = 100;

/// A deletion that was answered.
struct Deletion {
    matched: Vec<u32>,
    along: Along,
}

pub(super) async fn delete(app: &Arc<App>, call: &Call) -> Result<Answer, TaskError> {
    let filter = filter(app, call)?;
    if !filter.narrows {
        return Err(TaskError::MissingFilters { verb: "delete" });
    }
    let matched = app.tasks.matching(&filter);
    let mut awaited = app.tasks.under_way(&matched);
    if app.tasks.open_deletions().len() >= MAX_WAITING {
        awaited.clear();
    }
    let deletion = Deletion {
        along: call.along.with_key(app.options.master_key.as_deref()),
        matched,
    };
    let deleted = match awaited.is_empty() {
        true => Value::from(deletion.carry_out(app).await?),
        false => Value::Null,
    };
    let details = json!({
        "matchedTasks": deletion.matched.len(),
        "deletedTasks": deleted,
        "originalFilter": format!("?{}", call.query()),
    });
    let new = NewTask {
        kind: DELETION.to_owned(),
        details: details.as_object().cloned().unwrap_or_default(),
        read_back: match awaited.is_empty() {
            true => ReadBack::NotNeeded,
            false => ReadBack::Due,
        },
        ..NewTask::default()
    };
    let enqueued = app.tasks.create(new).await?;
    if !awaited.is_empty() {
        let (app, uid) = (Arc::clone(app), enqueued.task_uid);
        tokio::spawn(async move { deletion.after(&app, uid, &awaited).await });
    }
    Ok(Answer::json(StatusCode::OK, &enqueued))
}

/// Ends the deletions that waited when the last merger ended: which tasks their keys might delete is not kept.
pub async fn give_up_deletions(app: &App) {
    for uid in app.tasks.open_deletions() {
        fail(app, uid, "the merger ended before the tasks had").await;
    }
}

async fn fail(app: &App, uid: u32, why: &str) {
    let error = json!({
        "message": format!("No task was deleted: {why}. Send the request again."),
        "code": "internal",
        "type": "internal",
        "link": "https://docs.meilisearch.com/errors#internal",
    });
    app.tasks.read_back(uid, ReadBack::Failed(error)).await;
}

impl Deletion {
    /// Waits until these tasks have ended, and then deletes.
    async fn after(&self, app: &App, uid: u32, awaited: &[u32]) {
        while awaited
            .iter()
            .any(|uid| app.tasks.open_record(*uid).is_some())
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        match survive(app, "delete-tasks", self.carry_out(app)).await {
            Some(Ok(deleted)) => app.tasks.deletion_done(uid, deleted).await,
            Some(Err(error)) => fail(app, uid, &error.to_string()).await,
            None => fail(app, uid, "a mistake in Weft").await,
        }
    }

    /// Deletes what has ended from the registry, and from the lists of the nodes that worked on it.
    ///
    /// A node that can't be reached, or has too many of them, keeps its own until its own list is full: nobody sees them.
    async fn carry_out(&self, app: &App) -> Result<u64, TaskError> {
        let tasks = &app.tasks;
        let local = tasks
            .settled_local_uids(&self.matched, MAX_DELETED_ON_NODES)
            .await?;
        let deleted = tasks.delete(&self.matched).await?;
        let on_nodes = local
            .iter()
            .map(|(node, uids)| delete_on(app, &self.along, node, uids));
        join_all(on_nodes).await;
        Ok(deleted)
    }
}

async fn delete_on(app: &App, along: &Along, node: &NodeId, uids: &[u32]) {
    let Some(address) = app.cluster.address(node) else {
        return;
    };
    for path in paths("/tasks?uids=", uids) {
        let timeout = app.options.search_timeout();
        let request = NodeRequest::new(Target::Node(address), Method::DELETE, path, along, timeout);
        match app.upstream.send(request).await {
            Ok(answer) if answer.status.is_success() => {
                if let Some(local_uid) = task_uid(&answer) {
                    app.cluster.marks.made(node, local_uid).await;
                }
            }
            Ok(answer) => {
                return tracing::warn!(%node, status = %answer.status, "a node keeps tasks that were deleted");
            }
            Err(error) => {
                return tracing::warn!(%node, %error, "a node keeps tasks that were deleted");
            }
        }
    }
}
