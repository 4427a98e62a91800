//! Questions about the open tasks: other parts wait for some of them, or decide by them what they may do.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use time::OffsetDateTime;

use super::Tasks;
use crate::cluster::NodeId;
use crate::tasks::aggregate;
use crate::tasks::record::{Status, TaskRecord, Touches};

/// The tasks that have not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many have not begun.
    pub enqueued: i64,
    /// How many have begun.
    pub processing: i64,
    /// When the oldest was acknowledged.
    pub oldest: Option<OffsetDateTime>,
}

impl Tasks {
    /// How many tasks have not ended, and since when.
    pub fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        for record in self.lock().open.values() {
            let count = i64::try_from(record.count()).unwrap_or(i64::MAX);
            match aggregate::status(record) {
                Status::Enqueued => backlog.enqueued += count,
                _ => backlog.processing += count,
            }
            let at = record.enqueued_at;
            backlog.oldest = Some(backlog.oldest.map_or(at, |oldest| oldest.min(at)));
        }
        backlog
    }

    /// The record of an open task, as if it had one of its own; `None` if the task has ended.
    pub(in crate::tasks) fn open_record(&self, uid: u32) -> Option<TaskRecord> {
        let record = self.lock().open_record(uid).cloned();
        Some(record?.alone(uid)?.into_owned())
    }

    /// Whether a task hasn't ended.
    pub(in crate::tasks) fn is_open(&self, uid: u32) -> bool {
        self.lock().open_record(uid).is_some()
    }

    /// The local uids, on each node, of the open tasks among `uids`.
    pub(in crate::tasks) fn local_uids(&self, uids: &[u32]) -> HashMap<NodeId, Vec<u32>> {
        let state = self.lock();
        let named: HashSet<u32> = uids.iter().copied().collect();
        let all_named = |record: &TaskRecord| record.uids().all(|uid| named.contains(&uid));
        let mut found: HashMap<NodeId, BTreeSet<u32>> = HashMap::new();
        for copy in state
            .records_of(uids)
            .iter()
            .flat_map(|record| record.copies())
        {
            // Canceling a shared local task would also cancel other clients' writes.
            let waiting = state.waited_for(&copy.node, copy.local_uid);
            let mut waiting = waiting.iter().filter_map(|first| state.open.get(first));
            if !copy.state.status.is_settled() && waiting.all(|record| all_named(record)) {
                let node = found.entry(copy.node.clone()).or_default();
                node.insert(copy.local_uid);
            }
        }
        let lists = found.into_iter();
        lists
            .map(|(node, uids)| (node, uids.into_iter().collect()))
            .collect()
    }

    /// Notes, for the open tasks among `uids`, which cancelation ended them if they end canceled; returns how many are open.
    pub(in crate::tasks) fn cancel(&self, uids: &[u32], by: u32) -> u64 {
        let mut state = self.lock();
        let named: HashSet<u32> = uids.iter().copied().collect();
        let mut count = 0;
        for first in state.records_of(uids).iter().map(|record| record.uid) {
            let Some(record) = state.open.get_mut(&first) else {
                continue;
            };
            let here = record.uids().filter(|uid| named.contains(uid)).count();
            count += here as u64;
            // A local task is only canceled together with all writes that share it.
            if here == record.count() {
                Arc::make_mut(record).canceled_by = Some(by);
            }
        }
        count
    }

    /// Whether an open task, later than `after`, may change an index's settings.
    pub fn changes_settings(&self, index_uid: &str, after: Option<u32>) -> bool {
        let state = self.lock();
        state.open.values().any(|record| {
            let may = match record.kind.as_str() {
                "settingsUpdate" | "indexUpdate" | "indexDeletion" => {
                    record.index_uid.as_deref() == Some(index_uid)
                }
                "indexSwap" => true,
                _ => false,
            };
            may && after.is_none_or(|after| record.uid > after)
        })
    }

    /// Whether a task of one of these kinds is open; with `index_uid`, only tasks of that index count.
    pub fn are_open(&self, kinds: &[&str], index_uid: Option<&str>) -> bool {
        let state = self.lock();
        state.open.values().any(|record| {
            kinds.contains(&record.kind.as_str())
                && index_uid.is_none_or(|uid| record.index_uid.as_deref() == Some(uid))
        })
    }

    /// Whether an open task may change anything of an index.
    pub fn may_change(&self, index_uid: &str) -> bool {
        let state = self.lock();
        state.open.values().any(|record| {
            record.index_uid.as_deref() == Some(index_uid)
                || matches!(record.kind.as_str(), "indexSwap" | "indexUpdate")
        })
    }

    /// Whether some replica hasn't taken an acknowledged write of an index yet.
    pub fn is_late(&self, index_uid: &str) -> bool {
        let state = self.lock();
        state.open.values().any(|record| {
            record.index_uid.as_deref() == Some(index_uid)
                && record.parts.iter().any(|part| !part.pending.is_empty())
        })
    }

    /// Whether an open task may remove documents from an index, or change its name.
    pub fn takes_documents(&self, index_uid: &str) -> bool {
        let state = self.lock();
        state
            .open
            .values()
            .any(|record| match record.kind.as_str() {
                "documentDeletion" | "documentEdition" | "indexDeletion" | "indexUpdate" => {
                    record.index_uid.as_deref() == Some(index_uid)
                }
                "indexSwap" => true,
                _ => false,
            })
    }

    /// The other open settings changes of an index, besides `uid`: whether one of them is earlier, and which settings the later
    /// ones touch.
    pub fn other_settings_changes(&self, index_uid: &str, uid: u32) -> (bool, Vec<Touches>) {
        let state = self.lock();
        let same = |record: &&Arc<TaskRecord>| {
            record.kind == "settingsUpdate" && record.index_uid.as_deref() == Some(index_uid)
        };
        let others = state.open.values().filter(same);
        let (mut earlier, mut later) = (false, Vec::new());
        for record in others.filter(|record| record.uid != uid) {
            match record.uid < uid {
                true => earlier = true,
                false => later.push(record.touches.clone()),
            }
        }
        (earlier, later)
    }

    /// Which settings a change touches, and the nodes where it failed; `None` if it isn't open, or succeeded on all shards.
    pub fn failed_somewhere(&self, uid: u32) -> Option<(Touches, BTreeSet<NodeId>)> {
        let record = self.open_record(uid)?;
        if aggregate::nodes_status(&record) == Status::Succeeded {
            return None;
        }
        let failed = record
            .live_copies()
            .filter(|copy| copy.state.status != Status::Succeeded);
        let failed = failed.map(|copy| copy.node.clone()).collect();
        Some((record.touches.clone(), failed))
    }
}
