//! Which shards a search can match at all, according to its filter.
//!
//! If a filter selects documents by id, only the shards that own these ids are asked. This is limited to certain cases: `id
//! = 7` or `id IN [7, 8]`, alone or as one of several conditions that must all hold, and only numbers, since the engine
//! ignores case when it compares strings.
//!
//! Pure: functions of values.

use serde_json::Value;
use weft_routing::document_id::DocumentId;
use weft_routing::placement::{ShardId, SlotMap};

/// The most ids that are looked at. More ids are likely to be spread over all shards.
const MOST_IDS: usize = 1000;

/// The shards that can hold documents that match `filter`; `None` if any shard may.
pub(super) fn shards_of(
    filter: &Value,
    primary_key: &str,
    slots: &SlotMap,
) -> Option<Vec<ShardId>> {
    let ids = ids(filter, primary_key)?;
    let mut shards: Vec<ShardId> = ids.iter().map(|id| slots.shard_of(id)).collect();
    shards.sort_unstable();
    shards.dedup();
    (!shards.is_empty()).then_some(shards)
}

fn ids(filter: &Value, primary_key: &str) -> Option<Vec<DocumentId<'static>>> {
    match filter {
        Value::String(text) => condition(text, primary_key),
        // All elements must match; the elements of a nested array are alternatives.
        Value::Array(all) => all
            .iter()
            .filter(|element| element.is_string())
            .find_map(|one| ids(one, primary_key)),
        _ => None,
    }
}

fn condition(text: &str, primary_key: &str) -> Option<Vec<DocumentId<'static>>> {
    let rest = text.trim().strip_prefix(primary_key)?;
    let spaced = rest.starts_with(|letter: char| letter.is_whitespace());
    let rest = rest.trim();
    if let Some(value) = rest.strip_prefix('=') {
        return Some(vec![number(value)?]);
    }
    let list = rest
        .strip_prefix("IN")
        .filter(|_| spaced)?
        .trim()
        .strip_prefix('[')?
        .strip_suffix(']')?;
    let ids: Vec<_> = list.split(',').map(number).collect::<Option<_>>()?;
    (ids.len() <= MOST_IDS).then_some(ids)
}

/// A whole number in the form that the engine and document ids use.
fn number(text: &str) -> Option<DocumentId<'static>> {
    const LARGEST: u64 = 1 << 53;
    let text = text.trim();
    let number: u64 = text.parse().ok()?;
    (number < LARGEST && number.to_string() == text).then(|| DocumentId::from_u64(number))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slots() -> SlotMap {
        SlotMap::deal(&[ShardId(0), ShardId(1), ShardId(2), ShardId(3)]).unwrap()
    }

    fn owners(ids: &[u64]) -> Option<Vec<ShardId>> {
        let mut shards: Vec<ShardId> = ids
            .iter()
            .map(|id| slots().shard_of(&DocumentId::from_u64(*id)))
            .collect();
        shards.sort_unstable();
        shards.dedup();
        Some(shards)
    }

    #[test]
    fn documents_asked_for_by_id_are_looked_for_where_they_are() {
        let found = |filter: Value| shards_of(&filter, "id", &slots());
        assert_eq!(found(json!("id = 7")), owners(&[7]));
        assert_eq!(found(json!("id=7")), owners(&[7]));
        assert_eq!(found(json!(" id IN [7, 8,9] ")), owners(&[7, 8, 9]));
        assert_eq!(found(json!(["genre = Drama", "id = 7"])), owners(&[7]));
    }

    #[test]
    fn anything_else_may_be_anywhere() {
        for filter in [
            json!("id = 7 OR id = 8"),
            json!("id = 7 OR genre = a"),
            json!("id != 7"),
            json!("id = abc"),
            json!("id = \"7\""),
            json!("id = 07"),
            json!("id = 7.0"),
            json!("id > 7"),
            json!("idx = 7"),
            json!("id NOT IN [7]"),
            json!("id IN []"),
            json!([["id = 7", "genre = a"]]),
            json!(null),
        ] {
            assert_eq!(shards_of(&filter, "id", &slots()), None, "{filter}");
        }
    }
}
