//! Copies of a task on the replicas of a shard. Copies of a replica that is out of sync don't count any more. A copy that ends
//! otherwise than the others shows that its replica differs. Some copies are only made after the task was acknowledged.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use weft_routing::placement::ShardId;

use super::state::State;
use super::{Tasks, put};
use crate::cluster::NodeId;
use crate::store::Patience;
use crate::tasks::aggregate;
use crate::tasks::record::{ReplicaTask, ShardTask, Status, TaskRecord};

impl Tasks {
    /// Whether the node has outstanding tasks.
    pub fn has_outstanding(&self, node: &NodeId) -> bool {
        let state = self.lock();
        state
            .waiting
            .get(node)
            .is_some_and(|waiting| !waiting.is_empty())
    }

    /// How many local tasks the node has outstanding.
    pub fn outstanding_count(&self, node: &NodeId) -> usize {
        let state = self.lock();
        state.waiting.get(node).map_or(0, |waiting| waiting.len())
    }

    /// The replicas that had not taken some acknowledged write yet when the last merger stopped.
    pub fn pending(&self) -> BTreeSet<NodeId> {
        let state = self.lock();
        let parts = state.open.values().flat_map(|record| &record.parts);
        parts
            .flat_map(|part| part.pending.iter().cloned())
            .collect()
    }

    /// A replica took an acknowledged part of these tasks late, as the local task `taken`, or never will (`None`); `first` is the
    /// part's first copy.
    pub async fn came_late(
        &self,
        uids: RangeInclusive<u32>,
        first: (&NodeId, u32),
        node: &NodeId,
        taken: Option<ReplicaTask>,
    ) {
        // Writes that went together have one record, or one each by now.
        let open: Vec<u32> = self.lock().open.range(uids).map(|(uid, _)| *uid).collect();
        for uid in open {
            self.one_came_late(uid, first, node, taken.clone()).await;
        }
    }

    async fn one_came_late(
        &self,
        uid: u32,
        first: (&NodeId, u32),
        node: &NodeId,
        taken: Option<ReplicaTask>,
    ) {
        let record = {
            let mut state = self.lock();
            let Some(record) = state.come_late(uid, first, node, taken.clone()) else {
                return;
            };
            let goes_on = state.note_shared_end_of_speaker(&record) || state.note_due(&record);
            (record, goes_on)
        };
        let (record, goes_on) = record;
        self.changes.tell();
        taken
            .iter()
            .for_each(|copy| self.marks.recorded(&copy.task()));
        if aggregate::status(&record).is_settled() && !goes_on {
            return self.settle(record).await;
        }
        self.store_open(&[uid]).await;
        self.outstanding.notify_waiters();
    }

    /// Lets open tasks end without a replica that is out of sync, if another replica has the same part.
    pub async fn abandon(&self, node: &NodeId) {
        let (changed, settled) = {
            let mut state = self.lock();
            let changed = state.abandon(node);
            let settled: Vec<Arc<TaskRecord>> = changed
                .iter()
                .filter(|record| {
                    !state.note_shared_end_of_speaker(record) && !state.note_due(record)
                })
                .filter(|record| aggregate::status(record).is_settled())
                .cloned()
                .collect();
            (changed, settled)
        };
        self.changes.tell();
        let open = changed
            .iter()
            .filter(|record| !settled.iter().any(|other| other.uid == record.uid));
        let open: Vec<u32> = open.map(|record| record.uid).collect();
        self.store_open(&open).await;
        self.settle_all(settled).await;
    }

    /// Stores the current records of open tasks, read again for each attempt.
    pub(super) async fn store_open(&self, uids: &[u32]) {
        let changes = || {
            let state = self.lock();
            let open = uids.iter().filter_map(|uid| state.open.get(uid));
            open.map(|record| put(record)).collect()
        };
        let mut patience = Patience::with("how tasks stand");
        let mut outcome = self.store.commit(changes()).await;
        while patience.after(outcome).await.is_continue() {
            outcome = self.store.commit(changes()).await;
        }
    }

    /// Takes the replicas whose tasks ended otherwise than those of the shard's other replicas.
    pub(in crate::tasks) fn take_differing(&self) -> Vec<(NodeId, String)> {
        std::mem::take(&mut self.lock().differing)
    }
}

impl State {
    fn abandon(&mut self, node: &NodeId) -> Vec<Arc<TaskRecord>> {
        let mut changed = Vec::new();
        for record in self.open.values_mut() {
            let mut any = false;
            for part in &mut Arc::make_mut(record).parts {
                any |= leave(part, node);
            }
            if any {
                changed.push(Arc::clone(record));
            }
        }
        for record in &changed {
            for copy in record.copies().filter(|copy| copy.node == *node) {
                self.stop_waiting(node, copy.local_uid, record.uid);
            }
            self.note(record);
        }
        changed
    }

    fn come_late(
        &mut self,
        uid: u32,
        (first, local_uid): (&NodeId, u32),
        node: &NodeId,
        taken: Option<ReplicaTask>,
    ) -> Option<Arc<TaskRecord>> {
        let is_it = |part: &ShardTask| {
            let known = part.copies.first();
            known.is_some_and(|copy| copy.node == *first && copy.local_uid == local_uid)
        };
        let place = self.open.get(&uid)?.parts.iter().position(is_it)?;
        let late = taken.clone();
        let changed = self.change(uid, |record| {
            let Some(part) = record.parts.get_mut(place) else {
                return;
            };
            part.pending.retain(|pending| pending != node);
            part.copies.extend(late);
        });
        if let Some(taken) = taken {
            let waiting = self.waiting.entry(node.clone()).or_default();
            waiting.entry(taken.local_uid).or_default().push(uid);
        }
        changed
    }

    /// Once all copies of a part have ended, and one succeeded, notes the replicas whose copies didn't. True if there are any.
    pub(super) fn note_differing(&mut self, record: &TaskRecord) -> bool {
        let mut any = false;
        for part in &record.parts {
            let ended = part.live().all(|copy| copy.state.status.is_settled());
            let succeeded = part
                .live()
                .any(|copy| copy.state.status == Status::Succeeded);
            if !ended || !succeeded {
                continue;
            }
            let others = part
                .live()
                .filter(|copy| copy.state.status != Status::Succeeded);
            for copy in others {
                any = true;
                let status = copy.state.status.as_str();
                let reason = format!("task {}, done by others, is {status} there", record.uid);
                self.differing.push((copy.node.clone(), reason));
            }
        }
        any
    }
}

/// Marks a node's copies of a part as out, if another replica has one. True if anything changed.
fn leave(part: &mut ShardTask, node: &NodeId) -> bool {
    let another = part.live().any(|copy| copy.node != *node);
    let pending = part.pending.len();
    part.pending.retain(|pending| pending != node);
    let mut any = part.pending.len() < pending;
    for copy in part
        .copies
        .iter_mut()
        .filter(|copy| another && copy.node == *node && !copy.out)
    {
        copy.out = true;
        any = true;
    }
    any
}

/// Where a task's effect can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// On every replica in sync.
    Everywhere,
    /// At least on these replicas, one for each shard that the task is for.
    By(Vec<(ShardId, NodeId)>),
    /// On some shard, no replica has applied it yet.
    NotYet,
}

impl Tasks {
    /// Which replicas have applied a task; `None` if there is no such task.
    pub fn applied(&self, uid: u32) -> Option<Applied> {
        let state = self.lock();
        if !state.notes.contains(uid) {
            return None;
        }
        let Some(record) = state.open_record(uid) else {
            return Some(Applied::Everywhere);
        };
        let by: Option<Vec<(ShardId, NodeId)>> = record
            .parts
            .iter()
            .filter(|part| !part.copies.is_empty())
            .map(|part| {
                let applied = part.live().find(|copy| copy.state.status.is_settled())?;
                Some((part.shard, applied.node.clone()))
            })
            .collect();
        Some(by.map_or(Applied::NotYet, Applied::By))
    }
}
