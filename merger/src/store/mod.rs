//! The store: a small ordered map with versions for tasks, placements, in-sync sets and epochs. It never holds documents.
//!
//! Invariant: a commit is all or nothing, and durable when [`Store::commit`] returns `Ok`. Every commit before it is durable then
//! too. Two implementations: [`RedbStore`], a file for a single merger, and [`EtcdStore`], an etcd for several.

mod copy;
mod etcd;
#[cfg(test)]
pub(crate) mod memory;
mod redb;
mod snapshot;

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use self::copy::{Copied, CopyError, copy};
#[cfg(test)]
pub(crate) use self::etcd::is_read_by_followers;
pub use self::etcd::{
    EtcdStore, IdentityError, News, Read, StateReader, begin_copy, check_identity, claim, end_copy,
    forget_history, refuse_unfinished,
};
pub use self::redb::RedbStore;
pub use self::snapshot::Snapshot;

/// How long a commit may stay unsynced.
pub const UNSYNCED: Duration = Duration::from_millis(100);

/// The pause between attempts with [patience](Patience).
const AGAIN: Duration = Duration::from_millis(200);

/// A value with the version that its last change gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Counts the changes of the key from 1; it starts again after a deletion.
    pub version: u64,
    /// The stored bytes.
    pub value: Vec<u8>,
}

/// What must be true of a key for a commit to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No condition: the last writer wins.
    Anything,
    /// The key doesn't exist.
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
    /// The condition on the key before the commit.
    pub expect: Expect,
}

impl Change {
    /// Sets the key, whatever it held before.
    pub fn put(key: impl Into<String>, value: Vec<u8>) -> Self {
        Self {
            key: key.into(),
            value: Some(value),
            expect: Expect::Anything,
        }
    }

    /// Sets the key if `expect` holds.
    pub fn put_if(key: impl Into<String>, value: Vec<u8>, expect: Expect) -> Self {
        Self {
            key: key.into(),
            value: Some(value),
            expect,
        }
    }

    /// Deletes the key, whatever it held before.
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
    /// The disk or the file failed.
    #[error("the store failed: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store was closed while the request waited.
    #[error("the store is closed")]
    Closed,
    /// This merger doesn't lead any more; nothing was changed.
    #[error("another merger leads, or none: this one changes nothing any more")]
    NotLeader,
    /// This merger stopped leading before it heard whether the commit was made.
    #[error("this merger stopped leading before it heard whether its change was made")]
    Unsettled,
    /// A newer merger has written the state.
    #[error(
        "the state has the format {found}, and this merger knows none newer than {known}: it needs a newer merger"
    )]
    NewerFormat {
        /// The format of the state.
        found: u64,
        /// The newest that this merger knows.
        known: u64,
    },
    /// A value is larger than the store takes; nothing was changed.
    #[error("the value of `{key}` has {bytes} bytes, and the store takes {most}")]
    TooLarge {
        /// The key.
        key: String,
        /// The value's size.
        bytes: usize,
        /// The largest that is taken.
        most: usize,
    },
}

/// Some of the entries of a range, in the order of the keys.
#[derive(Debug)]
pub struct RangePage {
    /// The entries.
    pub entries: Vec<(String, Versioned)>,
    /// Whether there may be entries after them.
    pub more: bool,
}

/// The interface of a store.
pub trait Store: Send + Sync {
    /// The value of a key.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>>;

    /// Applies all changes, or none.
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Like [`commit`](Self::commit), but a crash within [`UNSYNCED`] may undo it, unless a later commit has made it durable. For
    /// facts that can be found out again.
    fn commit_unsynced(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.commit(changes)
    }

    /// All entries whose keys have a prefix, in the order of the keys.
    fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>>;

    /// Some of the entries of a [`range`](Self::range): those after the key `after`, or the first ones. For ranges that may be larger
    /// than what should be in memory at once. A store that has them in memory anyway gives all.
    fn page<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<RangePage, StoreError>> {
        Box::pin(async move {
            let mut entries = self.range(prefix).await?;
            entries.retain(|(key, _)| after.is_none_or(|after| key.as_str() > after));
            let more = false;
            Ok(RangePage { entries, more })
        })
    }

    /// Frees the space of deleted keys in the file, while other requests wait. Returns the sizes before and after in bytes, or
    /// `None` for a store that needs no compaction.
    fn compact(&self) -> BoxFuture<'_, Result<Option<(u64, u64)>, StoreError>> {
        Box::pin(async { Ok(None) })
    }
}

/// Retries until the store has committed: for changes whose failure no caller would see, and that would otherwise be missing
/// until a restart.
#[derive(Debug)]
pub struct Patience {
    what: &'static str,
    complained: bool,
}

impl Patience {
    /// `what` names the change in the log.
    pub fn with(what: &'static str) -> Self {
        Self {
            what,
            complained: false,
        }
    }

    /// Waits before the next attempt. Or ends: with the result, or with `None` if the store can never do it.
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
