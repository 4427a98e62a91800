//! Selects the tasks that a request means.

use time::OffsetDateTime;

use super::task::{Kind, Status, Task};
use crate::auth::Grant;

/// Conditions that a task must all meet; a condition that is `None` is always met.
#[derive(Debug, Default)]
pub(crate) struct TaskFilter {
    /// The task's uid is one of these.
    pub(crate) uids: Option<Vec<u32>>,
    /// The task's batch is one of these.
    pub(crate) batches: Option<Vec<u32>>,
    /// The task was canceled by one of these tasks.
    pub(crate) canceled_by: Option<Vec<u32>>,
    /// The task's kind is one of these.
    pub(crate) kinds: Option<Vec<Kind>>,
    /// The task's status is one of these.
    pub(crate) statuses: Option<Vec<Status>>,
    /// The task concerns one of these indexes.
    pub(crate) indexes: Option<Vec<String>>,
    /// When it was accepted.
    pub(crate) enqueued: Period,
    /// When it began.
    pub(crate) started: Period,
    /// When it ended.
    pub(crate) finished: Period,
}

/// A period of time, without its end points.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Period {
    /// The period begins after this.
    pub(crate) after: Option<OffsetDateTime>,
    /// The period ends before this.
    pub(crate) before: Option<OffsetDateTime>,
}

impl Period {
    fn holds(self, date: Option<OffsetDateTime>) -> bool {
        let Some(date) = date else {
            return self.after.is_none() && self.before.is_none();
        };
        self.after.is_none_or(|after| date > after)
            && self.before.is_none_or(|before| date < before)
    }
}

fn is_in<T: PartialEq>(list: Option<&Vec<T>>, value: Option<&T>) -> bool {
    list.is_none_or(|list| value.is_some_and(|value| list.contains(value)))
}

impl TaskFilter {
    /// True if a task meets the conditions and the sender may see it.
    pub(crate) fn matches(&self, task: &Task, grant: &Grant) -> bool {
        let touched = task.work.indexes();
        let reached = grant.reaches_all()
            || (!touched.is_empty() && touched.iter().all(|index| grant.reaches(index)));
        reached
            && is_in(self.uids.as_ref(), Some(&task.uid))
            && is_in(self.batches.as_ref(), task.batch.as_ref())
            && is_in(self.canceled_by.as_ref(), task.canceled_by.as_ref())
            && is_in(self.kinds.as_ref(), Some(&task.work.kind()))
            && is_in(self.statuses.as_ref(), Some(&task.status))
            && self
                .indexes
                .as_ref()
                .is_none_or(|wanted| wanted.iter().any(|index| touched.contains(&index.as_str())))
            && self.enqueued.holds(Some(task.enqueued_at))
            && self.started.holds(task.started_at)
            && self.finished.holds(task.finished_at)
    }
}
