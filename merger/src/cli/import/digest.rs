//! A document as two numbers: one for its id, one for its content. Equal documents have equal numbers, and apart from rare
//! collisions only those.
//!
//! The order of fields doesn't count, in nested objects neither. Embeddings that a server makes itself don't count: another server
//! may make them a little differently. Pure.

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

/// A document's id and its digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Print {
    /// The id, as a path or a list of ids names it.
    pub(super) id: String,
    /// The digest of the id.
    pub(super) key: u64,
    /// The digest of everything.
    pub(super) content: u64,
}

impl Print {
    /// The print of a document as a server shows it; `None` if it has no id.
    pub(super) fn of(document: &RawValue, primary_key: &str) -> Option<Self> {
        let mut fields: Map<String, Value> = serde_json::from_str(document.get()).ok()?;
        let id = id_in(&fields, primary_key)?;
        let vectors = fields.remove("_vectors");
        let mut whole = Value::Object(fields);
        whole.sort_all_objects();
        let mut text = whole.to_string();
        if let Some(Value::Object(vectors)) = vectors {
            vectors_into(vectors, &mut text);
        }
        Some(Self {
            key: key_of(&id),
            content: xxh3_64(text.as_bytes()),
            id,
        })
    }
}

/// The digest of an id.
pub(super) fn key_of(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// The id of a document. A primary key may name a member of a member (`meta.id`).
pub(super) fn id_in(fields: &Map<String, Value>, primary_key: &str) -> Option<String> {
    if let Some(value) = fields.get(primary_key) {
        return id_of(value);
    }
    let (first, rest) = primary_key.split_once('.')?;
    id_in(fields.get(first)?.as_object()?, rest)
}

/// An id as text; `None` if it is neither a string nor a number.
fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// Any JSON as a number that doesn't depend on the order of its members.
pub(super) fn digest(value: &Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    format!("{:016x}", xxh3_64(value.to_string().as_bytes()))
}

fn vectors_into(vectors: Map<String, Value>, text: &mut String) {
    let mut named: Vec<(String, Value)> = vectors.into_iter().collect();
    named.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, mut value) in named {
        if value.get("regenerate") == Some(&Value::Bool(true)) {
            value = Value::Bool(true);
        }
        single_precision(&mut value);
        value.sort_all_objects();
        text.push_str(&name);
        text.push_str(&value.to_string());
    }
}

/// Servers keep numbers of vectors in 32 bits, and may print them with more digits than these have.
fn single_precision(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(single_precision),
        Value::Object(members) => members.values_mut().for_each(single_precision),
        Value::Number(number) => {
            #[allow(clippy::cast_possible_truncation, reason = "that is the purpose")]
            let short = number.as_f64().map(|number| number as f32);
            *value = short.map_or(Value::Null, Value::from);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(text: &str) -> Print {
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        Print::of(&raw, "id").unwrap()
    }

    #[test]
    fn the_order_of_members_does_not_count() {
        let one = print(r#"{"id":1,"a":{"x":1,"y":[1,2]}, "_vectors":{}}"#);
        assert_eq!(one, print(r#"{"a":{"y":[1,2],"x":1},"id":1}"#));
    }

    #[test]
    fn everything_else_counts() {
        let one = print(r#"{"id":1,"a":[1,2],"b":"x"}"#);
        for other in [
            r#"{"id":1,"a":[2,1],"b":"x"}"#,
            r#"{"id":1,"a":[1,2],"b":"y"}"#,
            r#"{"id":1,"a":[1,2],"b":null}"#,
            r#"{"id":1,"a":[1,2]}"#,
            r#"{"id":1,"a":[1,2],"b":"x","_vectors":{"m":{"regenerate":false,"embeddings":[[1.0]]}}}"#,
            r#"{"id":1,"a":[1,2],"b":"x","_vectors":{"m":{"regenerate":true,"embeddings":[[1.0]]}}}"#,
        ] {
            assert_ne!(print(other).content, one.content, "{other}");
            assert_eq!(print(other).key, one.key);
        }
    }

    #[test]
    fn vectors_count_as_they_are_stored_and_only_if_they_were_given() {
        let with = |value: &str, regenerate: bool| {
            print(&format!(
                r#"{{"id":"a","_vectors":{{"m":{{"regenerate":{regenerate},"embeddings":[[{value},1]]}}}}}}"#
            ))
        };
        assert_eq!(with("0.1", false), with("0.10000000149011612", false));
        assert_ne!(with("0.1", false), with("0.2", false));
        assert_eq!(with("0.1", true), with("0.2", true));
        assert_ne!(with("0.1", true), with("0.1", false));
    }

    #[test]
    fn ids_are_strings_or_numbers() {
        assert_eq!(print(r#"{"id":12}"#).id, "12");
        assert_eq!(print(r#"{"id":"12"}"#).id, "12");
        let without = RawValue::from_string(r#"{"uid":1}"#.to_owned()).unwrap();
        assert_eq!(Print::of(&without, "id"), None);
        let nested = RawValue::from_string(r#"{"meta":{"id":"x"}}"#.to_owned()).unwrap();
        assert_eq!(Print::of(&nested, "meta.id").unwrap().id, "x");
    }
}
