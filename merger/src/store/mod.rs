//! The store: a small ordered map with versions, in which tasks, placements, in-sync sets and epochs live.
//! Documents never do.
//!
//! Invariant: a commit is all or nothing, and durable when it returns `Ok`; what was committed before it is durable with it.

#[cfg(test)]
pub(crate) mod memory;
mod redb;

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use self::redb::RedbStore;

/// How long a commit may stay unsynced.
pub const UNSYNCED: Duration = Duration::from_millis(100);

/// The pause of who has [patience](Patience).
const AGAIN: Duration = Duration::from_millis(200);

/// A value with the version that its last change gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Counts the key's changes from 1.
    pub version: u64,
    /// The bytes.
    pub value: Vec<u8>,
}

/// What must be true of a key for a commit to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: the last writer wins.
    Anything,
    /// The key isn't there.
    Absent,
    /// The key is at this version.
    Version(u64),
}

/// One change of a commit.
#[derive(Debug, Clone)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The new bytes; `None` deletes the key.
    pub value: Option<Vec<u8>>,
    /// The condition.
    pub expect: Expect,
}

impl Change {
    /// Puts whatever was there.
    pub fn put(key: impl Into<String>, value: Vec<u8>) -> Self {
        Self {
            key: key.into(),
            value: Some(value),
            expect: Expect::Anything,
        }
    }

    /// Puts if `expect` holds.
    pub fn put_if(key: impl Into<String>, value: Vec<u8>, expect: Expect) -> Self {
        Self {
            key: key.into(),
            value: Some(value),
            expect,
        }
    }

    /// Deletes whatever was there.
    pub fn delete(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: None,
            expect: Expect::Anything,
        }
    }
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A condition of the commit didn't hold; nothing was changed.
    #[error("`{key}` was changed by somebody else")]
    Conflict {
        /// The first key whose condition didn't hold.
        key: String,
    },
    /// The disk or the file.
    #[error("the store failed: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store was closed while the request was under way.
    #[error("the store is closed")]
    Closed,
}

/// The store's interface.
pub trait Store: Send + Sync {
    /// The value of a key.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>>;

    /// Applies all changes, or none.
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// As [`commit`](Self::commit), but a crash within [`UNSYNCED`] may undo it, unless another commit has made it durable: for
    /// what can be found out again.
    fn commit_unsynced(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.commit(changes)
    }

    /// All keys with a prefix, in order.
    fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>>;

    /// Gives back the room that deleted keys took, while others wait; the sizes before and after in bytes. `None` for a store
    /// that does so by itself.
    fn compact(&self) -> BoxFuture<'_, Result<Option<(u64, u64)>, StoreError>> {
        Box::pin(async { Ok(None) })
    }
}

/// Tries again until the store has done it: for what nobody is told has failed, and what would else be wrong until a restart.
#[derive(Debug)]
pub struct Patience {
    what: &'static str,
    complained: bool,
}

impl Patience {
    /// For what is to be stored, as the log calls it.
    pub fn with(what: &'static str) -> Self {
        Self {
            what,
            complained: false,
        }
    }

    /// Waits before the next attempt, or ends: with what was done, or with `None` if it never can be.
    pub async fn after<T>(&mut self, outcome: Result<T, StoreError>) -> ControlFlow<Option<T>> {
        let what = self.what;
        match outcome {
            Ok(done) => return ControlFlow::Break(Some(done)),
            Err(error @ StoreError::Failed(_)) => {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::error!(what, %error, "can't be stored; it is tried again");
                }
            }
            Err(error) => {
                tracing::error!(what, %error, "can't be stored");
                return ControlFlow::Break(None);
            }
        }
        tokio::time::sleep(AGAIN).await;
        ControlFlow::Continue(())
    }
}
