//! What shards said about indexes, remembered for a minute or until it is forgotten.

use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{Equivalent, HashMap};
use tokio::time::Instant;

/// Older values are asked for again: someone may have written to a node directly, past Weft.
const STALE: Duration = Duration::from_secs(60);
/// The most indexes that are remembered. Beyond this, all are forgotten.
const MOST_INDEXES: usize = 1_000;

/// A value of each key of each index. Of more than `MOST` keys of an index, all are forgotten.
#[derive(Debug)]
pub struct Remembered<K, V, const MOST: usize> {
    inner: Mutex<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    /// Incremented each time something is forgotten, so that an answer from before isn't remembered afterwards.
    forgotten: u64,
    indexes: HashMap<String, HashMap<K, (V, Instant)>>,
}

/// When a question was asked, to decide whether its answer may still be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

impl<K, V, const MOST: usize> Default for Remembered<K, V, MOST> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                forgotten: 0,
                indexes: HashMap::new(),
            }),
        }
    }
}

impl<K: Eq + Hash, V: Clone, const MOST: usize> Remembered<K, V, MOST> {
    /// Forgets what is known about an index.
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

    /// The value, if it is known.
    pub fn look<Q>(&self, uid: &str, key: &Q) -> Option<V>
    where
        Q: Equivalent<K> + Hash + ?Sized,
    {
        let inner = self.lock();
        let (value, since) = inner.indexes.get(uid)?.get(key)?;
        (since.elapsed() < STALE).then(|| value.clone())
    }

    /// Remembers what shards said after `mark` was taken.
    pub fn remember(&self, mark: Mark, uid: &str, said: Vec<(K, V)>) {
        let mut inner = self.lock();
        if inner.forgotten != mark.0 {
            return;
        }
        if inner.indexes.len() >= MOST_INDEXES && !inner.indexes.contains_key(uid) {
            inner.indexes.clear();
        }
        let known = inner.indexes.entry_ref(uid).or_default();
        if known.len() + said.len() > MOST {
            known.clear();
        }
        let now = Instant::now();
        known.extend(said.into_iter().map(|(key, value)| (key, (value, now))));
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Few = Remembered<String, u8, 3>;

    fn remember(known: &Few, mark: Mark, uid: &str, key: &str) {
        known.remember(mark, uid, vec![(key.to_owned(), 7)]);
    }

    #[test]
    fn what_was_asked_before_a_forgetting_is_not_remembered_after_it() {
        let known = Few::default();
        let mark = known.mark();
        remember(&known, mark, "x", "a");
        assert_eq!(known.look("x", "a"), Some(7));
        assert_eq!((known.look("x", "b"), known.look("y", "a")), (None, None));
        for forget in [
            |known: &Few| known.forget("x"),
            |known: &Few| known.forget_all(),
        ] {
            let mark = known.mark();
            forget(&known);
            assert_eq!(known.look("x", "a"), None);
            remember(&known, mark, "x", "a");
            assert_eq!(known.look("x", "a"), None, "it was asked for before");
            remember(&known, known.mark(), "x", "a");
            assert_eq!(known.look("x", "a"), Some(7));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_for_long_is_asked_for_again() {
        let known = Few::default();
        remember(&known, known.mark(), "x", "a");
        tokio::time::advance(STALE - Duration::from_millis(1)).await;
        remember(&known, known.mark(), "x", "b");
        assert_eq!(known.look("x", "a"), Some(7));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(
            (known.look("x", "a"), known.look("x", "b")),
            (None, Some(7))
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = Few::default();
        for key in ["a", "b", "c"] {
            remember(&known, known.mark(), "x", key);
        }
        assert_eq!(known.lock().indexes["x"].len(), 3);
        remember(&known, known.mark(), "x", "d");
        assert_eq!(known.lock().indexes["x"].len(), 1);
        for at in 0..MOST_INDEXES {
            remember(&known, known.mark(), &at.to_string(), "a");
        }
        assert!(known.lock().indexes.len() <= MOST_INDEXES);
    }
}
