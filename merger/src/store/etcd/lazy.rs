//! Changes whose callers don't wait for etcd: they go with the next commit that somebody waits for, or after a moment by themselves.
//! Until they are stored, reads of their keys find them here.
//!
//! Invariant: a change of a key is tried again only as long as nobody has changed the key since.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::Change;

/// What etcd doesn't have yet.
#[derive(Debug, Default)]
pub(super) struct Lazy(Mutex<Pending>);

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By key: its value, and the number of the last commit that changes it.
    keys: BTreeMap<String, (u64, Option<Vec<u8>>)>,
    commits: u64,
}

impl Lazy {
    pub(super) fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value that etcd doesn't have yet; `None` if there is nothing of this key.
    #[allow(clippy::option_option, reason = "a deletion isn't nothing")]
    pub(super) fn value(&self, key: &str) -> Option<Option<Vec<u8>>> {
        let pending = self.lock();
        pending.keys.get(key).map(|(_, value)| value.clone())
    }

    /// Whether there is anything below this prefix.
    pub(super) fn has_some(&self, prefix: &str) -> bool {
        let pending = self.lock();
        let mut from = pending.keys.range(prefix.to_owned()..);
        from.next().is_some_and(|(key, _)| key.starts_with(prefix))
    }
}

impl Pending {
    /// Notes changes that etcd gets later. Returns the number of their commit.
    pub(super) fn put(&mut self, changes: &[Change]) -> u64 {
        self.commits += 1;
        for Change { key, value, .. } in changes {
            let entry = (self.commits, value.clone());
            self.keys.insert(key.clone(), entry);
        }
        self.commits
    }

    /// Notes a commit that somebody waits for: from now on it is the last one of its keys. Returns its number, or `None` if it has
    /// nothing to do with what is noted.
    pub(super) fn overtake(&mut self, changes: &[Change]) -> Option<u64> {
        if self.keys.is_empty() {
            return None;
        }
        let number = self.commits + 1;
        let mut any = false;
        for change in changes {
            if let Some((last, _)) = self.keys.get_mut(&change.key) {
                *last = number;
                any = true;
            }
        }
        any.then(|| self.commits = number)?;
        Some(number)
    }

    /// Forgets what a commit has stored, where it is the last one.
    pub(super) fn stored<'a>(&mut self, number: u64, keys: impl IntoIterator<Item = &'a str>) {
        for key in keys {
            if self.keys.get(key).is_some_and(|(last, _)| *last == number) {
                self.keys.remove(key);
            }
        }
    }

    /// Those of a commit's changes that nobody has overtaken.
    pub(super) fn left(&self, number: u64, changes: Vec<Change>) -> Vec<Change> {
        let is_last = |change: &Change| {
            let entry = self.keys.get(&change.key);
            entry.is_some_and(|(last, _)| *last == number)
        };
        changes.into_iter().filter(is_last).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: u8) -> Change {
        Change::put(key, vec![value])
    }

    #[test]
    fn a_key_is_here_until_its_last_change_is_stored() {
        let lazy = Lazy::default();
        let first = [put("a", 1), Change::delete("b")];
        let one = lazy.lock().put(&first);
        assert_eq!(lazy.value("a"), Some(Some(vec![1])));
        assert_eq!((lazy.value("b"), lazy.value("c")), (Some(None), None));
        let two = lazy.lock().put(&[put("a", 2)]);
        lazy.lock().stored(one, ["a", "b"]);
        assert_eq!(lazy.value("a"), Some(Some(vec![2])));
        assert_eq!(lazy.value("b"), None);
        assert!(lazy.has_some("") && lazy.has_some("a") && !lazy.has_some("b"));
        lazy.lock().stored(two, ["a"]);
        assert!(!lazy.has_some(""));
    }

    #[test]
    fn what_was_overtaken_is_not_tried_again() {
        let lazy = Lazy::default();
        assert_eq!(lazy.lock().overtake(&[put("a", 0)]), None);
        let changes = vec![put("a", 1), put("b", 1)];
        let one = lazy.lock().put(&changes);
        assert_eq!(lazy.lock().overtake(&[put("c", 0)]), None);
        let two = lazy.lock().overtake(&[Change::delete("a")]).unwrap();
        let left = lazy.lock().left(one, changes);
        assert_eq!(
            left.iter().map(|left| &*left.key).collect::<Vec<_>>(),
            ["b"]
        );
        lazy.lock().stored(two, ["a"]);
        lazy.lock().stored(one, ["b"]);
        assert!(!lazy.has_some(""));
    }
}
