//! The fuzzing targets, one function each. A target accepts any bytes, and panics if the code under test breaks a promise.
#![allow(
    unreachable_pub,
    reason = "this is a library for cargo fuzz, and a module of the tests"
)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target reports a broken promise by a panic"
)]

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use serde_json::value::RawValue;
use weft_merger::internals::{Plan, plan};
use weft_merger::tasks::read_filter;
use weft_merger::write::{Format, SplitError};
use weft_routing::{
    BodyFormat, DocumentId, DocumentIds, Operation, RoutingTable, ShardId, SlotMap, body, classify,
};

/// A target.
pub type Target = fn(&[u8]);

/// Every target with the name of its corpus.
pub const TARGETS: [(&str, Target); 6] = [
    ("split", split),
    ("owners", owners),
    ("document_id", document_id),
    ("path", path),
    ("table", table),
    ("task_filter", task_filter),
];

/// The first byte chooses the format, the second the size of the chunks; the rest is the body.
///
/// The plan doesn't depend on how the body is cut into chunks. A body of JSON is refused only if a JSON reader refuses it, and
/// the plan contains each document once.
pub fn split(data: &[u8]) {
    let [kind, size, text @ ..] = data else {
        return;
    };
    let format = match kind % 4 {
        0 => Format::Json,
        1 => Format::Ndjson,
        2 => Format::Csv { delimiter: b',' },
        _ => Format::Csv { delimiter: b';' },
    };
    let key = (kind & 4 == 0).then_some("id");
    let slots = three_shards();
    let whole = plan(format, &slots, key, std::iter::once(text));
    let cut = plan(format, &slots, key, text.chunks(usize::from(*size).max(1)));
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => assert_eq!(whole, cut),
        (Err(whole), Err(cut)) => assert_eq!(whole.to_string(), cut.to_string()),
        _ => panic!("whole {whole:?}, in pieces {cut:?}"),
    }
    match (format, &whole) {
        (Format::Json | Format::Ndjson, Ok(plan)) => is_json(format, plan),
        (Format::Json, Err(SplitError::Fault(_))) => {
            let documents = serde_json::from_slice::<Vec<serde_json::Map<String, Value>>>(text);
            assert!(documents.is_err(), "refused, but {documents:?}");
        }
        _ => {}
    }
}

/// Checks that every part is JSON, and that the parts contain each document once.
fn is_json(format: Format, plan: &Plan) {
    let mut count = 0;
    for body in plan.parts.iter().flat_map(|(_, bodies)| bodies) {
        count += match format {
            Format::Json => serde_json::from_slice::<Vec<&RawValue>>(body)
                .expect("a part is an array")
                .len(),
            _ => serde_json::Deserializer::from_slice(body)
                .into_iter::<&RawValue>()
                .fold(0, |count, document| {
                    document.expect("a part consists of documents");
                    count + 1
                }),
        };
    }
    if plan.refused.is_none() && plan.key.is_some() {
        assert_eq!(count as u64, plan.received);
    }
}

/// If the filter would send a body directly to a shard, the merger would send it to that shard only.
pub fn owners(data: &[u8]) {
    let [kind, text @ ..] = data else { return };
    let (format, merger_format) = match kind % 2 {
        0 => (BodyFormat::Json, Format::Json),
        _ => (BodyFormat::NdJson, Format::Ndjson),
    };
    let slots = three_shards();
    let found = body::owners(Operation::ReplaceDocuments, format, "id", &slots, text);
    let Ok(found) = found else { return };
    let Ok(plan) = plan(merger_format, &slots, Some("id"), std::iter::once(text)) else {
        // The filter skips values without parsing them, for example a number out of range. The node then refuses the body.
        let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
        assert!(
            values.any(|value| value.is_err()),
            "only the merger refuses it"
        );
        return;
    };
    assert_eq!(plan.refused, None, "the filter found only valid ids");
    let shards: Vec<ShardId> = plan.parts.iter().map(|(shard, _)| *shard).collect();
    match found {
        DocumentIds::One(shard) => assert_eq!(shards, [shard]),
        DocumentIds::Several => assert!(shards.len() > 1, "{shards:?}"),
    }
}

/// An id equals what the engine's JSON reader reads, and its canonical text gives the same id again.
pub fn document_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = DocumentId::from_text(text) {
        assert_eq!(id.as_str(), text);
        assert!(text.len() <= 511);
    }
    let Ok(id) = DocumentId::from_json(text) else {
        return;
    };
    let expected = match serde_json::from_str(text).expect("an id is JSON") {
        Value::String(text) => text,
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        other => panic!("{other} as an id"),
    };
    assert_eq!(id.as_str(), expected);
    let again = DocumentId::from_text(id.as_str()).expect("a canonical text is an id");
    assert_eq!(again, id);
}

/// The first byte chooses the method. Repeated slashes don't change the meaning of a path, and the index and the document that
/// it names are parts of its text.
pub fn path(data: &[u8]) {
    let [method, text @ ..] = data else { return };
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "BREW"];
    let method = methods[usize::from(*method) % methods.len()];
    let text = String::from_utf8_lossy(text);
    let found = classify(method, &text);
    let (path, rest) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
    if !path.starts_with('/') {
        assert!(found.is_err());
        return;
    }
    let wide = format!("{}//{rest}", path.replace('/', "///"));
    assert_eq!(
        classify(method, &wide),
        found,
        "repeated slashes change the meaning"
    );
    let Ok(found) = found else { return };
    if !path.contains('%') {
        for named in [&found.index, &found.document].into_iter().flatten() {
            assert!(path.contains(&**named) && !named.contains('/'));
        }
    }
    if found.operation == Operation::Internal {
        assert!(
            !classify(method, &path.replacen("weft", "wefx", 1))
                .is_ok_and(|other| other.operation == Operation::Internal)
                || !path.contains("weft")
        );
    }
}

/// A table that was read, written and read again is the same table.
pub fn table(data: &[u8]) {
    let Ok(table) = RoutingTable::from_json(data) else {
        return;
    };
    let json = table
        .to_json()
        .expect("a table that was read can be written");
    let again =
        RoutingTable::from_json(json.as_bytes()).expect("a table that was written can be read");
    assert_eq!(again, table);
}

/// Reading a query of `GET /tasks` always ends, and an empty query selects all tasks.
pub fn task_filter(data: &[u8]) {
    let query = String::from_utf8_lossy(data);
    let narrows = read_filter(&query);
    if query.trim_matches('&').is_empty() {
        assert!(matches!(narrows, Ok(false)));
    }
}

/// The slots of three shards. They are computed once, because that takes longer than most inputs.
fn three_shards() -> Arc<SlotMap> {
    static SLOTS: LazyLock<Arc<SlotMap>> = LazyLock::new(|| {
        let shards: Vec<ShardId> = (0..3).map(ShardId).collect();
        Arc::new(SlotMap::deal(&shards).expect("three shards"))
    });
    Arc::clone(&SLOTS)
}
