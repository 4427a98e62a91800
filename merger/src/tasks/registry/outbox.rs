//! Follow-up work of tasks that have ended: updating a placement, calling a webhook. It is stored together with the task's end.
//!
//! Each piece of work is a mark in the store: written in the same commit as the task's end, removed when the work is done.
//! After a crash, the remaining marks are worked off.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::{SettledTask, TaskRecord, TaskView, Tasks, put};
use crate::store::{Change, Store, StoreError};
use crate::tasks::{BeforeEnd, Status, TaskError, aggregate};

const FOLLOW: &str = "follow/";
const ANNOUNCE: &str = "announce/";
/// How many tasks may wait to be announced; tasks that end beyond that are not announced.
const MAX_WAITING: usize = 100_000;

/// The part of the marks that is kept in memory.
#[derive(Default)]
pub(super) struct Outbox {
    /// Says what is stored together with ends.
    before_end: OnceLock<Arc<dyn BeforeEnd>>,
    announcing: AtomicBool,
    /// Whether the end of a task was not passed on because the channel was full.
    untold: AtomicBool,
    pub(super) waiting: AtomicUsize,
    more: Notify,
}

impl Outbox {
    pub(super) async fn open(store: &dyn Store) -> Result<Self, StoreError> {
        let waiting = store.range(ANNOUNCE).await?.len();
        Ok(Self {
            waiting: AtomicUsize::new(waiting),
            ..Self::default()
        })
    }
}

fn followed(uid: u32) -> Change {
    Change::delete(format!("{FOLLOW}{uid:010}"))
}

/// Whether the merger has follow-up work when the task ends.
fn is_followed(record: &TaskRecord) -> bool {
    match record.kind.as_str() {
        "indexDeletion" | "indexUpdate" | "indexSwap" => true,
        "documentAdditionOrUpdate" => aggregate::status(record) == Status::Failed,
        _ => false,
    }
}

impl Tasks {
    /// From now on, `before_end` hears of each end before anybody can see it.
    pub fn before_ends(&self, before_end: Arc<dyn BeforeEnd>) {
        self.lock().before_end = Some(Arc::clone(&before_end));
        let _ = self.outbox.before_end.set(before_end);
    }

    /// The changes that store the ends of tasks.
    pub(super) fn ends(&self, records: &[Arc<TaskRecord>]) -> Vec<Change> {
        let mut changes: Vec<Change> = records.iter().flat_map(|record| self.end(record)).collect();
        if let Some(before_end) = self.outbox.before_end.get() {
            let told = |record: &Arc<TaskRecord>| {
                before_end.told_with(&record.kind, record.index_uid.as_deref())
            };
            let told: BTreeSet<String> = records.iter().filter_map(told).collect();
            changes.extend(told.into_iter().map(|key| Change::put(key, Vec::new())));
        }
        changes
    }

    fn end(&self, record: &TaskRecord) -> Vec<Change> {
        let mut changes = vec![put(record)];
        if is_followed(record) {
            let marks = record.uids().map(|uid| format!("{FOLLOW}{uid:010}"));
            changes.extend(marks.map(|mark| Change::put(mark, Vec::new())));
        }
        if self.outbox.announcing.load(Ordering::Relaxed) {
            changes.extend(record.uids().filter_map(|uid| self.mark_to_announce(uid)));
        }
        changes
    }

    fn mark_to_announce(&self, uid: u32) -> Option<Change> {
        let waiting = self.outbox.waiting.fetch_add(1, Ordering::Relaxed);
        if waiting < MAX_WAITING {
            return Some(Change::put(format!("{ANNOUNCE}{uid:010}"), Vec::new()));
        }
        self.outbox.waiting.fetch_sub(1, Ordering::Relaxed);
        tracing::error!(
            uid,
            "too many tasks wait for a webhook: this one is not announced"
        );
        None
    }

    /// Passes a task's end on, after it is stored. If the channel is full, the marks in the store keep the work for later.
    pub(super) fn tell(&self, record: &TaskRecord) {
        let view = aggregate::view(&record.first_alone());
        self.tell_of(view, record.count());
    }

    fn tell_of(&self, view: TaskView, count: usize) {
        if self.settled.try_send(SettledTask { view, count }).is_err() {
            self.outbox.untold.store(true, Ordering::Release);
        }
        self.outbox.more.notify_one();
    }

    /// Whether some ends were not passed on since the last call; [`tell_again`](Self::tell_again) then passes on those with
    /// follow-up work.
    pub fn left_some_untold(&self) -> bool {
        self.outbox.untold.swap(false, Ordering::AcqRel)
    }

    /// Passes on once more the ended tasks that still have a mark, for example after a crash, as many as the channel has room
    /// for.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn tell_again(&self) -> Result<(), TaskError> {
        for (key, _) in self.store.range(FOLLOW).await? {
            let uid = key.strip_prefix(FOLLOW).and_then(|uid| uid.parse().ok());
            let Some(uid) = uid else { continue };
            match self.get_as_begun(uid).await {
                Ok(view) => self.tell_of(view, 1),
                Err(TaskError::NotFound { uid }) => self.done_with(uid).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The follow-up work of a task is done: removes its mark.
    ///
    /// # Errors
    /// The store failed: the work will be done once more.
    pub async fn done_with(&self, uid: u32) -> Result<(), StoreError> {
        self.store.commit(vec![followed(uid)]).await
    }

    /// Whether tasks that end from now on are to be announced.
    pub fn announce(&self, wanted: bool) {
        self.outbox.announcing.store(wanted, Ordering::Relaxed);
    }

    /// Resolves when a task has ended since the last call.
    pub async fn ended(&self) {
        self.outbox.more.notified().await;
    }

    /// The oldest tasks that wait to be announced, at most `limit`.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn to_announce(&self, limit: usize) -> Result<Vec<u32>, StoreError> {
        if self.outbox.waiting.load(Ordering::Relaxed) == 0 {
            return Ok(Vec::new());
        }
        let marks = self.store.range(ANNOUNCE).await?;
        let uid = |key: &str| key.strip_prefix(ANNOUNCE)?.parse().ok();
        Ok(marks
            .iter()
            .filter_map(|(key, _)| uid(key))
            .take(limit)
            .collect())
    }

    /// These tasks were announced, or never will be: removes their marks.
    ///
    /// # Errors
    /// The store failed: the tasks will be announced once more.
    pub async fn announced(&self, uids: &[u32]) -> Result<(), StoreError> {
        let mark = |uid: &u32| Change::delete(format!("{ANNOUNCE}{uid:010}"));
        self.store.commit(uids.iter().map(mark).collect()).await?;
        self.outbox.waiting.fetch_sub(uids.len(), Ordering::Relaxed);
        Ok(())
    }
}
