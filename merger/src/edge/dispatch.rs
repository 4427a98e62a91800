//! From an HTTP request to the part of the merger that answers it.

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Body;
use serde_json::json;
use weft_routing::operation::{ClassifyError, Operation, classify};
use weft_routing::treatment::Treatment;

use super::authorise::{authorise, refused_at_the_door};
use super::errors::ApiError;
use super::unpack::unpack;
use super::{internal, page};
use crate::answer::Answer;
use crate::app::App;
use crate::call::{Along, AnyBody, Call, Grant, empty, full, read_into};
use crate::{broadcast, cluster, search, tasks, webhooks, write};

/// Answers a request; beside the answer the operation's name, for metrics.
pub(crate) async fn dispatch(
    app: &Arc<App>,
    parts: &Parts,
    body: AnyBody,
) -> (&'static str, Answer) {
    let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let classified = match classify(parts.method.as_str(), path_and_query) {
        Ok(classified) => classified,
        Err(ClassifyError::UnknownPath) => return page::show(app, parts).await,
        Err(ClassifyError::MethodNotAllowed) => {
            return ("unknown", Answer::empty(StatusCode::METHOD_NOT_ALLOWED));
        }
    };
    let call = Call {
        operation: classified.operation,
        method: parts.method.clone(),
        path_and_query: path_and_query.to_owned(),
        index: classified.index.map(Cow::into_owned),
        document: classified.document.map(Cow::into_owned),
        item: classified.item.map(Cow::into_owned),
        headers: parts.headers.clone(),
        grant: Grant::all(),
        along: Along::from_client(&parts.headers),
        peer: parts.extensions.get().copied(),
        body,
    };
    let operation = call.operation.name();
    let answer = answer(app, call)
        .await
        .unwrap_or_else(ApiError::into_answer);
    (operation, answer)
}

async fn answer(app: &Arc<App>, mut call: Call) -> Result<Answer, ApiError> {
    use Operation as Op;
    match call.operation {
        // Never bounded: what Envoy and filters ask for must not fail because clients ask for much.
        Op::Internal => return internal::handle(app, call).await,
        Op::Health => {
            return Ok(Answer::json(
                StatusCode::OK,
                &json!({"status": "available"}),
            ));
        }
        _ => {}
    }
    call.grant = authorise(app, &call).await?;
    if let Some(refusal) = refused_at_the_door(app, &call).await? {
        return Ok(refusal);
    }
    if let Treatment::Refused(reason) = call.operation.treatment() {
        return Err(ApiError::refused(call.operation.name(), reason));
    }
    let reading = (!call.body.is_end_stream()).then(|| app.bounds.read());
    let reading = reading.transpose()?;
    if matches!(call.operation, Op::ReplaceDocuments | Op::UpdateDocuments) {
        // Split as it comes; its work begins when all of it has.
        return Ok(write::add(app, call, reading).await?);
    }
    read_body(app, &mut call).await?;
    drop(reading);
    let slot = app.bounds.begin()?;
    unpack(app, &mut call).await?;
    match call.operation {
        Op::SearchGet
        | Op::SearchPost
        | Op::MultiSearch
        | Op::FacetSearch
        | Op::SimilarGet
        | Op::SimilarPost
        | Op::ListDocuments
        | Op::FetchDocuments
        | Op::GetDocument => Ok(search::handle(app, call).await?),
        Op::Metrics => internal::metrics_for_client(app, &call).await,
        _ if call.method == Method::GET => on_all(app, call).await,
        _ => {
            let begun = Arc::clone(app);
            app.see_through(async move {
                let _slot = slot;
                on_all(&begun, call).await
            })
            .await?
        }
    }
}

/// Reads the body before any work begins: a client that sends it slowly keeps nobody else from working.
async fn read_body(app: &App, call: &mut Call) -> Result<(), ApiError> {
    let idle = app.options.pace().idle;
    let body = std::mem::replace(&mut call.body, empty());
    let limit = app.options.max_body_bytes;
    call.body = full(read_into(body, limit, idle, &app.bounds.bodies).await?);
    Ok(())
}

/// Operations on the cluster as a whole, on all nodes alike, and on documents whose ids or filter are small.
async fn on_all(app: &Arc<App>, call: Call) -> Result<Answer, ApiError> {
    use Operation as Op;
    match call.operation {
        Op::ListTasks
        | Op::GetTask
        | Op::CancelTasks
        | Op::DeleteTasks
        | Op::CompactTasks
        | Op::GetTaskDocuments
        | Op::ListBatches
        | Op::GetBatch => Ok(tasks::handle(app, call).await?),
        Op::Cluster | Op::IndexShards => Ok(cluster::handle(app, call).await?),
        Op::ListWebhooks
        | Op::GetWebhook
        | Op::CreateWebhook
        | Op::UpdateWebhook
        | Op::DeleteWebhook => Ok(webhooks::handle(app, call).await?),
        Op::ClearDocuments
        | Op::DeleteDocument
        | Op::DeleteDocumentsBatch
        | Op::DeleteDocumentsByFilter
        | Op::EditDocuments => Ok(write::handle(app, call).await?),
        _ => Ok(broadcast::handle(app, call).await?),
    }
}
