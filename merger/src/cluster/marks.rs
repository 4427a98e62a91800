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

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::NodeId;
use crate::store::{Change, Patience, Store, StoreError};

const PREFIX: &str = "mark/";

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

/// How many unknown tasks are listed. If there are more, they are not looked at one by one.
const NAMED: usize = 101;

#[derive(Debug, Clone)]
struct Entry {
    incarnation: u32,
    mark: Mark,
    /// All tasks up to this one are accounted for. Writes come one after the other, and each raises it. The answers to other tasks
    /// that the merger made may come in any order with them, so such a task raises it only if no task before it is missing.
    written: Option<u32>,
    /// The other tasks that the merger made since `written` or `recorded`, whichever is older.
    made: BTreeSet<u32>,
    /// All tasks up to this one are also accounted for in the store. A crash leaves open what was acknowledged but not recorded.
    recorded: Option<u32>,
    /// A task that identifies the disk: the newest one when the mark was established.
    shown_by: Option<NewestTask>,
    /// Only mergers that keep marks have known the node: if it is empty, it never had anything.
    first_contact: bool,
    /// The node is empty, and others that may have data don't answer. It takes no writes either.
    waits: bool,
    /// Records of tasks come from an older store and don't name the incarnation, so they say nothing about this mark.
    ignores_records: bool,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            incarnation: 0,
            mark: Mark::Unknown { at_least: None },
            written: None,
            made: BTreeSet::new(),
            recorded: None,
            shown_by: None,
            first_contact: false,
            waits: false,
            ignores_records: false,
        }
    }
}

/// A mark as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    newest: Option<u32>,
    /// The first task that is not accounted for. Older mergers stored that as `newest`, and nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown_by: Option<NewestTask>,
    /// Tasks after `next` that the merger itself has made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    made: Vec<u32>,
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
                let entry = Entry {
                    incarnation: known.incarnation,
                    mark: Mark::Unknown {
                        at_least: known.newest_after_resync,
                    },
                    ignores_records: known.newest_after_resync.is_some(),
                    first_contact: known.first_contact,
                    ..Entry::default()
                };
                (known.node, entry)
            })
            .collect();
        let mut stale = Vec::new();
        for (key, stored) in store.range(PREFIX).await? {
            let Some((incarnation, node)) = parse(&key) else {
                continue;
            };
            let read: Result<Stored, _> = serde_json::from_slice(&stored.value);
            match (nodes.get_mut(&node), read) {
                (Some(entry), Ok(read)) if entry.incarnation == incarnation => {
                    entry.known_up_to(match read.next {
                        Some(next) => next.checked_sub(1),
                        None => read.newest,
                    });
                    entry.shown_by = read.shown_by;
                    entry.made = read.made.into_iter().collect();
                    let newest = read.newest.max(entry.made.last().copied());
                    entry.mark = Mark::At(newest);
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
        let unknown = (after(entry.written)..=newest).filter(|uid| !entry.made.contains(uid));
        unknown.take(limit).collect()
    }

    /// The number of the first task after those that are accounted for without a gap.
    pub(crate) fn next(&self, node: &NodeId) -> u32 {
        self.read()
            .get(node)
            .map_or(0, |entry| after(entry.written))
    }

    /// Notes a write that a record of an earlier run names.
    pub fn seen_in_record(&self, task: &NodeTask) {
        let mut nodes = self.write();
        let entry = nodes.entry(task.node.clone()).or_default();
        if entry.incarnation == task.incarnation && !entry.ignores_records {
            entry.mark = entry.mark.raised(task.local_uid);
            entry.written = entry.written.max(Some(task.local_uid));
            entry.recorded = entry.recorded.max(Some(task.local_uid));
            entry.tidy();
        }
    }

    /// Notes a task outside the order of writes that a record of an earlier run names.
    pub fn seen_beside_in_record(&self, task: &NodeTask) {
        let mut nodes = self.write();
        let entry = nodes.entry(task.node.clone()).or_default();
        if entry.incarnation == task.incarnation && !entry.ignores_records {
            entry.mark = entry.mark.raised(task.local_uid);
            entry.made.insert(task.local_uid);
            entry.tidy();
        }
    }

    /// Notes that a record of the task is stored.
    pub fn recorded(&self, task: &NodeTask) {
        let mut nodes = self.write();
        let entry = nodes.entry(task.node.clone()).or_default();
        // A task outside the order of writes doesn't show that the writes before it are recorded.
        if entry.incarnation == task.incarnation && !entry.made.contains(&task.local_uid) {
            entry.recorded = entry.recorded.max(Some(task.local_uid));
            entry.tidy();
        }
    }

    /// Notes that a node has acknowledged a write. Returns the task as it is recorded, and how its number follows the write
    /// before. The caller has the first place in the node's queue.
    pub fn acknowledged(&self, node: &NodeId, local_uid: u32) -> (NodeTask, Order) {
        let mut nodes = self.write();
        let entry = nodes.entry(node.clone()).or_default();
        let order = match entry.mark {
            Mark::Unknown { .. } => Order::Next,
            Mark::At(_) if Some(local_uid) <= entry.written => Order::Back,
            Mark::At(_) => {
                let unknown =
                    (after(entry.written)..local_uid).filter(|uid| !entry.made.contains(uid));
                let unknown: Vec<u32> = unknown.take(NAMED).collect();
                match unknown.is_empty() {
                    true => Order::Next,
                    false => Order::Gap(unknown),
                }
            }
        };
        entry.mark = entry.mark.raised(local_uid);
        entry.written = entry.written.max(Some(local_uid));
        entry.tidy();
        (entry.task(node, local_uid), order)
    }

    /// Notes a task that a node has acknowledged outside the order of writes. Returns the task as it is recorded.
    pub fn acknowledged_beside(&self, node: &NodeId, local_uid: u32) -> NodeTask {
        let mut nodes = self.write();
        let entry = nodes.entry(node.clone()).or_default();
        entry.mark = entry.mark.raised(local_uid);
        entry.made.insert(local_uid);
        entry.tidy();
        entry.task(node, local_uid)
    }

    /// Notes, and stores, a task that the merger itself has made on a node and that no record names.
    pub async fn made(&self, node: &NodeId, local_uid: u32) {
        self.acknowledged_beside(node, local_uid);
        self.store_mark(node).await;
    }

    /// Notes that everything up to `newest` is accounted for: the shard's replicas were compared.
    pub(crate) async fn raise(&self, node: &NodeId, newest: Option<u32>) {
        let Some(newest) = newest else { return };
        {
            let mut nodes = self.write();
            let entry = nodes.entry(node.clone()).or_default();
            if entry.recorded >= Some(newest) {
                return;
            }
            entry.mark = entry.mark.raised(newest);
            entry.written = entry.written.max(Some(newest));
            entry.made.retain(|uid| *uid > newest);
            entry.recorded = Some(newest);
        }
        self.store_mark(node).await;
    }

    async fn store_mark(&self, node: &NodeId) {
        let change = self.read().get(node).and_then(|entry| put(node, entry));
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
        let change = {
            let mut nodes = self.write();
            let entry = nodes.entry(node.clone()).or_default();
            let uid = newest.as_ref().map(|newest| newest.uid);
            let known = match entry.mark {
                Mark::At(mark) => mark.max(uid),
                Mark::Unknown { .. } => uid,
            };
            entry.known_up_to(known);
            entry.shown_by = newest;
            put(node, entry)
        };
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
        self.write().entry(node.clone()).or_default().waits = true;
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
        self.write().entry(node.clone()).or_default().first_contact = true;
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
        let stored = Stored {
            newest: newest.as_ref().map(|newest| newest.uid),
            next: None,
            shown_by: newest,
            made: Vec::new(),
        };
        let value = serde_json::to_vec(&stored).unwrap_or_default();
        Change::put(key(node, incarnation), value)
    }

    /// Puts the node into another incarnation, in memory only: [`change_for`](Self::change_for) is what must be stored first.
    pub(crate) fn begin(&self, node: &NodeId, incarnation: u32, newest: Option<NewestTask>) {
        let mut entry = Entry {
            incarnation,
            ..Entry::default()
        };
        entry.known_up_to(newest.as_ref().map(|newest| newest.uid));
        entry.shown_by = newest;
        self.write().insert(node.clone(), entry);
    }

    /// The changes to store together with a deletion of records, because the marks can't be read from the deleted records any
    /// more.
    pub fn changes(&self) -> Vec<Change> {
        let nodes = self.read();
        nodes
            .iter()
            .filter_map(|(node, entry)| put(node, entry))
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<NodeId, Entry>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<NodeId, Entry>> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Notes that everything up to `newest` is accounted for.
    fn known_up_to(&mut self, newest: Option<u32>) {
        self.mark = Mark::At(newest);
        self.written = newest;
        self.made.retain(|uid| Some(*uid) > newest);
        self.recorded = newest;
        self.waits = false;
        self.ignores_records = false;
    }

    /// Counts tasks in `made` that follow without a gap as written and recorded, and forgets those that both account for.
    fn tidy(&mut self) {
        for last in [&mut self.written, &mut self.recorded] {
            while self.made.contains(&after(*last)) {
                *last = Some(after(*last));
            }
        }
        let (written, recorded) = (self.written, self.recorded);
        self.made.retain(|uid| Some(*uid) > written.min(recorded));
        while self.made.len() > NAMED {
            self.made.pop_first();
        }
    }

    fn made_since_recorded(&self) -> impl Iterator<Item = u32> {
        let made = self.made.iter().copied();
        made.filter(|uid| Some(*uid) > self.recorded)
    }

    fn task(&self, node: &NodeId, local_uid: u32) -> NodeTask {
        NodeTask {
            node: node.clone(),
            local_uid,
            incarnation: self.incarnation,
        }
    }
}

impl Mark {
    fn raised(self, to: u32) -> Self {
        match self {
            Self::At(newest) => Self::At(newest.max(Some(to))),
            Self::Unknown { at_least } => Self::Unknown {
                at_least: at_least.max(Some(to)),
            },
        }
    }
}

/// The change that stores a node's mark; `None` while the mark is unknown, because it is stored once it is established.
fn put(node: &NodeId, entry: &Entry) -> Option<Change> {
    match entry.mark {
        Mark::At(newest) => {
            let stored = Stored {
                newest,
                next: Some(after(entry.recorded)),
                shown_by: entry.shown_by.clone(),
                made: entry.made_since_recorded().collect(),
            };
            let value = serde_json::to_vec(&stored).unwrap_or_default();
            Some(Change::put(key(node, entry.incarnation), value))
        }
        Mark::Unknown { .. } => None,
    }
}

/// The number after this one.
fn after(uid: Option<u32>) -> u32 {
    uid.map_or(0, |uid| uid.saturating_add(1))
}

fn key(node: &NodeId, incarnation: u32) -> String {
    format!("{PREFIX}{incarnation}/{node}")
}

fn parse(key: &str) -> Option<(u32, NodeId)> {
    let (incarnation, node) = key.strip_prefix(PREFIX)?.split_once('/')?;
    Some((incarnation.parse().ok()?, NodeId::from(node.to_owned())))
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
