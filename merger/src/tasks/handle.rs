//! Answers the operations on tasks and batches; the operations that only read are implemented here.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use weft_routing::operation::Operation;

use super::change::cancel;
use super::deletion::delete;
use super::documents::documents;
use super::filter::{Filter, Unreadable};
use super::size;
use super::{TaskError, TaskView};
use crate::answer::Answer;
use crate::call::Call;
use crate::cluster::ClusterError;
use crate::tasks::Context;
use crate::upstream::{NodeRequest, Target};

/// Answers an operation on tasks or batches.
///
/// # Errors
/// [`TaskError`].
pub async fn handle(ctx: &Arc<Context>, call: Call) -> Result<Answer, TaskError> {
    match answer(ctx, &call).await {
        Err(error @ (TaskError::InvalidFilter { .. } | TaskError::InvalidUid { .. })) => {
            refusal(ctx, &call).await.ok_or(error)
        }
        answer => answer,
    }
}

async fn answer(ctx: &Arc<Context>, call: &Call) -> Result<Answer, TaskError> {
    match call.operation {
        Operation::GetTask => {
            let view = ctx.tasks.get(uid(call)?).await?;
            let shown = visible(call, &view);
            shown
                .then(|| Answer::json(StatusCode::OK, &view))
                .ok_or(TaskError::NotFound { uid: view.uid })
        }
        Operation::GetBatch => {
            let uid = uid(call)?;
            let found = ctx
                .tasks
                .get(uid)
                .await
                .map_err(|_| TaskError::BatchNotFound { uid })?;
            let shown = visible(call, &found) && found.batch_uid.is_some();
            shown
                .then(|| Answer::json(StatusCode::OK, &batch(&found)))
                .ok_or(TaskError::BatchNotFound { uid })
        }
        Operation::ListTasks => {
            list(ctx, call, |view| {
                serde_json::to_value(view).unwrap_or_default()
            })
            .await
        }
        Operation::ListBatches => list(ctx, call, batch).await,
        Operation::GetTaskDocuments => documents(ctx, call).await,
        Operation::CompactTasks => compact(ctx, call).await,
        Operation::CancelTasks => cancel(ctx, call).await,
        _ => delete(ctx, call).await,
    }
}

/// A node's refusal of parameters that can't be parsed, in its own words. The node is only ever asked with GET.
async fn refusal(ctx: &Context, call: &Call) -> Option<Answer> {
    let shard = ctx.cluster.shards().into_iter().next()?;
    let path = match call.operation {
        Operation::GetTask | Operation::GetBatch => call.path_and_query.clone(),
        Operation::ListBatches => format!("/batches?{}", call.query()),
        _ => format!("/tasks?{}", call.query()),
    };
    let forwarded = call.forwarded.with_key(ctx.master_key.as_deref());
    let request = NodeRequest::new(
        Target::Shard(shard),
        Method::GET,
        path,
        &forwarded,
        ctx.search_timeout,
    );
    let answer = ctx.upstream.send(request).await.ok()?;
    answer.status.is_client_error().then(|| answer.pass_on())
}

pub(super) fn uid(call: &Call) -> Result<u32, TaskError> {
    let text = call.item.clone().unwrap_or_default();
    text.parse().map_err(|_| TaskError::InvalidUid { text })
}

/// A key for some indexes sees only their tasks.
pub(super) fn visible(call: &Call, view: &TaskView) -> bool {
    call.grant.sees_all()
        || view
            .index_uid
            .as_deref()
            .is_some_and(|uid| call.grant.allows(uid))
}

pub(super) fn filter(ctx: &Context, call: &Call) -> Result<Filter, TaskError> {
    let invalid = |Unreadable { parameter, value }| TaskError::InvalidFilter { parameter, value };
    let filter = Filter::parse(call.query_pairs()).map_err(invalid)?;
    if call.grant.sees_all() {
        return Ok(filter);
    }
    Ok(filter.within(
        |uid| call.grant.allows(uid),
        ctx.tasks.index_uids().into_iter(),
    ))
}

async fn list(
    ctx: &Context,
    call: &Call,
    show: impl Fn(&TaskView) -> Value,
) -> Result<Answer, TaskError> {
    let filter = filter(ctx, call)?;
    let (views, total, next) = ctx.tasks.list(&filter).await?;
    let from = views.first().map(|view| view.uid);
    let results: Vec<Value> = views.iter().map(show).collect();
    let body = json!({"results": results, "total": total, "limit": filter.limit, "from": from, "next": next});
    Ok(Answer::json(StatusCode::OK, &body))
}

/// Weft counts each task as a batch of its own.
fn batch(view: &TaskView) -> Value {
    let mut index_uids = Map::new();
    if let Some(uid) = &view.index_uid {
        index_uids.insert(uid.clone(), Value::from(1));
    }
    json!({
        "uid": view.uid,
        "progress": null,
        "details": view.details.clone().unwrap_or_default(),
        "stats": {
            "totalNbTasks": 1,
            "status": {view.status.as_str(): 1},
            "types": {&view.kind: 1},
            "indexUids": index_uids,
            // Which steps took how long differs from node to node.
            "progressTrace": {},
        },
        "duration": view.duration,
        "startedAt": view.started_at.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok()),
        "finishedAt": view.finished_at.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok()),
        "batchStrategy": format!("one cluster task with id {} of type `{}` a batch", view.uid, view.kind),
    })
}

/// `POST /tasks/compact`: compacts the merger's own task list, with writes to it blocked meanwhile. The nodes' lists are not
/// compacted: compacting one stops its node until it is restarted.
async fn compact(ctx: &Context, call: &Call) -> Result<Answer, TaskError> {
    let shard = ctx.cluster.shards().into_iter().next();
    let shard = shard.ok_or(TaskError::Cluster(ClusterError::NoShards))?;
    let request = NodeRequest::new(
        Target::Shard(shard),
        Method::GET,
        "/experimental-features",
        &call.forwarded.with_key(ctx.master_key.as_deref()),
        ctx.search_timeout,
    );
    let answer = ctx.upstream.send(request).await?;
    let features: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if features.get("taskQueueCompactionRoute") != Some(&Value::Bool(true)) {
        return Err(TaskError::CompactionNotEnabled);
    }
    let mut summary = Map::new();
    summary.insert("status".to_owned(), "succeeded".into());
    if let Some((before, after)) = ctx.tasks.compact().await? {
        summary.insert("preSize".to_owned(), size::print(before as f64).into());
        summary.insert("postSize".to_owned(), size::print(after as f64).into());
    }
    Ok(Answer::json(StatusCode::OK, &summary))
}
