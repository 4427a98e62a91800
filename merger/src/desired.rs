//! The desired settings of each index: those last set through Weft.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use crate::store::{Change, Store, StoreError};

const PREFIX: &str = "settings/";
const SWAPPED: &str = "settings-swapped";

/// The settings of one index, by their names in `GET …/settings`.
pub(crate) type Values = Map<String, Value>;

/// The desired settings of all indexes, durably.
pub struct DesiredSettings {
    store: Arc<dyn Store>,
    /// How often any settings were changed.
    revision: AtomicU64,
}

impl DesiredSettings {
    /// Keeps the settings in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            revision: AtomicU64::new(0),
        }
    }

    /// A number that changes whenever the settings of any index change.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let outcome = self.store.commit(changes).await;
        self.revision.fetch_add(1, Ordering::AcqRel);
        outcome
    }

    /// An index's desired settings, by their names in `GET …/settings`; `None` if nothing was set yet.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn get(&self, uid: &str) -> Result<Option<Map<String, Value>>, StoreError> {
        let stored = self.store.get(&key(uid)).await?;
        Ok(stored.and_then(|stored| serde_json::from_slice(&stored.value).ok()))
    }

    pub(crate) async fn put(&self, uid: &str, values: &Values) -> Result<(), StoreError> {
        if self.get(uid).await?.as_ref() == Some(values) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(values).unwrap_or_default();
        self.commit(vec![Change::put(key(uid), bytes)]).await
    }

    /// Deletes the desired settings of an index that is gone.
    pub(crate) async fn forget(&self, uid: &str) -> Result<(), StoreError> {
        self.commit(vec![Change::delete(key(uid))]).await
    }

    /// Swaps the desired settings of indexes that a task has swapped. A second call for the same task changes nothing; it is
    /// enough to remember the last task, because such tasks end one after the other.
    pub(crate) async fn swapped(
        &self,
        pairs: &[(&str, &str)],
        task: u32,
    ) -> Result<(), StoreError> {
        let last = self.store.get(SWAPPED).await?;
        if last.is_some_and(|last| last.value == task.to_be_bytes()) {
            return Ok(());
        }
        let mut changes = vec![Change::put(SWAPPED, task.to_be_bytes().to_vec())];
        for (one, two) in pairs {
            for (from, to) in [(one, two), (two, one)] {
                changes.push(match self.store.get(&key(from)).await? {
                    Some(stored) => Change::put(key(to), stored.value),
                    None => Change::delete(key(to)),
                });
            }
        }
        self.commit(changes).await
    }
}

fn key(uid: &str) -> String {
    format!("{PREFIX}{uid}")
}

/// Decides an index's settings from what nodes report: the value on which all nodes agree; else, for a setting that no change
/// touched, the value before; else the value that most nodes have.
pub(crate) fn decide(
    said: &[&Values],
    before: Option<&Values>,
    touched: &BTreeSet<String>,
) -> Values {
    let names: BTreeSet<&String> = said.iter().flat_map(|values| values.keys()).collect();
    let mut decided = Values::new();
    for name in names {
        let values: Vec<&Value> = said.iter().filter_map(|values| values.get(name)).collect();
        let agreed = values.windows(2).all(|pair| pair.first() == pair.last());
        let was = before
            .and_then(|before| before.get(name))
            .filter(|_| !touched.contains(name));
        let value = match (agreed, was) {
            (false, Some(was)) => Some(was),
            _ => most(&values),
        };
        decided.extend(value.map(|value| (name.clone(), value.clone())));
    }
    decided
}

/// The most frequent value; among equally frequent ones, the first.
fn most<'a>(values: &[&'a Value]) -> Option<&'a Value> {
    let count = |value: &Value| values.iter().filter(|other| **other == value).count();
    let mut best: Option<(&Value, usize)> = None;
    for value in values {
        let votes = count(value);
        if best.is_none_or(|(_, most)| votes > most) {
            best = Some((value, votes));
        }
    }
    best.map(|(value, _)| value)
}

/// The settings that have to change on a node, by name with their wanted values. Settings that the node doesn't have are left
/// out: they depend on its features.
pub(crate) fn difference(truth: &Values, node: &Values) -> Values {
    node.iter()
        .filter_map(|(name, value)| {
            let wanted = truth.get(name).filter(|wanted| *wanted != value)?;
            let patch = match name.as_str() {
                "embedders" => embedders(wanted, value),
                _ => wanted.clone(),
            };
            Some((name.clone(), patch))
        })
        .collect()
}

/// A node merges embedders into its own, name by name and field by field, so everything to be removed must be named.
fn embedders(wanted: &Value, node: &Value) -> Value {
    let (Some(wanted), Some(node)) = (wanted.as_object(), node.as_object()) else {
        return wanted.clone();
    };
    let mut patch = Values::new();
    for name in node.keys().filter(|name| !wanted.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, shall) in wanted {
        let has = node.get(name);
        if has == Some(shall) {
            continue;
        }
        let mut shall = shall.clone();
        let surplus = has.and_then(Value::as_object).into_iter().flatten();
        if let Some(fields) = shall.as_object_mut() {
            for (field, _) in surplus {
                fields.entry(field.clone()).or_insert(Value::Null);
            }
        }
        patch.insert(name.clone(), shall);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(value: Value) -> Values {
        value.as_object().unwrap().clone()
    }

    fn touched(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_setting_that_was_touched_is_what_most_nodes_say_and_another_is_what_it_was() {
        let before = values(json!({"a": 1, "b": 1, "c": 1}));
        let new = values(json!({"a": 2, "b": 1, "c": 9}));
        let missed = values(json!({"a": 1, "b": 7, "c": 9}));
        let decided = decide(&[&missed, &new, &new], Some(&before), &touched(&["a"]));
        assert_eq!(decided, values(json!({"a": 2, "b": 1, "c": 9})));
        assert_eq!(
            difference(&decided, &missed),
            values(json!({"a": 2, "b": 1}))
        );
        assert!(difference(&decided, &new).is_empty());
    }

    #[test]
    fn with_nothing_known_the_most_frequent_wins_and_then_the_first() {
        let (one, two) = (values(json!({"a": [1]})), values(json!({"a": [2]})));
        assert_eq!(decide(&[&one, &two], None, &touched(&[])), one);
        assert_eq!(decide(&[&one, &two, &two], None, &touched(&[])), two);
    }

    #[test]
    fn embedders_and_their_fields_that_shall_go_are_named() {
        let truth = values(json!({"embedders": {"a": {"source": "x"}, "b": {"source": "y"}}}));
        let node = values(json!({"embedders": {
            "a": {"source": "x", "url": "u"}, "b": {"source": "y"}, "c": {"source": "z"}
        }}));
        let patch = json!({"embedders": {"a": {"source": "x", "url": null}, "c": null}});
        assert_eq!(difference(&truth, &node), values(patch));
    }

    #[test]
    fn a_setting_that_a_node_does_not_have_is_no_difference() {
        let truth = values(json!({"a": 1, "chat": {}}));
        assert!(difference(&truth, &values(json!({"a": 1}))).is_empty());
    }
}
