//! Up to which task each node is accounted for.
//!
//! A node numbers its tasks in sequence, and its disk never gives a number twice. So the newest task that the merger knows of a
//! node, the node's *mark*, tells the node's disk from an empty or older one: a node whose newest task is older than its mark has
//! lost something. A node that starts anew on purpose (a resync brought it back, or an operator accepted a loss) begins another
//! *incarnation*, with a mark of its own.
//!
//! Which tasks are *accounted for* is a question of its own: the node may have taken a write whose answer was lost, and then a task
//! with a higher number that the merger knows. So each node also has the number up to which no task is missing, and the known
//! tasks beyond it.
//!
//! A mark is stored when it is first known, when the node is brought back, and whenever the records of tasks are deleted that
//! might show it. After a restart, newer marks are read from the records of tasks. Invariants: a mark is never lowered within an
//! incarnation, whatever clients delete. A mark that was stored for an old incarnation says nothing about the present one.

mod entry;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use self::entry::{Entry, PREFIX, Stored, parse_key};
use super::NodeId;
use crate::store::{Change, Patience, Store, StoreError};

/// The newest task of a node that the merger knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The node was never compared with a mark. Records may show that it had at least this task.
    Unknown {
        /// The newest task in records, if any.
        at_least: Option<u32>,
    },
    /// The uid of the newest task; `None` for a node that had no task.
    At(Option<u32>),
}

/// A task of a node, and the incarnation of the node's disk that numbered it: another incarnation gives the same numbers again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTask {
    /// The node.
    pub node: NodeId,
    /// The node's own `taskUid`.
    pub local_uid: u32,
    /// The incarnation of its disk.
    pub incarnation: u32,
}

/// A node's newest task, and when the node enqueued it: another disk may have given the same number at another time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewestTask {
    /// Its number.
    pub uid: u32,
    /// The time as the node writes it; `None` if it isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enqueued_at: Option<String>,
}

impl From<u32> for NewestTask {
    fn from(uid: u32) -> Self {
        Self {
            uid,
            enqueued_at: None,
        }
    }
}

/// How the task number of an acknowledged write follows the number of the write before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// All tasks in between are known, or the number before is not known.
    Next,
    /// The merger doesn't know these tasks in between (and maybe more): it didn't send them, or their answers were lost.
    Gap(Vec<u32>),
    /// The number is not newer: the node has another disk.
    Back,
}

/// The marks of all nodes.
pub struct Marks {
    store: Arc<dyn Store>,
    nodes: RwLock<HashMap<NodeId, Entry>>,
}

/// A node as the store knows it when the merger starts.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u32,
    /// Only mergers that keep marks have known it.
    pub(crate) first_contact: bool,
    /// The newest task when a resync brought the node back, if an older merger stored that with its sync state.
    pub(crate) newest_after_resync: Option<u32>,
}

impl Marks {
    /// Reads the marks of these nodes. Marks of earlier incarnations are deleted.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        known: impl IntoIterator<Item = Known>,
    ) -> Result<Self, StoreError> {
        let mut nodes: HashMap<NodeId, Entry> = known
            .into_iter()
            .map(|known| {
                let entry = Entry::of(&known);
                (known.node, entry)
            })
            .collect();
        let mut stale = Vec::new();
        for (key, stored) in store.range(PREFIX).await? {
            let Some((incarnation, node)) = parse_key(&key) else {
                continue;
            };
            let read: Result<Stored, _> = serde_json::from_slice(&stored.value);
            match (nodes.get_mut(&node), read) {
                (Some(entry), Ok(read)) if entry.incarnation == incarnation => {
                    entry.restore(read);
                }
                (Some(entry), _) if entry.incarnation < incarnation => {}
                _ => stale.push(Change::delete(key)),
            }
        }
        // Stale marks do no harm, so a failure is only logged.
        if !stale.is_empty()
            && let Err(error) = store.commit(stale).await
        {
            tracing::warn!(%error, "marks of earlier incarnations can't be deleted");
        }
        Ok(Self {
            store,
            nodes: RwLock::new(nodes),
        })
    }

    /// The node's mark.
    pub fn mark(&self, node: &NodeId) -> Mark {
        self.read()
            .get(node)
            .map_or(Entry::default().mark, |entry| entry.mark)
    }

    /// The newest task of the node that is known, or that records show; `None` if there is none.
    pub fn newest(&self, node: &NodeId) -> Option<u32> {
        match self.mark(node) {
            Mark::At(newest) => newest,
            Mark::Unknown { at_least } => at_least,
        }
    }

    /// The node's tasks up to `newest` that aren't accounted for, at most `limit`: the merger never heard of them, or their
    /// records were lost in a crash.
    pub(crate) fn unaccounted(&self, node: &NodeId, newest: Option<u32>, limit: usize) -> Vec<u32> {
        let nodes = self.read();
        let (Some(entry), Some(newest)) = (nodes.get(node), newest) else {
            return Vec::new();
        };
        entry.unaccounted(newest).take(limit).collect()
    }

    /// The number of the first task after those that are accounted for without a gap.
    pub(crate) fn next(&self, node: &NodeId) -> u32 {
        self.read().get(node).map_or(0, Entry::next)
    }

    /// Notes a write that a record of an earlier run names.
    pub fn seen_in_record(&self, task: &NodeTask) {
        self.change(&task.node, |entry| entry.seen_in_record(task));
    }

    /// Notes a task outside the order of writes that a record of an earlier run names.
    pub fn seen_beside_in_record(&self, task: &NodeTask) {
        self.change(&task.node, |entry| entry.seen_beside_in_record(task));
    }

    /// Notes that a record of the task is stored.
    pub fn recorded(&self, task: &NodeTask) {
        self.change(&task.node, |entry| entry.recorded(task));
    }

    /// Notes that a node has acknowledged a write. Returns the task as it is recorded, and how its number follows the write
    /// before. The caller has the first place in the node's queue.
    pub fn acknowledged(&self, node: &NodeId, local_uid: u32) -> (NodeTask, Order) {
        self.change(node, |entry| {
            let order = entry.note_write(local_uid);
            (entry.task(node, local_uid), order)
        })
    }

    /// Notes a task that a node has acknowledged outside the order of writes. Returns the task as it is recorded.
    pub fn acknowledged_beside(&self, node: &NodeId, local_uid: u32) -> NodeTask {
        self.change(node, |entry| {
            entry.note_beside(local_uid);
            entry.task(node, local_uid)
        })
    }

    /// Notes, and stores, a task that the merger itself has made on a node and that no record names.
    pub async fn made(&self, node: &NodeId, local_uid: u32) {
        self.acknowledged_beside(node, local_uid);
        self.store_mark(node).await;
    }

    /// Notes that everything up to `newest` is accounted for: the shard's replicas were compared.
    pub(crate) async fn raise(&self, node: &NodeId, newest: Option<u32>) {
        let Some(newest) = newest else { return };
        if self.change(node, |entry| entry.account(newest)) {
            self.store_mark(node).await;
        }
    }

    async fn store_mark(&self, node: &NodeId) {
        let change = self.read().get(node).and_then(|entry| entry.put(node));
        let Some(change) = change else { return };
        // If this mark is lost, the only cost is a comparison after a crash.
        if let Err(error) = self.store.commit_unsynced(vec![change]).await {
            tracing::warn!(%node, %error, "a node's mark can't be stored");
        }
    }

    /// Establishes the node's mark: `newest` is its newest task.
    pub(crate) async fn establish(
        &self,
        node: &NodeId,
        newest: Option<NewestTask>,
    ) -> Result<(), StoreError> {
        let change = self.change(node, |entry| {
            entry.establish(newest);
            entry.put(node)
        });
        let mut patience = Patience::with("a node's mark");
        let changes: Vec<Change> = change.into_iter().collect();
        let mut outcome = self.store.commit(changes.clone()).await;
        while patience.after(outcome).await.is_continue() {
            outcome = self.store.commit(changes.clone()).await;
        }
        Ok(())
    }

    /// Notes that the node is empty and that it isn't known yet whether others have data.
    pub(crate) fn wait(&self, node: &NodeId) {
        self.change(node, |entry| entry.waits = true);
    }

    /// The task that identifies the node's disk: if the node still has a task of this number, it must be this one.
    pub(crate) fn shown_by(&self, node: &NodeId) -> Option<NewestTask> {
        self.read()
            .get(node)
            .and_then(|entry| entry.shown_by.clone())
    }

    /// Notes the task that identifies the node's disk, if none is known yet: a node without tasks has none to show at first.
    pub(crate) async fn show(&self, node: &NodeId, task: NewestTask) {
        match self.write().get_mut(node) {
            Some(entry) if entry.shown_by.is_none() => entry.shown_by = Some(task),
            _ => return,
        }
        self.store_mark(node).await;
    }

    /// Notes that the node is new to mergers.
    pub(crate) fn meet(&self, node: &NodeId) {
        self.change(node, |entry| entry.first_contact = true);
    }

    /// Whether only mergers that keep marks have known the node.
    pub(crate) fn is_first_contact(&self, node: &NodeId) -> bool {
        self.read()
            .get(node)
            .is_some_and(|entry| entry.first_contact)
    }

    /// Whether the node waits for others, which may have data that it lacks.
    pub(crate) fn waits(&self, node: &NodeId) -> bool {
        self.read().get(node).is_some_and(|entry| entry.waits)
    }

    /// The change to store when a node begins another incarnation with `newest` as its newest task. Call [`begin`](Self::begin)
    /// once it is stored.
    pub(crate) fn change_for(
        node: &NodeId,
        incarnation: u32,
        newest: Option<NewestTask>,
    ) -> Change {
        Stored::anew(newest).put(node, incarnation)
    }

    /// Puts the node into another incarnation, in memory only: [`change_for`](Self::change_for) is what must be stored first.
    pub(crate) fn begin(&self, node: &NodeId, incarnation: u32, newest: Option<NewestTask>) {
        let entry = Entry::anew(incarnation, newest);
        self.write().insert(node.clone(), entry);
    }

    /// The changes to store together with a deletion of records, because the marks can't be read from the deleted records any
    /// more.
    pub fn changes(&self) -> Vec<Change> {
        let nodes = self.read();
        nodes
            .iter()
            .filter_map(|(node, entry)| entry.put(node))
            .collect()
    }

    fn change<T>(&self, node: &NodeId, change: impl FnOnce(&mut Entry) -> T) -> T {
        change(self.write().entry(node.clone()).or_default())
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<NodeId, Entry>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<NodeId, Entry>> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Marks {
    /// Marks without any known node.
    pub(crate) fn unknown() -> Arc<Self> {
        Arc::new(Self {
            store: Arc::new(crate::store::memory::MemoryStore::default()),
            nodes: RwLock::default(),
        })
    }
}

#[cfg(test)]
mod tests;
