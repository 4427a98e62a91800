//! A store for tests: in memory, shared across simulated restarts, and able to fail or to delay commits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;

use super::{Change, Expect, Store, StoreError, Versioned};

/// Entries that outlive a simulated merger.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore {
    entries: Arc<Mutex<BTreeMap<String, Versioned>>>,
    fails: Arc<AtomicBool>,
    commits: Arc<AtomicUsize>,
    held: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryStore {
    /// Sets whether commits fail from now on.
    pub(crate) fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// Delays all commits until the guard is dropped.
    pub(crate) async fn hold(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.held).lock_owned().await
    }

    /// How many commits there were, including those that ended in a conflict.
    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Failed("told to".into()));
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let version = |entries: &BTreeMap<String, Versioned>, key: &str| {
            entries.get(key).map_or(0, |entry| entry.version)
        };
        for change in &changes {
            let holds = match change.expect {
                Expect::Anything => true,
                Expect::Absent => version(&entries, &change.key) == 0,
                Expect::Version(wanted) => version(&entries, &change.key) == wanted,
            };
            if !holds {
                return Err(StoreError::Conflict {
                    key: change.key.clone(),
                });
            }
        }
        for Change { key, value, .. } in changes {
            match value {
                Some(value) => {
                    let version = version(&entries, &key) + 1;
                    entries.insert(key, Versioned { version, value });
                }
                None => drop(entries.remove(&key)),
            }
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.get(key).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            drop(self.held.lock().await);
            self.apply(changes)
        })
    }

    fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Box::pin(async move { Ok(found) })
    }
}
