//! Queries about tasks, answered from memory.

use std::collections::BTreeMap;

use super::Queue;
use super::filter::TaskFilter;
use super::task::{Status, Task};
use crate::auth::Grant;

/// A page of tasks.
pub(crate) struct Page {
    /// The tasks on it.
    pub(crate) tasks: Vec<Task>,
    /// How many there are on all pages.
    pub(crate) total: u64,
    /// The uid where the next page begins.
    pub(crate) next: Option<u32>,
}

/// Which page is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageOf {
    /// The number of tasks on a page.
    pub(crate) limit: usize,
    /// The uid at which the page begins.
    pub(crate) from: Option<u32>,
    /// True if the oldest task comes first.
    pub(crate) reverse: bool,
}

impl Queue {
    /// One task, if the sender may see it.
    pub(crate) fn get(&self, uid: u32, grant: &Grant) -> Option<Task> {
        let filter = TaskFilter::default();
        self.state()
            .tasks
            .get(&uid)
            .filter(|task| filter.matches(task, grant))
            .cloned()
    }

    /// A page of the tasks that match a filter, newest first unless `reverse` is set.
    pub(crate) fn page(&self, filter: &TaskFilter, grant: &Grant, page: PageOf) -> Page {
        let state = self.state();
        let mut matching: Vec<&Task> = match &filter.uids {
            Some(uids) => {
                let mut uids = uids.clone();
                uids.sort_unstable();
                uids.dedup();
                uids.iter()
                    .filter_map(|uid| state.tasks.get(uid))
                    .filter(|task| filter.matches(task, grant))
                    .collect()
            }
            None => state
                .tasks
                .values()
                .filter(|task| filter.matches(task, grant))
                .collect(),
        };
        let total = matching.len() as u64;
        if !page.reverse {
            matching.reverse();
        }
        let begins = |task: &&&Task| match page.from {
            Some(from) if page.reverse => task.uid >= from,
            Some(from) => task.uid <= from,
            None => true,
        };
        let mut rest = matching.iter().filter(begins);
        let tasks = rest
            .by_ref()
            .take(page.limit)
            .map(|task| Task::clone(task))
            .collect();
        let next = rest.next().map(|task| task.uid);
        Page { tasks, total, next }
    }

    /// The uids of all tasks that match a filter.
    pub(crate) fn matching(&self, filter: &TaskFilter, grant: &Grant) -> Vec<u32> {
        self.state()
            .tasks
            .values()
            .filter(|task| filter.matches(task, grant))
            .map(|task| task.uid)
            .collect()
    }

    /// True if a task of this index is being executed.
    pub(crate) fn is_indexing(&self, index: &str) -> bool {
        self.state()
            .tasks
            .values()
            .any(|task| task.status == Status::Processing && task.work.indexes().contains(&index))
    }

    /// All tasks that match a filter, grouped by batch.
    pub(crate) fn batched(&self, filter: &TaskFilter, grant: &Grant) -> BTreeMap<u32, Vec<Task>> {
        let mut batches: BTreeMap<u32, Vec<Task>> = BTreeMap::new();
        for task in self
            .state()
            .tasks
            .values()
            .filter(|task| filter.matches(task, grant))
        {
            if let Some(batch) = task.batch {
                batches.entry(batch).or_default().push(task.clone());
            }
        }
        batches
    }
}
