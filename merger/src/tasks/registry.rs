//! The task registry: all tasks in the store, the outstanding ones in memory, and a short note of each task for lists.
//!
//! This module creates, reads and lists tasks. [`progress`] takes over the nodes' answers about tasks, [`replicas`] notes which
//! copies count, [`shared`] ends writes that share a local task, [`open`] answers questions about open tasks and [`deletions`]
//! deletes tasks. [`renames`] makes tasks follow their indexes' names, [`removals`] remembers which indexes lost documents,
//! [`retention`] deletes old tasks, [`outbox`] keeps the follow-up work of tasks that have ended, and [`state`] is the memory
//! behind all of it.

mod deletions;
mod open;
mod outbox;
mod progress;
mod removals;
mod renames;
mod replicas;
mod retention;
mod shared;
mod state;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, mpsc};

use super::TaskError;
use super::aggregate;
use super::filter::Filter;
use super::record::{Enqueued, LateTicket, NewTask, TaskRecord, TaskView};
use crate::clock::now_utc;
use crate::cluster::{Changes, Marks};
use crate::store::{Change, Store};

pub use replicas::Applied;
pub use shared::SharedEnd;

use outbox::Outbox;
use state::State;

const PREFIX: &str = "task/";
/// The kind of the task that deletes tasks.
pub(super) const DELETION: &str = "taskDeletion";
/// The kind of the task that cancels tasks: the only one of those with a record that nodes number beside the writes.
pub(super) const CANCELATION: &str = "taskCancelation";
/// The store's key for the lowest uid that may be assigned next: deleting the newest tasks must not free their uids.
const FLOOR_KEY: &str = "task-floor";
/// How many records of a page are read from the store at a time.
const READ_AT_ONCE: usize = 16;

/// A task that has just settled, for the code that acts on it.
#[derive(Debug, Clone)]
pub struct SettledTask {
    /// The task as clients see it.
    pub view: TaskView,
    /// How many tasks have settled: those that went to their shard together are told of once, by the first of them.
    pub count: usize,
}

/// The registry.
pub struct Tasks {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    outstanding: Notify,
    /// Tells when open tasks change or end.
    pub(crate) changes: Changes,
    settled: mpsc::Sender<SettledTask>,
    limits: Limits,
    outbox: Outbox,
    /// For each node, up to which task its tasks are accounted for. Stored when records are deleted that show the same.
    marks: Arc<Marks>,
    /// Held while tasks are deleted.
    deleting: tokio::sync::Mutex<()>,
}

/// How many finished tasks are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many tasks there may be before the oldest finished ones go.
    pub max_tasks: usize,
    /// Whether each task is stored in a record of its own, as older mergers read them.
    pub one_record_each: bool,
    /// How long a finished task is kept; `None` for as long as there is room.
    pub max_age: Option<Duration>,
}

impl Tasks {
    /// Whether finished tasks are deleted at a certain age.
    pub fn forgets_old(&self) -> bool {
        self.limits.max_age.is_some()
    }

    /// Reads all tasks from the store. Tasks that settle later are sent to `settled`.
    ///
    /// # Errors
    /// The store can't be read, or holds a task that can't be parsed.
    pub async fn open(
        store: Arc<dyn Store>,
        limits: Limits,
        settled: mpsc::Sender<SettledTask>,
        marks: Arc<Marks>,
    ) -> Result<Self, TaskError> {
        let mut state = State::default();
        if let Some(floor) = store.get(FLOOR_KEY).await? {
            state.next = serde_json::from_slice(&floor.value).unwrap_or(0);
        }
        state.removals = removals::read(&*store).await?;
        let marked = renames::marked(&*store).await?;
        let mut renamed = marked.clone();
        let (mut after, mut more) = (None, true);
        while more {
            let page = store.page(PREFIX, after.as_deref()).await?;
            after = page.entries.last().map(|(key, _)| key.clone());
            more = page.more;
            for (key, stored) in page.entries {
                let record = read(&key, &stored.value)?;
                state.next = state.next.max(record.last_uid() + 1);
                // A task got a record of its own after the shared one: its keys come after that one's.
                state.drop_from_group(record.uid);
                let pairs = renames::pairs(&record);
                if !pairs.is_empty() {
                    renamed.insert(record.uid, pairs);
                }
                for copy in record.copies() {
                    match record.kind == CANCELATION {
                        true => marks.seen_beside_in_record(&copy.task()),
                        false => marks.seen_in_record(&copy.task()),
                    }
                }
                state.insert(Arc::new(record));
            }
        }
        for record in state.open.values().cloned().collect::<Vec<_>>() {
            state.note_end(&record);
        }
        state.rename_all(renamed);
        let needless = renames::needless(&marked, &state.notes);
        if !needless.is_empty() {
            store.commit(needless).await?;
        }
        let outbox = Outbox::open(&*store).await?;
        tracing::info!(
            tasks = state.notes.len(),
            open = state.open.len(),
            "tasks read"
        );
        Ok(Self {
            store,
            state: Mutex::new(state),
            outstanding: Notify::new(),
            changes: Changes::default(),
            settled,
            limits,
            outbox,
            marks,
            deleting: tokio::sync::Mutex::default(),
        })
    }

    /// Gives the task a uid and makes it durable; only then may the client learn the uid.
    ///
    /// # Errors
    /// The store failed: the client must not be told of the task.
    pub async fn create(&self, new: NewTask) -> Result<Enqueued, TaskError> {
        let uid = self.reserve();
        self.create_as(uid, new, Vec::new()).await
    }

    /// Reserves the uid of a task that is about to be created, for state that must be stored under it before the delivery.
    pub fn reserve(&self) -> u32 {
        self.reserve_all(1)
    }

    /// Reserves so many uids in a row, and returns the first.
    pub fn reserve_all(&self, count: u32) -> u32 {
        let mut state = self.lock();
        let uid = state.next;
        state.next += count;
        uid
    }

    /// The last uid that was given; `None` if there is none.
    pub(crate) fn last_uid(&self) -> Option<u32> {
        self.lock().next.checked_sub(1)
    }

    /// As [`create`](Self::create), with a uid that was [reserved](Self::reserve); for a task with members, it is the first of
    /// [so many in a row](Self::reserve_all). `extra` is stored in the same commit as the task.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn create_as(
        &self,
        uid: u32,
        mut new: NewTask,
        extra: Vec<Change>,
    ) -> Result<Enqueued, TaskError> {
        let tickets = new.parts.iter_mut().filter_map(|part| part.late.take());
        let late: Vec<LateTicket> = tickets.collect();
        let record = Arc::new(new.into_record(uid, now_utc()));
        let ended = aggregate::status(&record).is_settled();
        let records = match self.limits.one_record_each {
            true => record.all_alone().map(Arc::new).collect(),
            false => vec![Arc::clone(&record)],
        };
        let mut changes = extra;
        match ended {
            true => changes.extend(self.ends(&records)),
            false => changes.extend(records.iter().map(|record| put(record))),
        }
        self.store.commit(changes).await?;
        let enqueued = Enqueued::of(&record);
        let uids = record.uid..=record.last_uid();
        let surplus = {
            let mut state = self.lock();
            record
                .copies()
                .for_each(|copy| self.marks.recorded(&copy.task()));
            for record in records {
                state.insert(record);
            }
            state.surplus(self.limits.max_tasks)
        };
        for ticket in late {
            ticket.tell(uids.clone());
        }
        self.outstanding.notify_waiters();
        if ended {
            self.tell(&record);
        }
        if !surplus.is_empty() {
            self.clean(&surplus).await?;
        }
        Ok(enqueued)
    }

    /// The task as clients see it.
    ///
    /// # Errors
    /// There is no such task, or it can't be parsed.
    pub async fn get(&self, uid: u32) -> Result<TaskView, TaskError> {
        let view = self.get_as_begun(uid).await?;
        let state = self.lock();
        let note = state.notes.get(uid);
        let note = note.ok_or(TaskError::NotFound { uid })?;
        Ok(TaskView {
            index_uid: state.notes.index_uid(note).map(str::to_owned),
            ..view
        })
    }

    /// One page of the tasks that match `filter`, with the total and the uid that the next page starts from.
    pub(super) async fn list(
        &self,
        filter: &Filter,
    ) -> Result<(Vec<TaskView>, u64, Option<u32>), TaskError> {
        let (page, total, next) = {
            let state = self.lock();
            filter.page(&state.notes, state.open_uids())
        };
        let mut views = Vec::with_capacity(page.len());
        let reads = stream::iter(page).map(|uid| self.get(uid));
        let mut reads = reads.buffered(READ_AT_ONCE);
        while let Some(read) = reads.next().await {
            match read {
                Ok(view) => views.push(view),
                // The task was deleted after the page's uids were found.
                Err(TaskError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((views, total, next))
    }

    /// The uids of all tasks that match `filter`, ignoring its limit.
    pub(super) fn matching(&self, filter: &Filter) -> Vec<u32> {
        let state = self.lock();
        filter.all(&state.notes, state.open_uids())
    }

    /// The indexes that any task names.
    pub(super) fn index_uids(&self) -> BTreeSet<String> {
        self.lock().notes.index_uids()
    }

    /// Frees the space that deleted tasks took; returns the sizes before and after in bytes, if the store has a size.
    ///
    /// # Errors
    /// The store failed.
    pub async fn compact(&self) -> Result<Option<(u64, u64)>, TaskError> {
        Ok(self.store.compact().await?)
    }

    /// The record in which a task is stored, which it may share.
    async fn load(&self, uid: u32) -> Result<TaskRecord, TaskError> {
        let first = {
            let state = self.lock();
            let note = state.notes.get(uid);
            note.ok_or(TaskError::NotFound { uid })?.record_of(uid)
        };
        let stored = self.store.get(&key(first)).await?;
        let stored = stored.ok_or(TaskError::NotFound { uid })?;
        read(&key(first), &stored.value)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(uid: u32) -> String {
    format!("{PREFIX}{uid:010}")
}

/// The record of a stored task.
fn read(key: &str, value: &[u8]) -> Result<TaskRecord, TaskError> {
    let uid = key.strip_prefix(PREFIX).and_then(|uid| uid.parse().ok());
    let uid = uid.unwrap_or(0);
    serde_json::from_slice(value).map_err(|_| TaskError::Corrupt { uid })
}

fn put(record: &TaskRecord) -> Change {
    Change::put(
        key(record.uid),
        serde_json::to_vec(record).unwrap_or_default(),
    )
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
