//! Passes each HTTP request to the part of the merger that answers it.

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Body;
use serde_json::json;
use weft_routing::operation::{Classified, ClassifyError, Operation, classify};
use weft_routing::treatment::Treatment;

use super::authorise::{Door, authorise, judge_at_the_door};
use super::errors::ApiError;
use super::unpack::unpack;
use super::{internal, mergers, page, status_page};
use crate::answer::Answer;
use crate::base::Base;
use crate::call::{AnyBody, Asked, Call, ForwardedHeaders, Grant, empty, full, read_into};
use crate::edge::{Context, Reading};
use crate::spans::Span;
use crate::{broadcast, operator, search, tasks, webhooks, write};

/// Answers a request. Returns the operation's name for metrics, and the answer.
pub(crate) async fn dispatch(
    ctx: &Arc<Context>,
    parts: &Parts,
    body: AnyBody,
) -> (&'static str, Answer) {
    let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let classified = match classify(parts.method.as_str(), path_and_query) {
        Ok(classified) => classified,
        Err(ClassifyError::UnknownPath) => return page::show(ctx, parts).await,
        Err(ClassifyError::MethodNotAllowed) => {
            return ("unknown", Answer::empty(StatusCode::METHOD_NOT_ALLOWED));
        }
    };
    let call = call(parts, classified, body);
    let operation = call.operation.name();
    let answer = answer(ctx, call)
        .await
        .unwrap_or_else(ApiError::into_answer);
    (operation, answer)
}

/// A client's request as the merger's parts get it.
pub(super) fn call(parts: &Parts, classified: Classified<'_>, body: AnyBody) -> Call {
    let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut forwarded = ForwardedHeaders::from_client(&parts.headers);
    if let Some(span) = parts.extensions.get::<Span>() {
        if let Some(index) = &classified.index {
            span.set("weft.index", || index.as_ref().to_owned().into());
        }
        forwarded = forwarded.beneath(span);
    }
    if let Some(asked) = parts.extensions.get::<Asked>() {
        forwarded = forwarded.noted_in(asked);
    }
    Call {
        operation: classified.operation,
        method: parts.method.clone(),
        path_and_query: path_and_query.to_owned(),
        index: classified.index.map(Cow::into_owned),
        document: classified.document.map(Cow::into_owned),
        item: classified.item.map(Cow::into_owned),
        headers: parts.headers.clone(),
        grant: Grant::all(),
        rights: None,
        forwarded,
        peer: parts.extensions.get().copied(),
        body,
    }
}

/// Whether an operation is a read that `search` answers.
pub(super) fn is_read(operation: Operation) -> bool {
    use Operation as Op;
    matches!(
        operation,
        Op::SearchGet
            | Op::SearchPost
            | Op::MultiSearch
            | Op::FacetSearch
            | Op::SimilarGet
            | Op::SimilarPost
            | Op::ListDocuments
            | Op::FetchDocuments
            | Op::GetDocument
    )
}

/// Answers one of the operations that [read](is_read).
pub(super) async fn read(ctx: &Reading, mut call: Call) -> Result<Answer, ApiError> {
    call.grant = authorise(ctx, &call).await?;
    match judge_at_the_door(ctx, &call).await? {
        Door::Shut(refusal) => return Ok(refusal),
        Door::Open(rights) => call.rights = rights,
    }
    let reading = (!call.body.is_end_stream()).then(|| ctx.bounds.read());
    let reading = reading.transpose()?;
    read_body(ctx, &mut call).await?;
    drop(reading);
    let _slot = ctx.bounds.begin()?;
    unpack(ctx, &mut call).await?;
    Ok(search::handle(&ctx.search, call).await?)
}

/// The answer to `GET /health`: whether this process is well.
pub(super) fn health() -> Answer {
    Answer::json(StatusCode::OK, &json!({"status": "available"}))
}

async fn answer(ctx: &Arc<Context>, mut call: Call) -> Result<Answer, ApiError> {
    use Operation as Op;
    match call.operation {
        // Not limited: requests of Envoy and filters must not fail because clients send many.
        Op::Internal => return internal::handle(ctx, call).await,
        Op::Health => return Ok(health()),
        Op::Cluster if status_page::is_wanted(&call) => return Ok(status_page::show(&call)),
        operation if is_read(operation) => return read(&ctx.reading, call).await,
        _ => {}
    }
    call.grant = authorise(&ctx.reading, &call).await?;
    if let Door::Shut(refusal) = judge_at_the_door(&ctx.reading, &call).await? {
        return Ok(refusal);
    }
    if let Treatment::Refused(reason) = call.operation.treatment() {
        return Err(ApiError::refused(call.operation.name(), reason));
    }
    let reading = (!call.body.is_end_stream()).then(|| ctx.bounds.read());
    let reading = reading.transpose()?;
    if matches!(call.operation, Op::ReplaceDocuments | Op::UpdateDocuments) {
        // The body is split while it arrives; the write begins when the body is complete.
        return Ok(write::add(&ctx.broadcast.write, call, reading).await?);
    }
    read_body(ctx, &mut call).await?;
    drop(reading);
    let slot = ctx.bounds.begin()?;
    unpack(ctx, &mut call).await?;
    match call.operation {
        Op::Metrics => internal::metrics_for_client(ctx, &call).await,
        _ if call.method == Method::GET => on_all(ctx, call).await,
        _ => {
            let begun = Arc::clone(ctx);
            ctx.run_to_completion(async move {
                let _slot = slot;
                on_all(&begun, call).await
            })
            .await?
        }
    }
}

/// Reads the body before a slot for the work is taken, so that a client that sends slowly blocks no other request.
async fn read_body(ctx: &Base, call: &mut Call) -> Result<(), ApiError> {
    let idle = ctx.pace.idle;
    let body = std::mem::replace(&mut call.body, empty());
    let limit = ctx.max_body_bytes;
    call.body = full(read_into(body, limit, idle, &ctx.bounds.bodies).await?);
    Ok(())
}

/// Handles operations on the whole cluster, operations that are the same on all nodes, and small writes of documents: by ids,
/// filter or function.
async fn on_all(ctx: &Arc<Context>, call: Call) -> Result<Answer, ApiError> {
    use Operation as Op;
    match call.operation {
        Op::ListTasks
        | Op::GetTask
        | Op::CancelTasks
        | Op::DeleteTasks
        | Op::CompactTasks
        | Op::GetTaskDocuments
        | Op::ListBatches
        | Op::GetBatch => Ok(tasks::handle(&ctx.registry, call).await?),
        Op::Cluster if mergers::is_about_mergers(&call) => mergers::handle(&ctx.peers, &call).await,
        Op::Cluster if status_page::is_own(&call) => {
            Ok(status_page::traffic(ctx, &ctx.peers, &call))
        }
        Op::Cluster | Op::IndexShards => {
            let hooks = &ctx.webhooks.webhooks;
            Ok(operator::handle(&ctx.repair, hooks, call).await?)
        }
        Op::ListWebhooks
        | Op::GetWebhook
        | Op::CreateWebhook
        | Op::UpdateWebhook
        | Op::DeleteWebhook => Ok(webhooks::handle(&ctx.webhooks, call).await?),
        Op::ClearDocuments
        | Op::DeleteDocument
        | Op::DeleteDocumentsBatch
        | Op::DeleteDocumentsByFilter
        | Op::EditDocuments => Ok(write::handle(&ctx.broadcast.write, call).await?),
        _ => Ok(broadcast::handle(&ctx.broadcast, call).await?),
    }
}
