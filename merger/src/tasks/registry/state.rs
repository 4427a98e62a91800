//! The registry's memory: a note of each task, the records of outstanding tasks, and what each node still has to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::removals::Removals;
use super::renames::{self, Pairs};
use super::shared::SharedEnd;
use crate::cluster::NodeId;
use crate::tasks::aggregate;
use crate::tasks::ending::BeforeEnd;
use crate::tasks::group::MOST_MEMBERS;
use crate::tasks::notes::Notes;
use crate::tasks::record::{LocalState, ReplicaTask, Status, TaskRecord};

#[derive(Default)]
pub(super) struct State {
    pub(super) next: u32,
    pub(super) notes: Notes,
    /// The records of open tasks, by the first uid of each: that is also how nodes' local tasks name them.
    pub(super) open: BTreeMap<u32, Arc<TaskRecord>>,
    /// The names that swaps and renamings exchanged, by task.
    pub(super) renamed: BTreeMap<u32, Pairs>,
    /// What each node still has to do: local uid → the records that wait for it, by their first uids. Writes that went together share
    /// a record; those of older mergers, and those that are to be sent again, have one each.
    pub(super) waiting: BTreeMap<NodeId, BTreeMap<u32, Vec<u32>>>,
    /// Ends of shared local tasks that were not taken yet.
    pub(super) shared_ends: Vec<SharedEnd>,
    /// Replicas whose tasks ended otherwise than the others', and the reason text.
    pub(super) differing: Vec<(NodeId, String)>,
    /// By index: when it last lost documents by a task whose record is deleted by now.
    pub(super) removals: Removals,
    /// Tasks that are to be read back and were not taken yet.
    pub(super) read_back_due: Vec<u32>,
    /// Hears of ends under the lock of this state.
    pub(super) before_end: Option<Arc<dyn BeforeEnd>>,
}

impl State {
    pub(super) fn insert(&mut self, record: Arc<TaskRecord>) {
        let status = aggregate::status(&record);
        self.note(&record);
        if status.is_settled() {
            return;
        }
        for copy in record
            .live_copies()
            .filter(|copy| !copy.state.status.is_settled())
        {
            let waiting = self.waiting.entry(copy.node.clone()).or_default();
            waiting.entry(copy.local_uid).or_default().push(record.uid);
        }
        self.open.insert(record.uid, record);
    }

    /// The record of an open task, which the task may share.
    pub(super) fn open_record(&self, uid: u32) -> Option<&Arc<TaskRecord>> {
        let (_, record) = self.open.range(..=uid).next_back()?;
        Some(record).filter(|record| record.holds(uid))
    }

    /// The records of those of these tasks that are open, each once.
    pub(super) fn records_of(&self, uids: &[u32]) -> Vec<Arc<TaskRecord>> {
        let found = uids.iter().filter_map(|uid| self.open_record(*uid));
        let by_first: BTreeMap<u32, &Arc<TaskRecord>> =
            found.map(|record| (record.uid, record)).collect();
        by_first.into_values().cloned().collect()
    }

    /// The uids of all open tasks.
    pub(super) fn open_uids(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.open.values().flat_map(|record| record.uids())
    }

    /// How many tasks share this record, of which all have ended or none has.
    pub(super) fn members_of(&self, first: u32) -> usize {
        let near = self.notes.range(first..first.saturating_add(MOST_MEMBERS));
        near.filter(|(uid, note)| note.is_in_group() && note.record_of(*uid) == first)
            .count()
    }

    /// Takes a task that has a record of its own out of the one that it shared.
    pub(super) fn drop_from_group(&mut self, uid: u32) {
        let before = self.open.range(..uid).next_back();
        let Some(first) = before.filter(|(_, record)| record.holds(uid)) else {
            return;
        };
        let first = *first.0;
        if let Some(record) = self.open.get_mut(&first) {
            Arc::make_mut(record).drop_member(uid);
        }
    }

    /// Gives each task of an open record one of its own. They wait for the same local tasks as before.
    pub(super) fn split(&mut self, first: u32) {
        let Some(record) = self.open.remove(&first) else {
            return;
        };
        for copy in record.copies() {
            let waiting = self.waiting.get_mut(&copy.node);
            let Some(uids) = waiting.and_then(|waiting| waiting.get_mut(&copy.local_uid)) else {
                continue;
            };
            if uids.contains(&first) {
                uids.retain(|uid| *uid != first);
                uids.extend(record.uids());
            }
        }
        for alone in record.all_alone() {
            self.note(&alone);
            self.open.insert(alone.uid, Arc::new(alone));
        }
    }

    /// Updates the task's note, which lists use. Whatever changes a task's status ends here, before the lock is released.
    pub(super) fn note(&mut self, record: &TaskRecord) {
        if let Some(before_end) = &self.before_end
            && aggregate::status(record).is_settled()
            && record.uids().any(|uid| !self.notes.has_ended(uid))
        {
            before_end.ends(&record.kind, record.index_uid.as_deref());
        }
        self.notes.note(record);
    }

    /// Changes an open task and returns the changed record; `None` if the task isn't open.
    pub(super) fn change(
        &mut self,
        uid: u32,
        change: impl FnOnce(&mut TaskRecord),
    ) -> Option<Arc<TaskRecord>> {
        let record = self.open.get_mut(&uid)?;
        change(Arc::make_mut(record));
        let record = Arc::clone(record);
        let before = self.notes.has_ended(uid);
        self.note(&record);
        if !before && self.notes.has_ended(uid) {
            // Done under the same lock, so that a reader who sees the end also sees the new names.
            self.rename(uid, renames::pairs(&record));
        }
        Some(record)
    }

    /// Takes over a node's answer about a local task into a task that waits for it. Returns the changed record; `None` if
    /// nothing changed.
    pub(super) fn update(
        &mut self,
        node: &NodeId,
        local_uid: u32,
        uid: u32,
        local: &LocalState,
    ) -> Option<Arc<TaskRecord>> {
        if local.status.is_settled() {
            self.stop_waiting(node, local_uid, uid);
        }
        let record = self.open.get(&uid)?;
        let is_it = |copy: &ReplicaTask| copy.node == *node && copy.local_uid == local_uid;
        let known = &record.copies().find(|copy| is_it(copy))?.state;
        // The details of a shared local task count all its writes, not this one.
        let local = match record.is_shared() {
            true => local.without_details(),
            false => local.clone(),
        };
        if *known == local {
            return None;
        }
        self.change(uid, |record| {
            if let Some(copy) = record.copies_mut().find(|copy| is_it(copy)) {
                copy.state = local;
            }
        })
    }

    pub(super) fn waited_for(&self, node: &NodeId, local_uid: u32) -> Vec<u32> {
        let waiting = self.waiting.get(node);
        waiting
            .and_then(|waiting| waiting.get(&local_uid))
            .cloned()
            .unwrap_or_default()
    }

    pub(super) fn stop_waiting(&mut self, node: &NodeId, local_uid: u32, uid: u32) {
        if let Some(waiting) = self.waiting.get_mut(node)
            && let Some(uids) = waiting.get_mut(&local_uid)
        {
            uids.retain(|waiting| *waiting != uid);
            if uids.is_empty() {
                waiting.remove(&local_uid);
            }
        }
    }

    pub(super) fn forget_waiting(&mut self, record: &TaskRecord) {
        for copy in record.copies() {
            self.stop_waiting(&copy.node, copy.local_uid, record.uid);
        }
    }

    /// Notes the end of a shared local task, if `node` has the copy that decides for the shard. True if the task stays open:
    /// the local task failed, and another write may be the cause.
    pub(super) fn note_shared_end(
        &mut self,
        node: &NodeId,
        local_uid: u32,
        uid: u32,
        local: &LocalState,
    ) -> bool {
        if !local.status.is_settled() {
            return false;
        }
        let Some(record) = self.open.get(&uid).cloned() else {
            return false;
        };
        let speaks = record
            .shared()
            .is_some_and(|copy| copy.node == *node && copy.local_uid == local_uid);
        if !speaks {
            return false;
        }
        let stays_open = self.push_shared_end(&record, local);
        if stays_open {
            self.stop_waiting(node, local_uid, uid);
        }
        stays_open
    }

    /// The same for the copy that decides from now on, if it has ended already.
    pub(super) fn note_shared_end_of_speaker(&mut self, record: &TaskRecord) -> bool {
        match record.shared() {
            Some(copy) if copy.state.status.is_settled() => {
                let local = copy.state.clone();
                self.push_shared_end(record, &local)
            }
            _ => false,
        }
    }

    fn push_shared_end(&mut self, record: &TaskRecord, local: &LocalState) -> bool {
        let failed = (local.status == Status::Failed).then(|| local.clone());
        let stays_open = failed.is_some();
        // The group is identified by its first copy, even if another copy decides now.
        if let Some(first) = record.copies().next() {
            self.shared_ends.push(SharedEnd {
                uid: record.uid,
                node: first.node.clone(),
                local_uid: first.local_uid,
                failed,
            });
        }
        stays_open
    }

    /// Notes a task that the nodes have done and that is now to be read back. True if it is such a task.
    pub(super) fn note_due(&mut self, record: &TaskRecord) -> bool {
        let due =
            aggregate::nodes_status(record).is_settled() && !aggregate::status(record).is_settled();
        if due {
            self.read_back_due.push(record.uid);
        }
        due
    }

    /// Notes again what follows from the end of an open task's copies, if the last merger stopped before that was done.
    pub(super) fn note_end(&mut self, record: &TaskRecord) {
        if aggregate::status(record).is_settled() || record.parts.is_empty() {
            return;
        }
        self.note_shared_end_of_speaker(record);
        if aggregate::nodes_status(record).is_settled() && !self.note_differing(record) {
            self.note_due(record);
        }
    }

    /// The oldest settled tasks, if the maximum number of tasks is reached: a tenth of it, as on a node.
    pub(super) fn surplus(&self, max_tasks: usize) -> Vec<u32> {
        if self.notes.len() < max_tasks {
            return Vec::new();
        }
        // At least two, since the deletion adds a task itself.
        let most = max_tasks.div_ceil(10).max(2);
        self.notes.settled().take(most).collect()
    }
}
