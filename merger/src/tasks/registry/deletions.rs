//! Deletes tasks, and keeps what must outlive their records. Tasks that delete tasks wait for those that nodes work on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{DELETION, FLOOR_KEY, Tasks, key, put};
use crate::cluster::NodeId;
use crate::store::Change;
use crate::tasks::record::{ReadBack, Status, TaskRecord};
use crate::tasks::{TaskError, aggregate};

impl Tasks {
    /// Deletes those of `uids` that are settled; returns how many there were.
    pub(in crate::tasks) async fn delete(&self, uids: &[u32]) -> Result<u64, TaskError> {
        let (gone, floor): (Vec<u32>, u32) = {
            let state = self.lock();
            // One whose end isn't stored yet would be there again after that.
            let settled =
                |uid: &u32| state.notes.has_ended(*uid) && state.open_record(*uid).is_none();
            (uids.iter().copied().filter(settled).collect(), state.next)
        };
        // One at a time, since two might delete from the same shared record.
        let _alone = self.deleting.lock().await;
        let mut changes = self.marks_of(&gone).await?;
        changes.extend(self.without(&gone).await?);
        changes.push(Change::put(FLOOR_KEY, floor.to_string().into_bytes()));
        changes.extend(self.marks.changes());
        changes.extend(self.lock().removals_of(&gone));
        self.store.commit(changes).await?;
        let mut state = self.lock();
        for uid in &gone {
            state.notes.remove(*uid);
        }
        state.tidy_renamed();
        drop(state);
        self.changes.tell();
        Ok(gone.len() as u64)
    }

    /// The changes that delete these settled tasks from the store.
    async fn without(&self, gone: &[u32]) -> Result<Vec<Change>, TaskError> {
        let mut by_record: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let shared = {
            let state = self.lock();
            let mut shared = BTreeSet::new();
            for uid in gone {
                let Some(note) = state.notes.get(*uid) else {
                    continue;
                };
                let first = note.record_of(*uid);
                by_record.entry(first).or_default().push(*uid);
                if note.is_in_group() {
                    shared.insert(first);
                }
            }
            // Of most shared records, all tasks are deleted at once.
            shared.retain(|first| {
                let going = by_record.get(first).map_or(0, Vec::len);
                state.members_of(*first) > going
            });
            shared
        };
        let mut changes = Vec::with_capacity(by_record.len());
        for (first, uids) in by_record {
            if !shared.contains(&first) {
                changes.push(Change::delete(key(first)));
                continue;
            }
            let Some(uid) = uids.first() else { continue };
            let mut record = match self.load(*uid).await {
                Ok(record) => record,
                Err(TaskError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            uids.iter().for_each(|uid| record.drop_member(*uid));
            changes.push(put(&record));
        }
        Ok(changes)
    }

    /// The local uids, on each node, of the settled tasks among `uids` (at most `limit` tasks), except local tasks that other
    /// open tasks wait for.
    pub(in crate::tasks) async fn settled_local_uids(
        &self,
        uids: &[u32],
        limit: usize,
    ) -> Result<HashMap<NodeId, Vec<u32>>, TaskError> {
        let settled: Vec<u32> = {
            let state = self.lock();
            let is_settled = |uid: &&u32| state.notes.has_ended(**uid);
            uids.iter()
                .filter(is_settled)
                .copied()
                .take(limit)
                .collect()
        };
        let mut found: HashMap<NodeId, BTreeSet<u32>> = HashMap::new();
        let mut last: Option<TaskRecord> = None;
        for uid in settled {
            if last.as_ref().is_some_and(|record| record.holds(uid)) {
                continue;
            }
            let record = match self.load(uid).await {
                Ok(record) => last.insert(record),
                Err(TaskError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let state = self.lock();
            for copy in record.copies() {
                if state.waited_for(&copy.node, copy.local_uid).is_empty() {
                    let node = found.entry(copy.node.clone()).or_default();
                    node.insert(copy.local_uid);
                }
            }
        }
        let lists = found.into_iter();
        Ok(lists
            .map(|(node, uids)| (node, uids.into_iter().collect()))
            .collect())
    }

    /// Those of `uids` that nodes work on, or will begin next.
    pub(in crate::tasks) fn under_way(&self, uids: &[u32]) -> Vec<u32> {
        let state = self.lock();
        let is_next = |record: &TaskRecord| {
            let mut open = record
                .live_copies()
                .filter(|copy| !copy.state.status.is_settled());
            open.all(|copy| {
                let waiting = state.waiting.get(&copy.node);
                let first = waiting.and_then(|waiting| waiting.keys().next());
                first == Some(&copy.local_uid)
            })
        };
        let begun = |uid: &u32| {
            state.open_record(*uid).is_some_and(|record| {
                aggregate::status(record) == Status::Processing || is_next(record)
            })
        };
        uids.iter().copied().filter(begun).collect()
    }

    /// The open tasks that delete tasks.
    pub(in crate::tasks) fn open_deletions(&self) -> Vec<u32> {
        let state = self.lock();
        let open = state.open.values();
        let deletions = open.filter(|record| record.kind == DELETION);
        deletions.map(|record| record.uid).collect()
    }

    /// Records how many tasks a deletion has deleted, and ends it.
    pub(in crate::tasks) async fn deletion_done(&self, uid: u32, deleted: u64) {
        let changed = self.lock().change(uid, |record| {
            let details = &mut record.details;
            details.insert("deletedTasks".to_owned(), deleted.into());
            record.read_back = ReadBack::Done(Vec::new());
        });
        if let Some(record) = changed {
            self.settle(record).await;
        }
    }
}
