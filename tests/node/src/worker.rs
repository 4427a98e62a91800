//! Executes the queue, one batch at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use milli_core::update::Settings;
use serde_json::{Map, Value, json};

use crate::engine::write::{self, Part, Writer};
use crate::errors::{ApiError, ApiResult};
use crate::node::Node;
use crate::queue::{Addition, Batch, Outcome, Swap, Task, Work};

/// Executes tasks until the node closes.
pub(crate) fn run(node: &Arc<Node>) -> ApiResult<()> {
    while let Some(batch) = node.queue.next_batch() {
        let outcomes = survive(&batch, || execute(node, &batch));
        if node.queue.is_interrupted() && outcomes.iter().all(Result::is_err) {
            node.queue.release(&batch);
        } else {
            node.queue.finish(batch, outcomes)?;
        }
    }
    Ok(())
}

/// The engine panics on some documents. Their tasks fail with that, and the worker continues with the next ones.
fn survive(batch: &Batch, execute: impl FnOnce() -> Vec<Outcome>) -> Vec<Outcome> {
    catch_unwind(AssertUnwindSafe(execute)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or(panic.downcast_ref::<&str>().copied());
        let error = ApiError::internal(format!(
            "An unexpected crash occurred when processing the task: {}",
            words.unwrap_or("Box<dyn Any>")
        ));
        batch.tasks.iter().map(|_| Err(error.clone())).collect()
    })
}

fn execute(node: &Node, batch: &Batch) -> Vec<Outcome> {
    match batch.tasks.as_slice() {
        [Task { uid, work, .. }] if !matches!(work, Work::AddDocuments(_)) => {
            vec![execute_one(node, *uid, work)]
        }
        tasks => {
            let additions: Vec<&Addition> = tasks
                .iter()
                .filter_map(|task| match &task.work {
                    Work::AddDocuments(addition) => Some(addition),
                    _ => None,
                })
                .collect();
            add_all(node, &additions)
        }
    }
}

/// Adds the documents of several tasks in one transaction. If that fails as a whole, each task gets its own transaction, so
/// that no task fails because of another's documents.
fn add_all(node: &Node, additions: &[&Addition]) -> Vec<Outcome> {
    let together = add(node, additions);
    match together {
        Ok(counts) => counts
            .into_iter()
            .map(|count| count.map(|count| details(json!({ "indexedDocuments": count }))))
            .collect(),
        Err(error) if additions.len() == 1 || node.queue.is_interrupted() => {
            additions.iter().map(|_| Err(error.clone())).collect()
        }
        Err(_) => additions
            .iter()
            .flat_map(|addition| add_all(node, &[addition]))
            .collect(),
    }
}

fn add(node: &Node, additions: &[&Addition]) -> ApiResult<Vec<ApiResult<u64>>> {
    let Some(first) = additions.first() else {
        return Ok(Vec::new());
    };
    let index = node.indexes.get_or_create(&first.index, first.may_create)?;
    let part = |addition: &&Addition| {
        Ok(Part::Documents(
            node.queue.payloads.map(addition.payload)?,
            addition.method,
        ))
    };
    let parts = additions.iter().map(part).collect::<ApiResult<Vec<_>>>()?;
    let interrupted = || node.queue.is_interrupted();
    let writer = Writer {
        pool: &node.pool,
        config: &node.indexer,
        interrupted: &interrupted,
    };
    writer.write(&first.index, &index, &parts, first.primary_key.as_deref())
}

fn details(details: Value) -> Map<String, Value> {
    match details {
        Value::Object(details) => details,
        _ => Map::new(),
    }
}

fn execute_one(node: &Node, uid: u32, work: &Work) -> Outcome {
    let interrupted = || node.queue.is_interrupted();
    let writer = Writer {
        pool: &node.pool,
        config: &node.indexer,
        interrupted: &interrupted,
    };
    match work {
        Work::CreateIndex { index, primary_key } => {
            node.indexes.create(index)?;
            set_primary_key(node, index, primary_key.as_deref())?;
            Ok(Map::new())
        }
        Work::UpdateIndex {
            index,
            primary_key,
            new_uid,
        } => {
            node.indexes.get(index)?;
            // As on a real node, the name is changed first, and stays changed even if the primary key is refused.
            if let Some(new_uid) = new_uid.as_ref().filter(|new_uid| *new_uid != index) {
                let swap = Swap {
                    indexes: (index.clone(), new_uid.clone()),
                    rename: true,
                };
                node.indexes.swap(std::slice::from_ref(&swap))?;
                node.queue.follow(&[swap], uid)?;
            }
            let now = new_uid.as_ref().unwrap_or(index);
            set_primary_key(node, now, primary_key.as_deref())?;
            Ok(Map::new())
        }
        Work::DeleteIndex { index } => {
            let open = node.indexes.get(index)?;
            let rtxn = open.read_txn()?;
            let documents = open.number_of_documents(&rtxn)?;
            drop(rtxn);
            drop(open);
            node.indexes.delete(index)?;
            Ok(details(json!({ "deletedDocuments": documents })))
        }
        Work::SwapIndexes { swaps } => {
            node.indexes.swap(swaps)?;
            node.queue.follow(swaps, uid)?;
            Ok(Map::new())
        }
        Work::AddDocuments(_) => Err(ApiError::internal("additions are executed in batches")),
        Work::DeleteDocuments { index, ids } => {
            let deleted = writer.delete_ids(index, &node.indexes.get(index)?, ids)?;
            Ok(details(json!({ "deletedDocuments": deleted })))
        }
        Work::DeleteByFilter { index, filter } => {
            let deleted = writer.delete_matching(index, &node.indexes.get(index)?, filter)?;
            Ok(details(json!({ "deletedDocuments": deleted })))
        }
        Work::ClearDocuments { index } => {
            let deleted = write::clear(&node.indexes.get(index)?)?;
            Ok(details(json!({ "deletedDocuments": deleted })))
        }
        Work::EditDocuments {
            index,
            filter,
            context,
            function,
        } => {
            let open = node.indexes.get(index)?;
            let edited = writer.edit(
                index,
                &open,
                filter.as_ref(),
                context.clone(),
                function.clone(),
            )?;
            Ok(details(
                json!({ "editedDocuments": edited, "deletedDocuments": edited }),
            ))
        }
        Work::UpdateSettings {
            index,
            settings,
            may_create,
        } => update_settings(node, index, settings, *may_create),
        Work::CancelTasks { uids } => {
            let canceled = node.queue.cancel(uids, uid)?;
            Ok(details(json!({ "canceledTasks": canceled })))
        }
        Work::DeleteTasks { uids } => {
            let deleted = node.queue.delete(uids)?;
            Ok(details(json!({ "deletedTasks": deleted })))
        }
    }
}

fn update_settings(
    node: &Node,
    uid: &str,
    settings: &Map<String, Value>,
    may_create: bool,
) -> Outcome {
    let index = node.indexes.get_or_create(uid, may_create)?;
    let interrupted = || node.queue.is_interrupted();
    crate::engine::settings::apply(uid, &index, &node.indexer, settings, &interrupted)?;
    if let Some(rules) = settings.get("rankingRules") {
        let mut record = node.indexes.record(uid)?;
        record.ranking_rules = serde_json::from_value(rules.clone())?;
        node.indexes.set_record(uid, record)?;
    }
    Ok(Map::new())
}

fn set_primary_key(node: &Node, uid: &str, primary_key: Option<&str>) -> ApiResult<()> {
    let index = node.indexes.get(uid)?;
    let mut wtxn = index.write_txn()?;
    let mut settings = Settings::new(&mut wtxn, &index, &node.indexer);
    if let Some(primary_key) = primary_key {
        settings.set_primary_key(primary_key.to_owned());
    }
    settings
        .execute(|_| (), || false)
        .map_err(|error| ApiError::from(error).prefixed(&format!("Index `{uid}`: ")))?;
    wtxn.commit()?;
    Ok(())
}
