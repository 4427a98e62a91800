//! `/tasks` and `/batches`.

mod batches;
mod parameters;

use std::sync::Arc;

use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::{Answer, Call, blocking};
use crate::auth::Action;
use crate::errors::{ApiError, ApiResult, Code};
use crate::node::Node;
use crate::queue::{Task, Work};
use parameters::{ChosenTasks, ListParameters};

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/tasks", get(list).delete(delete))
        .route("/tasks/cancel", post(cancel))
        .route("/tasks/{uid}", get(show))
        .route("/batches", get(batches::list))
        .route("/batches/{uid}", get(batches::show))
}

async fn list(call: Call) -> Answer {
    let grant = call.authorize(Action::TasksGet, None)?;
    let parameters: ListParameters = call.parameters()?;
    let page_of = parameters.page();
    let limit = parameters.limit.0;
    let page = call.node.queue.page(&parameters.filter(), &grant, page_of);
    Ok(Json(json!({
        "results": page.tasks.iter().map(Task::view).collect::<Vec<_>>(),
        "total": page.total,
        "limit": limit,
        "from": page.tasks.first().map(|task| task.uid),
        "next": page.next,
    }))
    .into_response())
}

fn uid_of_path(text: &str, what: &str, code: Code) -> ApiResult<u32> {
    text.parse().map_err(|_| {
        ApiError::new(
            code,
            format!("{what} uid `{text}` is invalid. It should only contain numeric characters."),
        )
    })
}

async fn show(Path(uid): Path<String>, call: Call) -> Answer {
    let grant = call.authorize(Action::TasksGet, None)?;
    let uid = uid_of_path(&uid, "Task", Code::InvalidTaskUids)?;
    let task = call.node.queue.get(uid, &grant);
    let task =
        task.ok_or_else(|| ApiError::new(Code::TaskNotFound, format!("Task `{uid}` not found.")))?;
    Ok(Json(task.view()).into_response())
}

enum Change {
    Cancel,
    Delete,
}

async fn change(call: Call, change: Change) -> Answer {
    let (action, verb, count) = match change {
        Change::Cancel => (Action::TasksCancel, "cancel", "canceledTasks"),
        Change::Delete => (Action::TasksDelete, "delete", "deletedTasks"),
    };
    let grant = call.authorize(action, None)?;
    let chosen: ChosenTasks = call.parameters()?;
    if call.query.is_empty() {
        return Err(ApiError::new(
            Code::MissingTaskFilters,
            format!(
                "Query parameters to filter the tasks to {verb} are missing. Available query parameters are: \
                 `uids`, `indexUids`, `statuses`, `types`, `canceledBy`, `beforeEnqueuedAt`, `afterEnqueuedAt`, \
                 `beforeStartedAt`, `afterStartedAt`, `beforeFinishedAt`, `afterFinishedAt`."
            ),
        ));
    }
    let node = Arc::clone(&call.node);
    let query = format!("?{}", call.query);
    let task = blocking(move || {
        let uids = node.queue.matching(&chosen.filter(), &grant);
        let mut details = Map::new();
        details.insert("matchedTasks".to_owned(), Value::from(uids.len()));
        details.insert(count.to_owned(), Value::Null);
        details.insert("originalFilter".to_owned(), Value::from(query));
        let work = match change {
            Change::Cancel => Work::CancelTasks { uids },
            Change::Delete => Work::DeleteTasks { uids },
        };
        node.queue.register(work, Value::Object(details), None)
    })
    .await?;
    Ok(Json(task.summary()).into_response())
}

async fn cancel(call: Call) -> Answer {
    change(call, Change::Cancel).await
}

async fn delete(call: Call) -> Answer {
    change(call, Change::Delete).await
}
