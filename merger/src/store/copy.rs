//! Copies the whole state from one store to another, and compares the two afterwards.

use sha2::{Digest, Sha256};

use super::{Change, Store, StoreError, Versioned};

/// How many entries, and how many bytes, a commit of the copy has at most.
const ENTRIES: usize = 100;
const BYTES: usize = 512 << 10;

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// How many entries.
    pub entries: usize,
    /// SHA-256 over all keys and values, in hexadecimal.
    pub digest: String,
}

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The target holds something.
    #[error("the target holds {0} entries already: a copy needs an empty one")]
    NotEmpty(usize),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The two differ afterwards.
    #[error("the copy differs: {} entries with digest {}, instead of {} with {}", copied.entries, copied.digest, wanted.entries, wanted.digest)]
    Differs {
        /// What was to be copied.
        wanted: Copied,
        /// What the target holds.
        copied: Copied,
    },
}

/// Copies all entries to an empty store, and reads them from there. Versions begin anew.
///
/// # Errors
/// The target isn't empty, or one of the stores failed: then the target holds a part.
pub async fn copy(from: &dyn Store, to: &dyn Store) -> Result<Copied, CopyError> {
    let there = to.range("").await?.len();
    if there > 0 {
        return Err(CopyError::NotEmpty(there));
    }
    let entries = from.range("").await?;
    let wanted = sum(&entries);
    let (mut changes, mut bytes) = (Vec::new(), 0);
    for (key, Versioned { value, .. }) in entries {
        let size = key.len() + value.len();
        if changes.len() == ENTRIES || (bytes + size > BYTES && !changes.is_empty()) {
            // The last commit makes them durable.
            to.commit_unsynced(std::mem::take(&mut changes)).await?;
            bytes = 0;
        }
        bytes += size;
        changes.push(Change::put(key, value));
    }
    to.commit(changes).await?;
    let copied = sum(&to.range("").await?);
    match copied == wanted {
        true => Ok(copied),
        false => Err(CopyError::Differs { wanted, copied }),
    }
}

fn sum(entries: &[(String, Versioned)]) -> Copied {
    let mut digest = Sha256::new();
    for (key, Versioned { value, .. }) in entries {
        // With the lengths, so that no two lists of entries look the same.
        digest.update((key.len() as u64).to_be_bytes());
        digest.update(key);
        digest.update((value.len() as u64).to_be_bytes());
        digest.update(value);
    }
    let digest = digest.finalize();
    Copied {
        entries: entries.len(),
        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::store::memory::MemoryStore;

    async fn filled() -> MemoryStore {
        let store = MemoryStore::default();
        for n in 0..250_u32 {
            let value = vec![7; (n as usize) * 100];
            let change = Change::put(format!("k/{n:03}"), value);
            store.commit(vec![change.clone()]).await.unwrap();
            store.commit(vec![change]).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn all_entries_are_copied_and_begin_anew() {
        let (from, to) = (filled().await, MemoryStore::default());
        let copied = copy(&from, &to).await.unwrap();
        assert_eq!(copied.entries, 250);
        assert_eq!(copied, sum(&from.range("").await.unwrap()));
        assert_eq!(to.get("k/249").await.unwrap().unwrap().version, 1);
    }

    #[tokio::test]
    async fn nothing_that_is_there_is_overwritten() {
        let (from, to) = (filled().await, MemoryStore::default());
        to.commit(vec![Change::put("a", vec![])]).await.unwrap();
        let refused = copy(&from, &to).await;
        assert!(matches!(refused, Err(CopyError::NotEmpty(1))));
        assert_eq!(to.range("").await.unwrap().len(), 1);
    }

    /// Loses the last byte of each value.
    struct Careless(MemoryStore);

    impl Store for Careless {
        fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
            self.0.get(key)
        }

        fn commit(&self, mut changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
            for change in &mut changes {
                if let Some(value) = &mut change.value {
                    value.pop();
                }
            }
            self.0.commit(changes)
        }

        fn range<'a>(
            &'a self,
            prefix: &'a str,
        ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
            self.0.range(prefix)
        }
    }

    #[tokio::test]
    async fn a_copy_that_differs_is_no_copy() {
        let (from, to) = (filled().await, Careless(MemoryStore::default()));
        let refused = copy(&from, &to).await;
        assert!(matches!(refused, Err(CopyError::Differs { .. })));
    }
}
