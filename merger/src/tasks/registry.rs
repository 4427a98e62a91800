//! All tasks: durable in the store, those outstanding in memory, a short note of each for lists.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc};

use super::TaskError;
use super::aggregate;
use super::filter::{Filter, Note};
use super::record::{Enqueued, LocalState, NewTask, Part, Share, Status, TaskRecord, TaskView};
use crate::cluster::NodeId;
use crate::store::{Change, Store};

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

struct State {
    next: u32,
    notes: BTreeMap<u32, Note>,
    open: BTreeMap<u32, TaskRecord>,
    /// What each node still has to do: local uid → cluster uids. Merged writes share a local task.
    waiting: HashMap<NodeId, BTreeMap<u32, Vec<u32>>>,
    /// Ends of shared local tasks that nobody has taken yet.
    shared_ends: Vec<SharedEnd>,
}

/// A local task has ended that the task shares with others.
#[derive(Debug, Clone)]
pub struct SharedEnd {
    /// The cluster-wide uid.
    pub uid: u32,
    /// The task's share.
    pub share: Share,
    /// The node that speaks for the shard.
    pub node: NodeId,
    /// The node's own uid of the shared task.
    pub local_uid: u32,
    /// How it failed, if it did. The task stays open until [`Tasks::resend`] or [`Tasks::give_up`].
    pub failed: Option<LocalState>,
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
        let mut state = State {
            next: 0,
            notes: BTreeMap::new(),
            open: BTreeMap::new(),
            waiting: HashMap::new(),
            shared_ends: Vec::new(),
        };
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

    /// The lowest outstanding local uids of a node, at most `limit`: nodes work in order, so these settle first.
    pub(super) fn outstanding(&self, node: &NodeId, limit: usize) -> Vec<u32> {
        let state = self.lock();
        state
            .waiting
            .get(node)
            .map(|waiting| waiting.keys().copied().take(limit).collect())
            .unwrap_or_default()
    }

    /// The nodes that have something outstanding.
    pub(super) fn busy_nodes(&self) -> Vec<NodeId> {
        let state = self.lock();
        state
            .waiting
            .iter()
            .filter(|(_, waiting)| !waiting.is_empty())
            .map(|(node, _)| node.clone())
            .collect()
    }

    /// Resolves when a task is created after the call.
    pub(super) fn created(&self) -> tokio::sync::futures::Notified<'_> {
        self.outstanding.notified()
    }

    /// Takes over what a node says of its local tasks. True if anything is new.
    pub(super) async fn apply(&self, node: &NodeId, said: Vec<(u32, LocalState)>) -> bool {
        let mut changed = false;
        let mut settled = Vec::new();
        {
            let mut state = self.lock();
            for (local_uid, local) in said {
                let uids = state.waited_for(node, local_uid);
                for uid in uids {
                    if state.note_shared_end(node, local_uid, uid, &local) {
                        changed = true;
                        continue;
                    }
                    changed |= state.update(node, local_uid, uid, local.clone());
                    if let Some(record) = state.open.get(&uid)
                        && aggregate::status(record).is_settled()
                    {
                        settled.push(record.clone());
                    }
                }
            }
        }
        for record in settled {
            self.settle(record).await;
        }
        changed
    }

    /// Takes the ends of shared local tasks.
    pub(super) fn take_shared_ends(&self) -> Vec<SharedEnd> {
        std::mem::take(&mut self.lock().shared_ends)
    }

    /// A task that shared a failed local task was delivered again, alone.
    ///
    /// # Errors
    /// The store failed.
    pub async fn resend(&self, uid: u32, part: Part) -> Result<(), TaskError> {
        let record = {
            let mut state = self.lock();
            let Some(mut record) = state.open.remove(&uid) else {
                return Ok(());
            };
            state.forget_waiting(&record);
            record.parts = vec![part];
            record.share = None;
            state.insert(record.clone());
            record
        };
        self.store.commit(vec![put(&record)]).await?;
        self.outstanding.notify_waiters();
        Ok(())
    }

    /// A task that shared a failed local task can't be delivered again: it fails as that one did.
    pub async fn give_up(&self, uid: u32, failed: LocalState) {
        let record = {
            let mut state = self.lock();
            let Some(record) = state.open.get_mut(&uid) else {
                return;
            };
            for copy in record.copies_mut() {
                if !copy.state.status.is_settled() {
                    copy.state = failed.clone();
                }
            }
            let record = record.clone();
            state.forget_waiting(&record);
            state.notes.insert(uid, Note::of(&aggregate::view(&record)));
            record
        };
        self.settle(record).await;
    }

    /// Stores how a task ended, and only then forgets that it is open: after a crash it is asked for again.
    async fn settle(&self, mut record: TaskRecord) {
        let view = aggregate::view(&record);
        if view.status != Status::Canceled {
            record.canceled_by = None;
        }
        let view = TaskView {
            canceled_by: record.canceled_by,
            ..view
        };
        if let Err(error) = self.store.commit(vec![put(&record)]).await {
            tracing::error!(uid = record.uid, %error, "the end of a task could not be stored");
            return;
        }
        self.lock().open.remove(&record.uid);
        let _ = self.settled.send(SettledTask { view });
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

impl State {
    fn insert(&mut self, record: TaskRecord) {
        let status = aggregate::status(&record);
        self.notes
            .insert(record.uid, Note::of(&aggregate::view(&record)));
        if status.is_settled() {
            return;
        }
        for copy in record
            .copies()
            .filter(|copy| !copy.state.status.is_settled())
        {
            let waiting = self.waiting.entry(copy.node.clone()).or_default();
            waiting.entry(copy.local_uid).or_default().push(record.uid);
        }
        self.open.insert(record.uid, record);
    }

    fn update(&mut self, node: &NodeId, local_uid: u32, uid: u32, local: LocalState) -> bool {
        if local.status.is_settled() {
            self.stop_waiting(node, local_uid, uid);
        }
        let Some(record) = self.open.get_mut(&uid) else {
            return false;
        };
        let copy = record
            .copies_mut()
            .find(|copy| copy.node == *node && copy.local_uid == local_uid);
        let Some(copy) = copy else { return false };
        let changed = copy.state.status != local.status;
        copy.state = local;
        let note = Note::of(&aggregate::view(record));
        self.notes.insert(uid, note);
        changed
    }

    fn waited_for(&self, node: &NodeId, local_uid: u32) -> Vec<u32> {
        let waiting = self.waiting.get(node);
        waiting
            .and_then(|waiting| waiting.get(&local_uid))
            .cloned()
            .unwrap_or_default()
    }

    fn stop_waiting(&mut self, node: &NodeId, local_uid: u32, uid: u32) {
        if let Some(waiting) = self.waiting.get_mut(node)
            && let Some(uids) = waiting.get_mut(&local_uid)
        {
            uids.retain(|waiting| *waiting != uid);
            if uids.is_empty() {
                waiting.remove(&local_uid);
            }
        }
    }

    fn forget_waiting(&mut self, record: &TaskRecord) {
        for copy in record.copies() {
            self.stop_waiting(&copy.node, copy.local_uid, record.uid);
        }
    }

    /// Notes the end of a shared local task, as told by the node that speaks for the shard. True if the task stays open: the
    /// local task failed, and it may be another write's fault.
    fn note_shared_end(
        &mut self,
        node: &NodeId,
        local_uid: u32,
        uid: u32,
        local: &LocalState,
    ) -> bool {
        let shared = self.open.get(&uid).and_then(TaskRecord::shared);
        let Some((_, share)) =
            shared.filter(|(copy, _)| copy.node == *node && copy.local_uid == local_uid)
        else {
            return false;
        };
        let failed = (local.status == Status::Failed).then(|| local.clone());
        if !local.status.is_settled() {
            return false;
        }
        let stays_open = failed.is_some();
        if stays_open {
            self.stop_waiting(node, local_uid, uid);
        }
        let node = node.clone();
        self.shared_ends.push(SharedEnd {
            uid,
            share,
            node,
            local_uid,
            failed,
        });
        stays_open
    }

    /// The oldest settled tasks beyond the limit; a tenth is cut at once, so that not every new task deletes one.
    fn surplus(&self, max_tasks: usize) -> Vec<u32> {
        if self.notes.len() <= max_tasks {
            return Vec::new();
        }
        let settled = self
            .notes
            .iter()
            .filter(|(_, note)| note.status.is_settled());
        settled
            .map(|(uid, _)| *uid)
            .take(max_tasks.div_ceil(10))
            .collect()
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
