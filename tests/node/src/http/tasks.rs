//! `/tasks` and `/batches`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use deserr::Deserr;
use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime, Time};

use super::uid::IndexUid;
use super::{Answer, Call, blocking};
use crate::auth::Action;
use crate::errors::{ApiError, ApiResult, Code, of};
use crate::node::Node;
use crate::queue::{Kind, PageOf, Period, Status, Task, TaskFilter, Work, date, duration};
use crate::validate::{Choice, FromText, InQuery, Param, Wrong};

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/tasks", get(list).delete(delete))
        .route("/tasks/cancel", post(cancel))
        .route("/tasks/{uid}", get(show))
        .route("/batches", get(list_batches))
        .route("/batches/{uid}", get(show_batch))
}

/// A date that something happened after: of a day, its end.
#[derive(Debug, Clone, Copy)]
struct After(Option<OffsetDateTime>);

/// A date that something happened before: of a day, its beginning.
#[derive(Debug, Clone, Copy)]
struct Before(Option<OffsetDateTime>);

fn parse_date(text: &str) -> Result<(OffsetDateTime, bool), Wrong> {
    if let Ok(date) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok((date, false));
    }
    match Date::parse(text, format_description!("[year]-[month]-[day]")) {
        Ok(day) => Ok((day.with_time(Time::MIDNIGHT).assume_utc(), true)),
        Err(_) => Err(Wrong(format!(
            "`{text}` is an invalid date-time. It should follow the YYYY-MM-DD or RFC 3339 date-time format."
        ))),
    }
}

impl FromText for After {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        if text == "*" {
            return Ok(After(None));
        }
        let (date, is_day) = parse_date(text)?;
        Ok(After(Some(if is_day {
            date.saturating_add(Duration::DAY)
        } else {
            date
        })))
    }
}

impl FromText for Before {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        if text == "*" {
            Ok(Before(None))
        } else {
            Ok(Before(Some(parse_date(text)?.0)))
        }
    }
}

macro_rules! filters {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserr)]
        #[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
        struct $name {
            $($(#[$attribute])* $field: $type,)*
            #[deserr(default, error = InQuery<of::InvalidBatchUids>)]
            batch_uids: Option<Choice<u32>>,
            #[deserr(default, error = InQuery<of::InvalidTaskUids>)]
            uids: Option<Choice<u32>>,
            #[deserr(default, error = InQuery<of::InvalidTaskCanceledBy>)]
            canceled_by: Option<Choice<u32>>,
            #[deserr(default, error = InQuery<of::InvalidTaskTypes>)]
            types: Option<Choice<Kind>>,
            #[deserr(default, error = InQuery<of::InvalidTaskStatuses>)]
            statuses: Option<Choice<Status>>,
            #[deserr(default, error = InQuery<of::InvalidIndexUid>)]
            index_uids: Option<Choice<IndexUid>>,
            #[deserr(default, error = InQuery<of::InvalidTaskAfterEnqueuedAt>)]
            after_enqueued_at: Option<Param<After>>,
            #[deserr(default, error = InQuery<of::InvalidTaskBeforeEnqueuedAt>)]
            before_enqueued_at: Option<Param<Before>>,
            #[deserr(default, error = InQuery<of::InvalidTaskAfterStartedAt>)]
            after_started_at: Option<Param<After>>,
            #[deserr(default, error = InQuery<of::InvalidTaskBeforeStartedAt>)]
            before_started_at: Option<Param<Before>>,
            #[deserr(default, error = InQuery<of::InvalidTaskAfterFinishedAt>)]
            after_finished_at: Option<Param<After>>,
            #[deserr(default, error = InQuery<of::InvalidTaskBeforeFinishedAt>)]
            before_finished_at: Option<Param<Before>>,
        }

        impl $name {
            fn filter(self) -> TaskFilter {
                let period = |after: Option<Param<After>>, before: Option<Param<Before>>| Period {
                    after: after.and_then(|after| after.0.0),
                    before: before.and_then(|before| before.0.0),
                };
                let indexes = self.index_uids.and_then(Choice::into_list);
                TaskFilter {
                    uids: self.uids.and_then(Choice::into_list),
                    batches: self.batch_uids.and_then(Choice::into_list),
                    canceled_by: self.canceled_by.and_then(Choice::into_list),
                    kinds: self.types.and_then(Choice::into_list),
                    statuses: self.statuses.and_then(Choice::into_list),
                    indexes: indexes.map(|uids| uids.into_iter().map(|uid| uid.0).collect()),
                    enqueued: period(self.after_enqueued_at, self.before_enqueued_at),
                    started: period(self.after_started_at, self.before_started_at),
                    finished: period(self.after_finished_at, self.before_finished_at),
                }
            }
        }
    };
}

filters! {
    /// `GET /tasks` and `GET /batches`.
    ListParameters {
        #[deserr(default = Param(20), error = InQuery<of::InvalidTaskLimit>)]
        limit: Param<u32>,
        #[deserr(default, error = InQuery<of::InvalidTaskFrom>)]
        from: Option<Param<u32>>,
        #[deserr(default, error = InQuery<of::InvalidTaskReverse>)]
        reverse: Option<Param<bool>>,
    }
}

filters! {
    /// `POST /tasks/cancel` and `DELETE /tasks`.
    ChosenTasks {}
}

impl ListParameters {
    fn page(&self) -> PageOf {
        PageOf {
            limit: self.limit.0 as usize,
            from: self.from.as_ref().map(|from| from.0),
            reverse: self.reverse.as_ref().is_some_and(|reverse| reverse.0),
        }
    }
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

async fn list_batches(call: Call) -> Answer {
    let grant = call.authorize(Action::TasksGet, None)?;
    let parameters: ListParameters = call.parameters()?;
    let PageOf {
        limit,
        from,
        reverse,
    } = parameters.page();
    let batches: BTreeMap<u32, Vec<Task>> = call.node.queue.batched(&parameters.filter(), &grant);
    let total = batches.len();
    let mut uids: Vec<u32> = batches.keys().copied().collect();
    if !reverse {
        uids.reverse();
    }
    let begins = |uid: &u32| match from {
        Some(from) if reverse => *uid >= from,
        Some(from) => *uid <= from,
        None => true,
    };
    let mut rest = uids.into_iter().filter(begins);
    let page: Vec<u32> = rest.by_ref().take(limit).collect();
    let results: Vec<Value> = page
        .iter()
        .filter_map(|uid| batches.get(uid).map(|tasks| batch_view(*uid, tasks)))
        .collect();
    Ok(Json(json!({
        "results": results,
        "total": total,
        "limit": limit,
        "from": page.first(),
        "next": rest.next(),
    }))
    .into_response())
}

async fn show_batch(Path(uid): Path<String>, call: Call) -> Answer {
    let grant = call.authorize(Action::TasksGet, None)?;
    let uid = uid_of_path(&uid, "Batch", Code::InvalidBatchUids)?;
    let filter = TaskFilter {
        batches: Some(vec![uid]),
        ..TaskFilter::default()
    };
    match call.node.queue.batched(&filter, &grant).get(&uid) {
        Some(tasks) => Ok(Json(batch_view(uid, tasks)).into_response()),
        None => Err(ApiError::new(
            Code::BatchNotFound,
            format!("Batch `{uid}` not found."),
        )),
    }
}

fn batch_view(uid: u32, tasks: &[Task]) -> Value {
    let mut statuses: BTreeMap<&str, u32> = BTreeMap::new();
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    let mut indexes: BTreeMap<&str, u32> = BTreeMap::new();
    let mut details: Map<String, Value> = Map::new();
    for task in tasks {
        *statuses.entry(task.status.name()).or_default() += 1;
        *kinds.entry(task.work.kind().name()).or_default() += 1;
        if let Some(index) = task.work.index() {
            *indexes.entry(index).or_default() += 1;
        }
        add_details(&mut details, &task.details);
    }
    let first = tasks.first();
    let started = first.and_then(|task| task.started_at);
    let finished = tasks.iter().map(|task| task.finished_at).max().flatten();
    json!({
        "uid": uid,
        "progress": null,
        "details": details,
        "stats": {
            "totalNbTasks": tasks.len(),
            "status": statuses,
            "types": kinds,
            "indexUids": indexes,
            "progressTrace": {},
        },
        "duration": started.zip(finished).map(|(start, end)| duration(end - start)),
        "startedAt": started.map(date),
        "finishedAt": finished.map(date),
        "batchStrategy": strategy(tasks),
    })
}

/// Counts of several tasks are added up; of anything else, the last one stands.
fn add_details(sum: &mut Map<String, Value>, details: &Map<String, Value>) {
    for (name, value) in details {
        let both = sum.get(name).and_then(Value::as_u64).zip(value.as_u64());
        sum.insert(
            name.clone(),
            both.map_or_else(|| value.clone(), |(a, b)| Value::from(a + b)),
        );
    }
}

fn strategy(tasks: &[Task]) -> String {
    match tasks {
        [task] if task.work.kind() != Kind::DocumentAdditionOrUpdate => format!(
            "created batch containing only task with id {} of type `{}` that cannot be batched with any other task.",
            task.uid,
            task.work.kind().name()
        ),
        _ => "batched all enqueued tasks".to_owned(),
    }
}
