//! Batches: the tasks that the worker executed together. They are computed from the tasks.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::parameters::ListParameters;
use super::{Answer, Call, uid_of_path};
use crate::auth::Action;
use crate::errors::{ApiError, Code};
use crate::queue::{Kind, PageOf, Task, TaskFilter, date, duration};

pub(super) async fn list(call: Call) -> Answer {
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

pub(super) async fn show(Path(uid): Path<String>, call: Call) -> Answer {
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

/// Counts of several tasks are summed. Of any other detail, the last value is kept.
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
