//! Deletes old tasks: the oldest tenth when there are too many, as on a node, and those past the maximum age, if one is set.
//!
//! As on a node, an automatic deletion is itself a task, so that the list shows it. The nodes' own lists are not touched: the
//! nodes clean them in the same way.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Tasks;
use crate::tasks::TaskError;
use crate::tasks::record::NewTask;

/// How many tasks one automatic deletion deletes at most.
const MAX_AT_ONCE: usize = 100_000;

impl Tasks {
    /// Deletes finished tasks past the maximum age; returns how many there were.
    ///
    /// # Errors
    /// The store failed.
    pub async fn forget_old(&self, now: OffsetDateTime) -> Result<u64, TaskError> {
        let Some(max_age) = self.limits.max_age else {
            return Ok(0);
        };
        let oldest = now - max_age;
        let old: Vec<u32> = {
            let state = self.lock();
            let past = state.notes.finished_before(oldest);
            past.take(MAX_AT_ONCE).collect()
        };
        // A single old task, which may be the last deletion's own, doesn't justify another deletion.
        if old.len() < 2 {
            return Ok(0);
        }
        self.clean(&old).await
    }

    /// Deletes these tasks and registers a deletion task that records it.
    pub(super) async fn clean(&self, uids: &[u32]) -> Result<u64, TaskError> {
        // A deletion adds one task: if it deleted only one, deletions would never stop.
        let [_, .., last] = uids else {
            return Ok(0);
        };
        let before = {
            let state = self.lock();
            let note = state.notes.get(*last);
            note.map(|note| note.enqueued_at() + time::Duration::nanoseconds(1))
        };
        let before = before.and_then(|before| before.format(&Rfc3339).ok());
        let deleted = self.delete(uids).await?;
        tracing::info!(deleted, "the oldest finished tasks were deleted");
        let query = format!(
            "?beforeEnqueuedAt={}&statuses=succeeded,failed,canceled",
            before.unwrap_or_default()
        );
        let mut details = Map::new();
        details.insert("matchedTasks".to_owned(), Value::from(uids.len()));
        details.insert("deletedTasks".to_owned(), Value::from(deleted));
        details.insert("originalFilter".to_owned(), Value::from(query));
        let trace = NewTask {
            kind: "taskDeletion".to_owned(),
            details,
            ..NewTask::default()
        };
        Box::pin(self.create(trace)).await?;
        Ok(deleted)
    }
}
