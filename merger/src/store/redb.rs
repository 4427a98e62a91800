//! The embedded store: one redb file. Neighbouring commits share one transaction, and so one fsync; those that need none wait for
//! the next that does.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use futures_util::future::BoxFuture;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};
use tokio::sync::oneshot;

use super::{Change, Expect, Store, StoreError, UNSYNCED, Versioned};

const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");

/// How much of the file is kept in memory, in bytes: the paths to the newest tasks, which are read and changed most. By default redb
/// would take up to a gigabyte.
const CACHE_BYTES: usize = 64 << 20;

/// How many commits share a transaction at most.
const MAX_GROUP: usize = 512;

/// A store in one file, for a single merger.
pub struct RedbStore {
    /// Shared by all but a compaction, which needs it alone.
    database: Arc<RwLock<Database>>,
    path: PathBuf,
    /// Taken when the store closes, which ends the writer.
    commits: Option<Sender<Commit>>,
    writer: Option<JoinHandle<()>>,
}

struct Commit {
    changes: Vec<Change>,
    synced: bool,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl RedbStore {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file can't be opened, is damaged, or another process holds it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(failed)?;
        let transaction = database.begin_write().map_err(failed)?;
        transaction.open_table(ENTRIES).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        let database = Arc::new(RwLock::new(database));
        let (commits, queue) = channel();
        let shared = Arc::clone(&database);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write_groups(&shared, &queue))
            .map_err(failed)?;
        Ok(Self {
            database,
            path: path.to_owned(),
            commits: Some(commits),
            writer: Some(writer),
        })
    }

    fn send(&self, changes: Vec<Change>, synced: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        let (done, outcome) = oneshot::channel();
        let commit = Commit {
            changes,
            synced,
            done,
        };
        let sent = self.commits.as_ref().map(|commits| commits.send(commit));
        Box::pin(async move {
            sent.ok_or(StoreError::Closed)?
                .map_err(|_| StoreError::Closed)?;
            outcome.await.map_err(|_| StoreError::Closed)?
        })
    }
}

/// Waits for the writer, so that the file is free when the store is gone.
impl Drop for RedbStore {
    fn drop(&mut self) {
        drop(self.commits.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Store for RedbStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(async move {
            let read = shared(&self.database).begin_read().map_err(failed)?;
            let table = read.open_table(ENTRIES).map_err(failed)?;
            let value = table.get(key).map_err(failed)?;
            Ok(value.map(|value| decode(value.value())))
        })
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.send(changes, true)
    }

    fn commit_unsynced(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.send(changes, false)
    }

    fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        Box::pin(async move {
            let read = shared(&self.database).begin_read().map_err(failed)?;
            let table = read.open_table(ENTRIES).map_err(failed)?;
            let mut found = Vec::new();
            for entry in table.range(prefix..).map_err(failed)? {
                let (key, value) = entry.map_err(failed)?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_owned(), decode(value.value())));
            }
            Ok(found)
        })
    }

    fn compact(&self) -> BoxFuture<'_, Result<Option<(u64, u64)>, StoreError>> {
        let (database, path) = (Arc::clone(&self.database), self.path.clone());
        Box::pin(async move {
            let size = |path: &Path| std::fs::metadata(path).map(|file| file.len());
            let compaction = move || {
                let mut database = database.write().unwrap_or_else(PoisonError::into_inner);
                let before = size(&path).map_err(failed)?;
                database.compact().map_err(failed)?;
                Ok(Some((before, size(&path).map_err(failed)?)))
            };
            tokio::task::spawn_blocking(compaction)
                .await
                .map_err(failed)?
        })
    }
}

fn shared(database: &RwLock<Database>) -> RwLockReadGuard<'_, Database> {
    database.read().unwrap_or_else(PoisonError::into_inner)
}

/// The writer's thread: takes what is waiting, applies it in one transaction, answers all. Ends with the store.
fn write_groups(database: &RwLock<Database>, queue: &Receiver<Commit>) {
    let mut unsynced: Option<Instant> = None;
    loop {
        let first = match unsynced {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(since) => queue.recv_timeout(UNSYNCED.saturating_sub(since.elapsed())),
        };
        let mut group = match first {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            // An ordinary end syncs what isn't.
            Err(RecvTimeoutError::Disconnected) => return,
        };
        while group.len() < MAX_GROUP
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        let is_due = unsynced.is_some_and(|since| since.elapsed() >= UNSYNCED);
        let durability = if is_due || group.iter().any(|commit| commit.synced) {
            Durability::Immediate
        } else {
            Durability::None
        };
        let verdicts = write_group(&shared(database), &group, durability);
        match verdicts {
            Ok(verdicts) => {
                unsynced = match durability {
                    Durability::None => unsynced.or_else(|| Some(Instant::now())),
                    _ => None,
                };
                for (commit, verdict) in group.into_iter().zip(verdicts) {
                    let _ = commit.done.send(verdict);
                }
            }
            Err(error) => {
                let text = error.to_string();
                if group.is_empty() {
                    tracing::error!(error = text, "what was committed could not be synced");
                    // Not at once again.
                    unsynced = Some(Instant::now());
                }
                for commit in group {
                    let _ = commit
                        .done
                        .send(Err(StoreError::Failed(text.clone().into())));
                }
            }
        }
    }
}

type Verdicts = Vec<Result<(), StoreError>>;

fn write_group(
    database: &Database,
    group: &[Commit],
    durability: Durability,
) -> Result<Verdicts, StoreError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(durability).map_err(failed)?;
    let verdicts = {
        let mut table = transaction.open_table(ENTRIES).map_err(failed)?;
        group
            .iter()
            .map(|commit| apply(&mut table, &commit.changes))
            .collect::<Result<Verdicts, _>>()?
    };
    transaction.commit().map_err(failed)?;
    Ok(verdicts)
}

/// Applies one commit, or nothing of it. The outer error spoils the whole group, the inner one this commit only.
fn apply(
    table: &mut Table<'_, &str, &[u8]>,
    changes: &[Change],
) -> Result<Result<(), StoreError>, StoreError> {
    let mut versions = Vec::with_capacity(changes.len());
    for change in changes {
        let current = table
            .get(change.key.as_str())
            .map_err(failed)?
            .map(|value| decode(value.value()).version);
        let holds = match change.expect {
            Expect::Anything => true,
            Expect::Absent => current.is_none(),
            Expect::Version(version) => current == Some(version),
        };
        if !holds {
            return Ok(Err(StoreError::Conflict {
                key: change.key.clone(),
            }));
        }
        versions.push(current.unwrap_or(0) + 1);
    }
    for (change, version) in changes.iter().zip(versions) {
        match &change.value {
            Some(value) => {
                let mut bytes = version.to_be_bytes().to_vec();
                bytes.extend_from_slice(value);
                table
                    .insert(change.key.as_str(), bytes.as_slice())
                    .map_err(failed)?;
            }
            None => {
                table.remove(change.key.as_str()).map_err(failed)?;
            }
        }
    }
    Ok(Ok(()))
}

/// An entry is its version (8 bytes, big-endian) and then the value.
fn decode(bytes: &[u8]) -> Versioned {
    match bytes.split_first_chunk::<8>() {
        Some((version, value)) => Versioned {
            version: u64::from_be_bytes(*version),
            value: value.to_vec(),
        },
        None => Versioned {
            version: 0,
            value: Vec::new(),
        },
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Failed(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, RedbStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = RedbStore::open(&folder.path().join("weft.redb")).unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn a_commit_whose_condition_fails_changes_nothing() {
        let (_folder, store) = store();
        store.commit(vec![Change::put("a", vec![1])]).await.unwrap();
        let refused = store
            .commit(vec![
                Change::put("b", vec![2]),
                Change::put_if("a", vec![3], Expect::Absent),
            ])
            .await;
        assert!(matches!(refused, Err(StoreError::Conflict { key }) if key == "a"));
        assert_eq!(store.get("b").await.unwrap(), None);
        assert_eq!(
            store.get("a").await.unwrap(),
            Some(Versioned {
                version: 1,
                value: vec![1]
            })
        );
    }

    #[tokio::test]
    async fn of_two_writers_that_saw_the_same_version_one_wins() {
        let (_folder, store) = store();
        store.commit(vec![Change::put("a", vec![1])]).await.unwrap();
        let (one, two) = tokio::join!(
            store.commit(vec![Change::put_if("a", vec![2], Expect::Version(1))]),
            store.commit(vec![Change::put_if("a", vec![3], Expect::Version(1))]),
        );
        assert!(one.is_ok() != two.is_ok());
        assert_eq!(store.get("a").await.unwrap().unwrap().version, 2);
    }

    #[tokio::test]
    async fn a_range_holds_the_prefix_and_nothing_else_in_order() {
        let (_folder, store) = store();
        let keys = ["task/2", "task/1", "tasks", "task", "placement/x"];
        store
            .commit(
                keys.iter()
                    .map(|key| Change::put(*key, Vec::new()))
                    .collect(),
            )
            .await
            .unwrap();
        let found: Vec<String> = store
            .range("task/")
            .await
            .unwrap()
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(found, ["task/1", "task/2"]);
    }

    #[tokio::test]
    async fn compacting_gives_room_back_and_keeps_what_is_there() {
        let (_folder, store) = store();
        let many = |value: Option<Vec<u8>>| {
            let change = |n: u32| match &value {
                Some(value) => Change::put(format!("k/{n}"), value.clone()),
                None => Change::delete(format!("k/{n}")),
            };
            (0..2_000).map(change).collect::<Vec<_>>()
        };
        store.commit(many(Some(vec![7; 2_000]))).await.unwrap();
        store.commit(vec![Change::put("a", vec![7])]).await.unwrap();
        store.commit(many(None)).await.unwrap();
        let unsynced = vec![Change::put("u", vec![9])];
        store.commit_unsynced(unsynced).await.unwrap();
        let (before, after) = store.compact().await.unwrap().unwrap();
        assert!(after < before / 2, "{before} bytes before, {after} after");
        assert_eq!(store.get("a").await.unwrap().unwrap().value, [7]);
        store.commit(vec![Change::put("b", vec![8])]).await.unwrap();
        assert_eq!(store.range("").await.unwrap().len(), 3);
    }

    /// What a crash at this moment would leave: the file as it is, under another name.
    async fn after_a_crash(folder: &Path) -> Vec<String> {
        let copy = folder.join("copy.redb");
        std::fs::copy(folder.join("weft.redb"), &copy).unwrap();
        let store = RedbStore::open(&copy).unwrap();
        let entries = store.range("").await.unwrap();
        entries.into_iter().map(|(key, _)| key).collect()
    }

    #[tokio::test]
    async fn what_is_not_synced_is_seen_at_once_and_survives_with_what_comes_after_it() {
        let (folder, store) = store();
        let put = |key: &str| vec![Change::put(key, vec![1])];
        store.commit(put("a")).await.unwrap();
        store.commit_unsynced(put("b")).await.unwrap();
        assert_eq!(store.range("").await.unwrap().len(), 2);
        store.commit(put("c")).await.unwrap();
        assert_eq!(after_a_crash(folder.path()).await, ["a", "b", "c"]);
        store.commit_unsynced(put("d")).await.unwrap();
        tokio::time::sleep(UNSYNCED * 3).await;
        assert_eq!(after_a_crash(folder.path()).await, ["a", "b", "c", "d"]);
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weft.redb");
        let store = RedbStore::open(&path).unwrap();
        store.commit(vec![Change::put("a", vec![7])]).await.unwrap();
        let unsynced = vec![Change::put("b", vec![8])];
        store.commit_unsynced(unsynced).await.unwrap();
        drop(store);
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(store.get("a").await.unwrap().unwrap().value, [7]);
        assert_eq!(store.get("b").await.unwrap().unwrap().value, [8]);
    }
}
