//! All tasks: durable in the store, those outstanding in memory, a short note of each for lists.
//!
//! Here tasks are made, read, listed and deleted. [`progress`] takes over what nodes say of them, [`shared`] ends writes that
//! share a local task, [`state`] is the memory behind both.

mod progress;
mod replicas;
mod shared;
mod state;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc};

use super::TaskError;
use super::aggregate;
use super::filter::Filter;
use super::record::{Enqueued, NewTask, Status, TaskRecord, TaskView};
use crate::cluster::NodeId;
use crate::store::{Change, Store};

pub use replicas::Applied;
pub use shared::SharedEnd;
use state::State;

const PREFIX: &str = "task/";
/// The lowest uid that may be given next: deleting the newest tasks must not free their uids.
const FLOOR_KEY: &str = "task-floor";

/// A task that has just settled, for those who act on it.
#[derive(Debug, Clone)]
pub struct SettledTask {
    /// The task as clients see it.
    pub view: TaskView,
}

/// The registry.
pub struct Tasks {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    outstanding: Notify,
    settled: mpsc::UnboundedSender<SettledTask>,
    max_tasks: usize,
}

impl Tasks {
    /// Reads all tasks from the store. Tasks that settle are sent to `settled`.
    ///
    /// # Errors
    /// The store can't be read, or holds a task that can't be.
    pub async fn open(
        store: Arc<dyn Store>,
        max_tasks: usize,
        settled: mpsc::UnboundedSender<SettledTask>,
    ) -> Result<Self, TaskError> {
        let mut state = State::default();
        if let Some(floor) = store.get(FLOOR_KEY).await? {
            state.next = serde_json::from_slice(&floor.value).unwrap_or(0);
        }
        for (key, stored) in store.range(PREFIX).await? {
            let uid = key
                .strip_prefix(PREFIX)
                .and_then(|uid| uid.parse().ok())
                .unwrap_or(0);
            let record: TaskRecord =
                serde_json::from_slice(&stored.value).map_err(|_| TaskError::Corrupt { uid })?;
            state.next = state.next.max(record.uid + 1);
            state.insert(record);
        }
        tracing::info!(
            tasks = state.notes.len(),
            open = state.open.len(),
            "tasks read"
        );
        Ok(Self {
            store,
            state: Mutex::new(state),
            outstanding: Notify::new(),
            settled,
            max_tasks,
        })
    }

    /// Gives the task a uid and makes it durable; only then may a client learn of it.
    ///
    /// # Errors
    /// The store failed: the client must not be told of the task.
    pub async fn create(&self, new: NewTask) -> Result<Enqueued, TaskError> {
        let uid = {
            let mut state = self.lock();
            let uid = state.next;
            state.next += 1;
            uid
        };
        let record = TaskRecord {
            uid,
            index_uid: new.index_uid,
            kind: new.kind,
            enqueued_at: OffsetDateTime::now_utc(),
            details: new.details,
            custom_metadata: new.custom_metadata,
            canceled_by: None,
            parts: new.parts,
            error: new.error,
            share: new.share,
        };
        self.store.commit(vec![put(&record)]).await?;
        let enqueued = Enqueued {
            task_uid: uid,
            index_uid: record.index_uid.clone(),
            status: Status::Enqueued,
            kind: record.kind.clone(),
            enqueued_at: record.enqueued_at,
            custom_metadata: record.custom_metadata.clone(),
        };
        let settled = aggregate::status(&record)
            .is_settled()
            .then(|| aggregate::view(&record));
        let surplus = {
            let mut state = self.lock();
            state.insert(record);
            state.surplus(self.max_tasks)
        };
        self.outstanding.notify_waiters();
        if let Some(view) = settled {
            let _ = self.settled.send(SettledTask { view });
        }
        if !surplus.is_empty() {
            self.delete(&surplus).await?;
        }
        Ok(enqueued)
    }

    /// One task.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub async fn get(&self, uid: u32) -> Result<TaskView, TaskError> {
        let open = {
            let state = self.lock();
            if !state.notes.contains_key(&uid) {
                return Err(TaskError::NotFound { uid });
            }
            state.open.get(&uid).map(aggregate::view)
        };
        match open {
            Some(view) => Ok(view),
            None => Ok(aggregate::view(&self.load(uid).await?)),
        }
    }

    /// The tasks that `filter` lets through, in its order and up to its limit, with the total and the uid after the last.
    pub(super) async fn list(
        &self,
        filter: &Filter,
    ) -> Result<(Vec<TaskView>, u64, Option<u32>), TaskError> {
        let (page, total, next) = filter.page(&self.lock().notes);
        let mut views = Vec::with_capacity(page.len());
        for uid in page {
            match self.get(uid).await {
                Ok(view) => views.push(view),
                // Deleted between the list and the look.
                Err(TaskError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((views, total, next))
    }

    /// The uids of all tasks that `filter` lets through, whatever its limit.
    pub(super) fn matching(&self, filter: &Filter) -> Vec<u32> {
        filter.all(&self.lock().notes)
    }

    /// The indexes that any task is about.
    pub(super) fn index_uids(&self) -> BTreeSet<String> {
        self.lock()
            .notes
            .values()
            .filter_map(|note| note.index_uid().map(str::to_owned))
            .collect()
    }

    /// Deletes tasks that are settled; gives how many there were.
    pub(super) async fn delete(&self, uids: &[u32]) -> Result<u64, TaskError> {
        let (gone, floor): (Vec<u32>, u32) = {
            let state = self.lock();
            let settled = |uid: &u32| {
                state
                    .notes
                    .get(uid)
                    .is_some_and(|note| note.status.is_settled())
            };
            (uids.iter().copied().filter(settled).collect(), state.next)
        };
        let mut changes: Vec<Change> = gone.iter().map(|uid| Change::delete(key(*uid))).collect();
        changes.push(Change::put(FLOOR_KEY, floor.to_string().into_bytes()));
        self.store.commit(changes).await?;
        let mut state = self.lock();
        for uid in &gone {
            state.notes.remove(uid);
        }
        Ok(gone.len() as u64)
    }

    /// The nodes' local uids behind the open ones of `uids`.
    pub(super) fn local_uids(&self, uids: &[u32]) -> HashMap<NodeId, Vec<u32>> {
        let state = self.lock();
        let mut found: HashMap<NodeId, Vec<u32>> = HashMap::new();
        for copy in uids
            .iter()
            .filter_map(|uid| state.open.get(uid))
            .flat_map(TaskRecord::copies)
        {
            // Canceling a shared local task would cancel others' writes with it.
            let shared_with_others = state
                .waited_for(&copy.node, copy.local_uid)
                .iter()
                .any(|waiting| !uids.contains(waiting));
            if !copy.state.status.is_settled() && !shared_with_others {
                found
                    .entry(copy.node.clone())
                    .or_default()
                    .push(copy.local_uid);
            }
        }
        found
    }

    /// Notes which cancelation the open ones of `uids` end by, if they end canceled; gives how many are open.
    pub(super) fn cancel(&self, uids: &[u32], by: u32) -> u64 {
        let mut state = self.lock();
        let mut count = 0;
        for uid in uids {
            if let Some(record) = state.open.get_mut(uid) {
                record.canceled_by = Some(by);
                count += 1;
            }
        }
        count
    }

    async fn load(&self, uid: u32) -> Result<TaskRecord, TaskError> {
        let stored = self
            .store
            .get(&key(uid))
            .await?
            .ok_or(TaskError::NotFound { uid })?;
        serde_json::from_slice(&stored.value).map_err(|_| TaskError::Corrupt { uid })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(uid: u32) -> String {
    format!("{PREFIX}{uid:010}")
}

fn put(record: &TaskRecord) -> Change {
    Change::put(
        key(record.uid),
        serde_json::to_vec(record).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests;
