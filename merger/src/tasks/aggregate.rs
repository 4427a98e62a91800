//! Builds the task that clients see from the parts on the shards. Pure functions.

use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use super::record::{ReadBack, ReplicaTask, ShardTask, Status, TaskRecord, TaskView};
use super::size;
use crate::filters::words;

/// Details that are counts for each shard, and so are summed.
const SUMMED: [&str; 7] = [
    "receivedDocuments",
    "indexedDocuments",
    "deletedDocuments",
    "editedDocuments",
    "providedIds",
    "canceledTasks",
    "deletedTasks",
];

const EDITION: &str = "documentEdition";

/// Details that are sizes in text form (`68 KiB`), and so are summed too.
const SIZES: [&str; 2] = ["preCompactionSize", "postCompactionSize"];

/// The status that clients see. While a task waits for its read-back, its success isn't shown yet; neither is the failure of a
/// change that some nodes must still undo.
pub(super) fn status(record: &TaskRecord) -> Status {
    match (nodes_status(record), &record.read_back) {
        (Status::Succeeded, ReadBack::Due) => Status::Processing,
        (Status::Failed | Status::Canceled, ReadBack::Due) if is_done_somewhere(record) => {
            Status::Processing
        }
        (Status::Succeeded, ReadBack::Failed(_)) => Status::Failed,
        (status, _) => status,
    }
}

/// The status over all parts: settled when every part is settled.
pub(super) fn nodes_status(record: &TaskRecord) -> Status {
    if record.parts.is_empty() {
        return if record.error.is_some() {
            Status::Failed
        } else {
            Status::Succeeded
        };
    }
    let mut states = record.parts.iter().flat_map(part_states);
    let first = states.next().unwrap_or(Status::Failed);
    states.fold(first, |all, next| match (all, next) {
        (Status::Enqueued, Status::Enqueued) => Status::Enqueued,
        (a, b) if !a.is_settled() || !b.is_settled() => Status::Processing,
        (a, b) => a.max(b),
    })
}

fn is_done_somewhere(record: &TaskRecord) -> bool {
    let mut copies = record.live_copies();
    copies.any(|copy| copy.state.status == Status::Succeeded)
}

/// The states of a part's copies; a part that no replica took counts as failed.
fn part_states(part: &ShardTask) -> impl Iterator<Item = Status> {
    let nobody = part.copies.is_empty().then_some(Status::Failed);
    let copies = part.live().map(|copy| copy.state.status);
    let pending = part.pending.iter().map(|_| Status::Enqueued);
    let pending = pending.filter(move |_| nobody.is_none());
    nobody.into_iter().chain(copies).chain(pending)
}

/// The status of a task and the times of its changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    pub(super) status: Status,
    /// The cancelation that ended the task; `None` if the cancelation came too late.
    pub(super) canceled_by: Option<u32>,
    pub(super) enqueued_at: OffsetDateTime,
    pub(super) started_at: Option<OffsetDateTime>,
    pub(super) finished_at: Option<OffsetDateTime>,
}

/// The status and times of a task over all its parts.
pub(super) fn course(record: &TaskRecord) -> Course {
    let status = status(record);
    let own = record.parts.is_empty().then_some(record.enqueued_at);
    let started_at = own.or(record
        .live_copies()
        .filter_map(|copy| copy.state.started_at)
        .min());
    let finished_at = own
        .or(record
            .live_copies()
            .filter_map(|copy| copy.state.finished_at)
            .max())
        .filter(|_| status.is_settled());
    Course {
        status,
        canceled_by: record.canceled_by.filter(|_| status == Status::Canceled),
        // The nodes enqueued the task a little before the merger had all their answers.
        enqueued_at: started_at.map_or(record.enqueued_at, |start| start.min(record.enqueued_at)),
        started_at,
        finished_at,
    }
}

/// The task as clients see it.
pub(super) fn view(record: &TaskRecord) -> TaskView {
    let Course {
        status,
        canceled_by,
        enqueued_at,
        started_at,
        finished_at,
    } = course(record);
    TaskView {
        uid: record.uid,
        batch_uid: (status != Status::Enqueued).then_some(record.uid),
        index_uid: record.index_uid.clone(),
        status,
        kind: record.kind.clone(),
        canceled_by,
        details: details(record),
        error: error(record),
        duration: started_at
            .zip(finished_at)
            .map(|(start, end)| iso8601(end - start)),
        enqueued_at,
        started_at,
        finished_at,
        custom_metadata: record.custom_metadata.clone(),
    }
}

/// The details from the primaries, with counts summed; details that the merger set itself take precedence.
fn details(record: &TaskRecord) -> Option<Map<String, Value>> {
    let mut all = Map::new();
    for said in record
        .parts
        .iter()
        .filter(|part| !part.is_removal)
        .filter_map(primary)
        .filter_map(|copy| copy.state.details.as_ref())
    {
        for (key, value) in said {
            match all.get_mut(key) {
                Some(sum) if SUMMED.contains(&key.as_str()) => add(sum, value),
                Some(sum) if SIZES.contains(&key.as_str()) => add_sizes(sum, value),
                Some(sum) if key == "indexes" => add_matched(sum, value),
                Some(_) => {}
                None => {
                    all.insert(key.clone(), value.clone());
                }
            }
        }
    }
    let indexed = all.get_mut("indexedDocuments");
    if let Some((indexed, count)) = indexed.and_then(|value| Some((value.as_u64()?, value))) {
        *count = indexed.saturating_sub(superseded(record)).into();
    }
    for (key, value) in &record.details {
        if !value.is_null() || !all.contains_key(key) {
            all.insert(key.clone(), value.clone());
        }
    }
    if let ReadBack::Done(mended) = &record.read_back
        && !mended.is_empty()
    {
        all.insert("repaired".to_owned(), Value::from(mended.as_slice()));
    }
    if record.kind == EDITION && status(record) == Status::Failed {
        // As on a node: an edition counts edited documents, not deleted ones.
        all.insert("deletedDocuments".to_owned(), Value::Null);
    }
    if record.kind == "dumpCreation" {
        all.insert("shards".to_owned(), dumps(record));
    }
    if let Some(share) = record.share {
        let indexed = match status(record) {
            Status::Succeeded => Value::from(share.documents),
            Status::Failed | Status::Canceled => Value::from(0),
            Status::Enqueued | Status::Processing => Value::Null,
        };
        all.insert("indexedDocuments".to_owned(), indexed);
    }
    (!all.is_empty()).then_some(all)
}

/// How many documents shards have indexed although another shard has a later version.
fn superseded(record: &TaskRecord) -> u64 {
    let indexed = |part: &&ShardTask| {
        primary(part).is_some_and(|copy| copy.state.status == Status::Succeeded)
    };
    record
        .parts
        .iter()
        .filter(indexed)
        .map(|part| part.superseded)
        .sum()
}

/// Which dump of which shard is on which node.
fn dumps(record: &TaskRecord) -> Value {
    let dump = |part: &ShardTask| {
        let copy = primary(part);
        let said = copy.and_then(|copy| copy.state.details.as_ref());
        serde_json::json!({
            "shard": part.shard,
            "node": copy.map(|copy| &copy.node),
            "dumpUid": said.and_then(|details| details.get("dumpUid")),
        })
    };
    record.parts.iter().map(dump).collect()
}

fn add(sum: &mut Value, value: &Value) {
    match (sum.as_u64(), value.as_u64()) {
        (Some(a), Some(b)) => *sum = Value::from(a + b),
        (None, Some(b)) => *sum = Value::from(b),
        _ => {}
    }
}

/// An export counts the documents of each index pattern. Nodes spell this count unlike all other fields.
fn add_matched(sum: &mut Value, value: &Value) {
    const COUNTS: [&str; 2] = ["matched_documents", "matchedDocuments"];
    let (Some(sum), Some(value)) = (sum.as_object_mut(), value.as_object()) else {
        return;
    };
    for (pattern, theirs) in value {
        let Some(mine) = sum.get_mut(pattern) else {
            sum.insert(pattern.clone(), theirs.clone());
            continue;
        };
        for count in COUNTS {
            if let (Some(mine), Some(theirs)) = (mine.get_mut(count), theirs.get(count)) {
                add(mine, theirs);
            }
        }
    }
}

/// Sizes are text: `68 KiB`, `1.25 MiB`.
fn add_sizes(sum: &mut Value, value: &Value) {
    let bytes = |value: &Value| value.as_str().and_then(size::parse);
    if let (Some(mine), Some(theirs)) = (bytes(sum), bytes(value)) {
        *sum = Value::from(size::print(mine + theirs));
    }
}

fn primary(part: &ShardTask) -> Option<&ReplicaTask> {
    part.live().next()
}

/// The error: the nodes' own if every part failed alike, otherwise one that names the shards.
fn error(record: &TaskRecord) -> Option<Value> {
    if let Some(error) = &record.error {
        return Some(error.clone());
    }
    if let (Status::Succeeded, ReadBack::Failed(error)) = (nodes_status(record), &record.read_back)
    {
        return Some(error.clone());
    }
    let failed: Vec<(&ShardTask, Value)> = record
        .parts
        .iter()
        .filter_map(|part| part_error(part).map(|error| (part, in_clients_words(record, error))))
        .collect();
    let (_, first) = failed.first()?;
    match &record.read_back {
        ReadBack::Undone(nodes) => return Some(undone(first.clone(), nodes)),
        ReadBack::Failed(why) => {
            let why = why["message"].as_str().unwrap_or_default();
            return Some(with_words(first.clone(), &format!(" ({why})")));
        }
        ReadBack::NotNeeded | ReadBack::Due | ReadBack::Done(_) => {}
    }
    let counted = record
        .parts
        .iter()
        .filter(|part| !carried_nothing(part))
        .count();
    let alike = failed.len() == counted && failed.iter().all(|(_, error)| error == first);
    if alike && !record.parts.iter().all(|part| part.copies.is_empty()) {
        return Some(first.clone());
    }
    let said: Vec<String> = failed
        .iter()
        .map(|(part, error)| {
            format!(
                "shard-{}: {}",
                part.shard.0,
                error["message"].as_str().unwrap_or_default()
            )
        })
        .collect();
    let done: Vec<String> = record
        .parts
        .iter()
        .filter(|part| primary(part).is_some_and(|copy| copy.state.status == Status::Succeeded))
        .filter(|part| !carried_nothing(part))
        .map(|part| format!("shard-{}", part.shard.0))
        .collect();
    let mut message = said.join("; ");
    if !done.is_empty() {
        let done = done.join(", ");
        message.push_str(&match record.kind.as_str() {
            // The function may increment something, so repeating it isn't safe.
            EDITION => format!(
                " (The documents of {done} were edited: {}. The others were not; the same edition again would edit the former twice.)",
                record.parts.iter().map(edited).sum::<u64>()
            ),
            _ => format!(" (done on {done}; sending the request again is safe and completes it)"),
        });
    }
    let mut error = first.clone();
    if let Some(fields) = error.as_object_mut() {
        fields.insert("message".to_owned(), Value::from(message));
    }
    Some(error)
}

/// If the shards got a rewritten filter, an error about it is made to point into the client's own filter.
fn in_clients_words(record: &TaskRecord, mut error: Value) -> Value {
    let filter = || {
        let text = record.details.get("originalFilter")?.as_str()?;
        serde_json::from_str(text).ok()
    };
    let said = || words::in_clients_words(error.get("message")?.as_str()?, &filter()?);
    if let Some(said) = said()
        && let Some(fields) = error.as_object_mut()
    {
        fields.insert("message".to_owned(), Value::from(said));
    }
    error
}

/// How many documents an edition edited on this part's shard.
fn edited(part: &ShardTask) -> u64 {
    let details = primary(part).and_then(|copy| copy.state.details.as_ref());
    details
        .and_then(|details| details.get("editedDocuments")?.as_u64())
        .unwrap_or(0)
}

/// The node's own error, plus the words that no node has the change.
fn undone(error: Value, nodes: &[String]) -> Value {
    if nodes.is_empty() {
        return error;
    }
    let words = format!(
        " (The change was undone where it had been made: {}.)",
        nodes.join(", ")
    );
    with_words(error, &words)
}

fn with_words(mut error: Value, words: &str) -> Value {
    let message = error.get("message").and_then(Value::as_str);
    let message = format!("{}{words}", message.unwrap_or_default());
    if let Some(fields) = error.as_object_mut() {
        fields.insert("message".to_owned(), Value::from(message));
    }
    error
}

/// Whether a part sent no document, and only created the index or removed what lies elsewhere: its success says nothing about the
/// write.
fn carried_nothing(part: &ShardTask) -> bool {
    primary(part).is_some_and(|copy| {
        if part.is_removal {
            return copy.state.status == Status::Succeeded;
        }
        let received = copy
            .state
            .details
            .as_ref()
            .and_then(|details| details.get("receivedDocuments")?.as_u64());
        copy.state.status == Status::Succeeded && received == Some(0)
    })
}

fn part_error(part: &ShardTask) -> Option<Value> {
    if let Some(reason) = &part.undelivered {
        return Some(serde_json::json!({
            "message": reason,
            "code": "internal",
            "type": "internal",
            "link": "https://docs.meilisearch.com/errors#internal",
        }));
    }
    part.live()
        .find(|copy| copy.state.status == Status::Failed)
        .and_then(|copy| copy.state.error.clone())
}

/// An ISO 8601 duration as nodes print it: `PT1.310288324S`.
pub(super) fn iso8601(duration: Duration) -> String {
    let nanos = duration.whole_nanoseconds().max(0);
    format!("PT{}.{:09}S", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

#[cfg(test)]
mod tests;
