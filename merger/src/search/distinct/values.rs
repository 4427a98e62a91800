//! Values of documents in a form that compares as the engine compares them: numbers by value, strings normalised, an array
//! by each of its elements. A hit without a value is always kept.

use hashbrown::{HashMap, HashSet};
use serde_json::Value;

use crate::search::facets::normalise;
use crate::search::field_path::scalars_at;
use crate::search::merge::Head;

/// Values of documents whose hits don't show them, by document id.
pub(in crate::search) type Values = HashMap<Vec<u8>, Vec<String>>;

/// The values seen so far.
#[derive(Debug, Default)]
pub(in crate::search) struct Seen(HashSet<String>);

impl Seen {
    /// True if none of `values` was seen before. They count as seen from now on.
    pub(in crate::search) fn admit(&mut self, values: &[String]) -> bool {
        if values.iter().any(|value| self.0.contains(value)) {
            return false;
        }
        self.0.extend(values.iter().cloned());
        true
    }
}

/// A hit's values at `path`, in comparable form; taken from `hidden` if it knows the document. The hit's picked member must
/// be the path's first part.
pub(in crate::search) fn values_of(
    path: &str,
    head: &Head<'_>,
    hidden: Option<&Values>,
) -> Vec<String> {
    if let Some(known) = hidden
        .zip(head.id())
        .and_then(|(hidden, id)| hidden.get(id))
    {
        return known.clone();
    }
    let mut values = Vec::new();
    let text = head
        .span
        .picked
        .clone()
        .and_then(|range| head.text.get(range));
    if let Some(value) = text.and_then(|text| serde_json::from_slice::<Value>(text).ok()) {
        let rest = path.split_once('.').map_or("", |(_, rest)| rest);
        collect(&value, rest, &mut values);
    }
    values
}

/// A hit's values at `path`, from its whole text.
pub(in crate::search) fn values_in(path: &str, hit: Option<&[u8]>) -> Vec<String> {
    let hit = hit.and_then(|text| serde_json::from_slice::<Value>(text).ok());
    hit.map_or_else(Vec::new, |hit| values_at(path, &hit))
}

/// A document's values at `path`, each once.
pub(in crate::search) fn values_at(path: &str, document: &Value) -> Vec<String> {
    let mut values = Vec::new();
    collect(document, path, &mut values);
    values.sort_unstable();
    values.dedup();
    values
}

fn collect(document: &Value, path: &str, values: &mut Vec<String>) {
    scalars_at(document, path, &mut |value| {
        values.extend(match value {
            Value::Number(number) => number.as_f64().map(|number| format!("n{number}")),
            Value::String(text) => Some(format!("s{}", normalise(text))),
            other => Some(format!("s{other}")),
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(path: &str, value: Value) -> Vec<String> {
        let mut values = Vec::new();
        collect(&value, path, &mut values);
        values
    }

    #[test]
    fn values_are_compared_as_the_engine_does() {
        assert_eq!(
            values("", Value::from("  Ünïcode ")),
            values("", Value::from("ünïcode"))
        );
        assert_eq!(values("", Value::from(3)), values("", Value::from(3.0)));
        assert_ne!(values("", Value::from(3)), values("", Value::from("3")));
        assert_eq!(
            values("a.b", serde_json::json!([{"a": {"b": 1}}, {"a.b": 2}])),
            ["n1", "n2"]
        );
        assert!(values("", Value::Null).is_empty());
    }

    #[test]
    fn a_hit_is_left_out_if_any_of_its_values_was_met() {
        let mut seen = Seen::default();
        let list = |values: &[&str]| {
            values
                .iter()
                .map(|value| (*value).to_owned())
                .collect::<Vec<_>>()
        };
        assert!(seen.admit(&list(&["a", "b"])));
        assert!(!seen.admit(&list(&["c", "b"])));
        assert!(seen.admit(&list(&["c"])));
        assert!(seen.admit(&[]) && seen.admit(&[]));
    }
}
