//! Which fields any shard of an index knows, remembered for a minute.
//!
//! An index never forgets a field, not even when all its documents are deleted; only deleting the index removes it. So a
//! known field stays known until the index is deleted, or its name is given to another index. An unknown field is never
//! remembered as unknown: any document may introduce it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

/// Older entries are asked for again.
const STALE: Duration = Duration::from_secs(60);
/// The most fields that are remembered of an index. Beyond this, all of its fields are forgotten.
const MOST_FIELDS: usize = 2_000;
/// The most indexes that are remembered. Beyond this, all are forgotten.
const MOST_INDEXES: usize = 1_000;

/// The remembered fields.
#[derive(Debug, Default)]
pub struct KnownFields {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Incremented each time something is forgotten, so that an answer from before isn't remembered afterwards.
    forgotten: u64,
    indexes: HashMap<String, HashMap<String, Instant>>,
}

/// When a question was asked, to decide whether its answer may still be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

impl KnownFields {
    /// Forgets an index's fields.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.lock();
        inner.forgotten += 1;
        inner.indexes.remove(uid);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        let mut inner = self.lock();
        inner.forgotten += 1;
        inner.indexes.clear();
    }

    /// The mark to take before the shards are asked.
    pub fn mark(&self) -> Mark {
        Mark(self.lock().forgotten)
    }

    /// True if the field is known to some shard.
    pub fn knows(&self, uid: &str, field: &str) -> bool {
        let inner = self.lock();
        let since = inner.indexes.get(uid).and_then(|fields| fields.get(field));
        since.is_some_and(|since| since.elapsed() < STALE)
    }

    /// Remembers a field that a shard knew after `mark` was taken.
    pub fn remember(&self, mark: Mark, uid: &str, field: &str) {
        let mut inner = self.lock();
        if inner.forgotten != mark.0 {
            return;
        }
        if inner.indexes.len() >= MOST_INDEXES && !inner.indexes.contains_key(uid) {
            inner.indexes.clear();
        }
        let fields = inner.indexes.entry_ref(uid).or_default();
        if fields.len() >= MOST_FIELDS {
            fields.clear();
        }
        fields.insert(field.to_owned(), Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_remembered_until_its_index_goes() {
        let known = KnownFields::default();
        let mark = known.mark();
        known.remember(mark, "x", "a");
        assert!(known.knows("x", "a") && !known.knows("x", "b") && !known.knows("y", "a"));
        known.forget("x");
        assert!(!known.knows("x", "a"));
        known.remember(mark, "x", "a");
        assert!(!known.knows("x", "a"), "it was asked for before");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = KnownFields::default();
        for at in 0..MOST_FIELDS * 2 + 1 {
            known.remember(known.mark(), "x", &at.to_string());
        }
        assert_eq!(known.lock().indexes["x"].len(), 1);
        for at in 0..MOST_INDEXES {
            known.remember(known.mark(), &at.to_string(), "a");
        }
        assert!(known.lock().indexes.len() <= MOST_INDEXES);
    }
}
