//! The embedded store: one redb file. Commits that wait at the same time share one transaction, and so one fsync. Commits that
//! need no fsync wait for the next one that does, or for [`UNSYNCED`].
//!
//! redb refuses to use a file after a failed write, as on a full disk. So the writer opens the file again until that succeeds,
//! and until then every commit fails. Commits that were not synced yet are kept meanwhile and written first.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};
use tokio::sync::oneshot;

use super::{Change, Expect, RangePage, Store, StoreError, UNSYNCED, Versioned};

const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");

/// What the file says of itself.
const ABOUT: TableDefinition<'static, &str, u64> = TableDefinition::new("about");

/// The format of the entries, in [`ABOUT`]; missing in files of mergers that knew only one.
const FORMAT_KEY: &str = "format";

/// The format that this merger writes, and the newest that it reads. Since 2, writes that went together have one record.
const FORMAT: u64 = 2;
/// The format before, and of files that don't say one.
const OLDER_FORMAT: u64 = 1;

/// How much of the file redb keeps in memory, in bytes: enough for the pages of the newest tasks, which are read and changed
/// most. redb's default is up to a gigabyte.
const CACHE_BYTES: usize = 64 << 20;

/// How many entries a page of a range has at most.
const PAGE: usize = 10_000;

/// How many commits share a transaction at most.
const MAX_GROUP: usize = 512;

/// The pause between attempts to open a file that failed.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// A store in one file, for a single merger.
pub struct RedbStore {
    file: Arc<File>,
    /// Taken when the store closes, which stops the writer.
    commits: Option<Sender<Commit>>,
    writer: Option<JoinHandle<()>>,
}

struct File {
    path: PathBuf,
    keeps_format: bool,
    /// Read-locked by all uses except a compaction and a reopening, which lock it exclusively. `None` between a failure and the
    /// next opening.
    database: RwLock<Option<Database>>,
}

struct Commit {
    changes: Vec<Change>,
    synced: bool,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl File {
    fn open(path: &Path, keeps_format: bool) -> Result<Database, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(failed)?;
        let transaction = database.begin_write().map_err(failed)?;
        transaction.open_table(ENTRIES).map_err(failed)?;
        {
            let mut about = transaction.open_table(ABOUT).map_err(failed)?;
            let found = about.get(FORMAT_KEY).map_err(failed)?;
            let found = found.map(|found| found.value());
            match found {
                Some(found) if found > FORMAT => {
                    return Err(StoreError::NewerFormat {
                        found,
                        known: FORMAT,
                    });
                }
                Some(_) if keeps_format => {}
                None if keeps_format => {
                    drop(about.insert(FORMAT_KEY, OLDER_FORMAT).map_err(failed)?)
                }
                Some(FORMAT) => {}
                // From now on there may be entries that older mergers can't read.
                Some(_) | None => drop(about.insert(FORMAT_KEY, FORMAT).map_err(failed)?),
            }
        }
        transaction.commit().map_err(failed)?;
        Ok(database)
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        work(database.as_ref().ok_or_else(closed_for_now)?)
    }

    /// Like [`with`](Self::with), but returns `None` at once if the file is locked exclusively.
    fn try_with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Option<Result<T, StoreError>> {
        let database = match self.database.try_read() {
            Ok(database) => database,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(database.as_ref().ok_or_else(closed_for_now).and_then(work))
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Option<Database>> {
        self.database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn compact(&self) -> Result<Option<(u64, u64)>, StoreError> {
        let size = || std::fs::metadata(&self.path).map(|file| file.len());
        let mut database = self.alone();
        let database = database.as_mut().ok_or_else(closed_for_now)?;
        let before = size().map_err(failed)?;
        database.compact().map_err(failed)?;
        Ok(Some((before, size().map_err(failed)?)))
    }
}

fn closed_for_now() -> StoreError {
    StoreError::Failed("its file failed, and is opened again".into())
}

impl RedbStore {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// The file can't be opened, is damaged, or another process holds it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::begin(path, false)
    }

    /// As [`open`](Self::open), and the file keeps the format that it has, so that an older merger can open it again. Nothing may be
    /// stored that only the newest format has.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_as_it_is(path: &Path) -> Result<Self, StoreError> {
        Self::begin(path, true)
    }

    fn begin(path: &Path, keeps_format: bool) -> Result<Self, StoreError> {
        let database = RwLock::new(Some(File::open(path, keeps_format)?));
        let path = path.to_owned();
        let file = Arc::new(File {
            path,
            keeps_format,
            database,
        });
        let (commits, queue) = channel();
        let writer = Writer {
            file: Arc::clone(&file),
            unsynced: Unsynced::default(),
            open_again: None,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(failed)?;
        Ok(Self {
            file,
            commits: Some(commits),
            writer: Some(writer),
        })
    }

    /// Reads at once. While a compaction or a reopening holds the file, the read waits on a thread for blocking work, because the
    /// runtime's own threads must not block.
    async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Database) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        if let Some(outcome) = self.file.try_with(&work) {
            return outcome;
        }
        let file = Arc::clone(&self.file);
        let waiting = tokio::task::spawn_blocking(move || file.with(work));
        waiting.await.map_err(failed)?
    }

    /// The entries of a range after the key `after`, at most `most` of them.
    async fn entries(
        &self,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<RangePage, StoreError> {
        let prefix = prefix.to_owned();
        // The least key that is greater.
        let from = after.map_or_else(|| prefix.clone(), |after| format!("{after}\0"));
        self.read(move |database| {
            let read = database.begin_read().map_err(failed)?;
            let table = read.open_table(ENTRIES).map_err(failed)?;
            let (mut entries, mut more) = (Vec::new(), false);
            for entry in table.range(from.as_str()..).map_err(failed)? {
                let (key, value) = entry.map_err(failed)?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                if entries.len() == most {
                    more = true;
                    break;
                }
                entries.push((key.value().to_owned(), decode(value.value())));
            }
            Ok(RangePage { entries, more })
        })
        .await
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

/// Dropping the store waits for the writer, so that the file is free afterwards.
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
        let key = key.to_owned();
        Box::pin(self.read(move |database| {
            let read = database.begin_read().map_err(failed)?;
            let table = read.open_table(ENTRIES).map_err(failed)?;
            let value = table.get(key.as_str()).map_err(failed)?;
            Ok(value.map(|value| decode(value.value())))
        }))
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
        Box::pin(async move { Ok(self.entries(prefix, None, usize::MAX).await?.entries) })
    }

    fn page<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<RangePage, StoreError>> {
        Box::pin(self.entries(prefix, after, PAGE))
    }

    fn compact(&self) -> BoxFuture<'_, Result<Option<(u64, u64)>, StoreError>> {
        let file = Arc::clone(&self.file);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || file.compact())
                .await
                .map_err(failed)?
        })
    }
}

/// Commits that are not durable yet.
#[derive(Default)]
struct Unsynced {
    since: Option<Instant>,
    commits: Vec<Vec<Change>>,
}

/// The only writer of the file, on its own thread.
struct Writer {
    file: Arc<File>,
    unsynced: Unsynced,
    /// When to open the file again, after it failed.
    open_again: Option<Instant>,
}

impl Writer {
    /// Takes the waiting commits, applies them in one transaction and answers them. Ends when the store closes.
    fn run(mut self, queue: &Receiver<Commit>) {
        loop {
            let sync_at = self.unsynced.since.map(|since| since + UNSYNCED);
            let first = match self.open_again.or(sync_at) {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => queue.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let mut group = match first {
                Ok(first) => vec![first],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                // An ordinary end syncs unsynced commits when the database is dropped.
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while group.len() < MAX_GROUP
                && let Ok(next) = queue.try_recv()
            {
                group.push(next);
            }
            if self.open_again.is_some_and(|at| at <= Instant::now()) {
                self.open_again();
            }
            match self.write(&group) {
                Ok(verdicts) => self.answer(group, verdicts),
                Err(error) => {
                    let text = error.to_string();
                    if self.open_again.is_none() {
                        tracing::error!(error = text, "the store's file fails: it is opened again");
                        // Reopened at once: the problem may be over.
                        self.open_again = Some(Instant::now());
                    }
                    for commit in group {
                        let error = StoreError::Failed(text.clone().into());
                        let _ = commit.done.send(Err(error));
                    }
                }
            }
        }
    }

    fn write(&self, group: &[Commit]) -> Result<Verdicts, StoreError> {
        let since = self.unsynced.since;
        let due = since.is_some_and(|since| since.elapsed() >= UNSYNCED);
        let synced = due || group.iter().any(|commit| commit.synced);
        if group.is_empty() && !due {
            return Ok(Verdicts::default());
        }
        self.file.with(|database| {
            let changes = group.iter().map(|commit| commit.changes.as_slice());
            let verdicts = write_group(database, changes, synced)?;
            Ok(Verdicts { verdicts, synced })
        })
    }

    fn answer(&mut self, group: Vec<Commit>, Verdicts { verdicts, synced }: Verdicts) {
        if synced {
            self.unsynced = Unsynced::default();
        }
        for (commit, verdict) in group.into_iter().zip(verdicts) {
            if !synced && verdict.is_ok() {
                self.unsynced.since.get_or_insert_with(Instant::now);
                self.unsynced.commits.push(commit.changes);
            }
            let _ = commit.done.send(verdict);
        }
    }

    fn open_again(&mut self) {
        // The file can't be opened twice, so it is closed first.
        drop(self.file.alone().take());
        match self.reopened_with_unsynced() {
            Ok(database) => {
                *self.file.alone() = Some(database);
                self.unsynced = Unsynced::default();
                self.open_again = None;
                tracing::warn!("the store's file is open again");
            }
            Err(error) => {
                tracing::debug!(%error, "the store's file can't be opened yet");
                self.open_again = Some(Instant::now() + OPEN_AGAIN);
            }
        }
    }

    fn reopened_with_unsynced(&self) -> Result<Database, StoreError> {
        let database = File::open(&self.file.path, self.file.keeps_format)?;
        // The commits are applied one by one, so that each key gets the same version as before, and each condition holds again.
        let lost = self.unsynced.commits.iter().map(Vec::as_slice);
        write_group(&database, lost, true)?;
        Ok(database)
    }
}

/// The outcome of each commit of a group.
#[derive(Default)]
struct Verdicts {
    verdicts: Vec<Result<(), StoreError>>,
    /// Whether all of them are durable.
    synced: bool,
}

fn write_group<'a>(
    database: &Database,
    group: impl Iterator<Item = &'a [Change]>,
    synced: bool,
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let durability = match synced {
        true => Durability::Immediate,
        false => Durability::None,
    };
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(durability).map_err(failed)?;
    let verdicts = {
        let mut table = transaction.open_table(ENTRIES).map_err(failed)?;
        group
            .map(|changes| apply(&mut table, changes))
            .collect::<Result<_, _>>()?
    };
    transaction.commit().map_err(failed)?;
    Ok(verdicts)
}

/// Applies one commit, or nothing of it. The outer error fails the whole group, the inner one only this commit.
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

/// Decodes an entry: its version (8 bytes, big-endian), then the value.
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
mod tests;
