//! Deletes tasks, in the registry and on the nodes that worked on them.
//!
//! As on a node, a deletion deletes tasks that have ended, and it waits for the batch under way: for the tasks that nodes work
//! on or will begin next. Tasks behind these stay.

use std::sync::Arc;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::TaskError;
use super::change::paths;
use super::handle::filter;
use super::record::{NewTask, ReadBack};
use super::registry::DELETION;
use crate::answer::Answer;
use crate::call::{Call, ForwardedHeaders};
use crate::cluster::{NodeId, until};
use crate::tasks::Context;

use crate::supervise::survive;
use crate::upstream::{NodeRequest, Target};

/// How many tasks a deletion deletes on the nodes too; nodes clean up the rest themselves.
const MAX_DELETED_ON_NODES: usize = 10_000;
/// How many deletions may wait at once; any further deletion deletes the tasks that have ended, and waits for nothing.
const MAX_WAITING: usize = 100;

/// A deletion whose request was answered.
struct Deletion {
    matched: Vec<u32>,
    forwarded: ForwardedHeaders,
}

pub(super) async fn delete(ctx: &Arc<Context>, call: &Call) -> Result<Answer, TaskError> {
    let filter = filter(ctx, call)?;
    if !filter.narrows {
        return Err(TaskError::MissingFilters { verb: "delete" });
    }
    let matched = ctx.tasks.matching(&filter);
    let mut awaited = ctx.tasks.under_way(&matched);
    if ctx.tasks.open_deletions().len() >= MAX_WAITING {
        awaited.clear();
    }
    let deletion = Deletion {
        forwarded: call.forwarded.with_key(ctx.master_key.as_deref()),
        matched,
    };
    let deleted = match awaited.is_empty() {
        true => Value::from(deletion.carry_out(ctx).await?),
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
    let enqueued = ctx.tasks.create(new).await?;
    if !awaited.is_empty() {
        let (ctx, uid) = (Arc::clone(ctx), enqueued.task_uid);
        tokio::spawn(async move { deletion.after(&ctx, uid, &awaited).await });
    }
    Ok(Answer::json(StatusCode::OK, &enqueued))
}

/// Fails the deletions that were waiting when the last merger stopped: which tasks their keys might delete isn't stored.
pub async fn give_up_deletions(ctx: &Context) {
    for uid in ctx.tasks.open_deletions() {
        fail(ctx, uid, "the merger ended before the tasks had").await;
    }
}

async fn fail(ctx: &Context, uid: u32, why: &str) {
    let error = json!({
        "message": format!("No task was deleted: {why}. Send the request again."),
        "code": "internal",
        "type": "internal",
        "link": "https://docs.meilisearch.com/errors#internal",
    });
    ctx.tasks.read_back(uid, ReadBack::Failed(error)).await;
}

impl Deletion {
    /// Waits until the tasks `awaited` have ended, then deletes.
    async fn after(&self, ctx: &Context, uid: u32, awaited: &[u32]) {
        let have_ended = || {
            let mut awaited = awaited.iter();
            let ended = awaited.all(|uid| !ctx.tasks.is_open(*uid));
            ended.then_some(())
        };
        until([&ctx.tasks.changes], have_ended).await;
        match survive(&ctx.metrics.panics, "delete-tasks", self.carry_out(ctx)).await {
            Some(Ok(deleted)) => ctx.tasks.deletion_done(uid, deleted).await,
            Some(Err(error)) => fail(ctx, uid, &error.to_string()).await,
            None => fail(ctx, uid, "a mistake in Weft").await,
        }
    }

    /// Deletes the tasks that have ended from the registry, and from the lists of the nodes that worked on them.
    ///
    /// A node that can't be reached, or that has too many of these tasks, keeps them until its own list is full: no client sees
    /// them.
    async fn carry_out(&self, ctx: &Context) -> Result<u64, TaskError> {
        let tasks = &ctx.tasks;
        let local = tasks
            .settled_local_uids(&self.matched, MAX_DELETED_ON_NODES)
            .await?;
        let deleted = tasks.delete(&self.matched).await?;
        let on_nodes = local
            .iter()
            .map(|(node, uids)| delete_on(ctx, &self.forwarded, node, uids));
        join_all(on_nodes).await;
        Ok(deleted)
    }
}

async fn delete_on(ctx: &Context, forwarded: &ForwardedHeaders, node: &NodeId, uids: &[u32]) {
    let Some(address) = ctx.cluster.address(node) else {
        return;
    };
    for path in paths("/tasks?uids=", uids) {
        let timeout = ctx.search_timeout;
        let request = NodeRequest::new(
            Target::Node(address),
            Method::DELETE,
            path,
            forwarded,
            timeout,
        );
        match ctx.upstream.send(request).await {
            Ok(answer) if answer.status.is_success() => {
                if let Some(local_uid) = answer.task_uid() {
                    ctx.cluster.marks.made(node, local_uid).await;
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
