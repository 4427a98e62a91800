//! Writes that share one local task: how it ended, and what each write does if it failed.

use std::sync::Arc;

use super::{Tasks, put};
use crate::cluster::NodeId;
use crate::tasks::TaskError;
use crate::tasks::record::{LateTicket, LocalState, ShardTask};

/// The end of a local task that several client tasks share, for a record of theirs.
#[derive(Debug, Clone)]
pub struct SharedEnd {
    /// The first cluster-wide uid of the record.
    pub uid: u32,
    /// The node of the group's first copy, which identifies the shared task.
    pub node: NodeId,
    /// The uid of the shared task on that node.
    pub local_uid: u32,
    /// The failed state, if it failed. The tasks then stay open until each had its [`Tasks::resend`] or [`Tasks::give_up`], after
    /// [`Tasks::split`].
    pub failed: Option<LocalState>,
}

impl Tasks {
    /// Takes the ends of shared local tasks that were noted since the last call.
    pub(in crate::tasks) fn take_shared_ends(&self) -> Vec<SharedEnd> {
        std::mem::take(&mut self.lock().shared_ends)
    }

    /// Gives each task of a record that shared a failed local task a record of its own. Returns those that still share it: the uid
    /// of each, and its place among the writes that went together.
    pub async fn split(&self, uid: u32, (node, local_uid): (&NodeId, u32)) -> Vec<(u32, u32)> {
        let (alone, stored) = {
            let mut state = self.lock();
            let Some(record) = state.open.get(&uid).cloned() else {
                return Vec::new();
            };
            let first = record.copies().next();
            let shares =
                first.is_some_and(|copy| copy.node == *node && copy.local_uid == local_uid);
            if !shares || !record.is_shared() {
                return Vec::new();
            }
            let together = !record.members.is_empty();
            if together {
                state.split(uid);
            }
            let alone = record.uids().filter_map(|uid| {
                let share = record.alone(uid)?.share?;
                Some((uid, share.place))
            });
            (alone.collect::<Vec<_>>(), !together)
        };
        if !stored {
            let uids: Vec<u32> = alone.iter().map(|(uid, _)| *uid).collect();
            self.store_open(&uids).await;
        }
        alone
    }

    /// Replaces the parts of a task that shared a failed local task by those of its own new delivery.
    ///
    /// # Errors
    /// The store failed.
    pub async fn resend(&self, uid: u32, mut parts: Vec<ShardTask>) -> Result<(), TaskError> {
        let tickets = parts.iter_mut().filter_map(|part| part.late.take());
        let late: Vec<LateTicket> = tickets.collect();
        let record = {
            let mut state = self.lock();
            let Some(mut record) = state.open.remove(&uid) else {
                return Ok(());
            };
            state.forget_waiting(&record);
            let alone = Arc::make_mut(&mut record);
            alone.parts = parts;
            alone.share = None;
            state.insert(Arc::clone(&record));
            record
        };
        self.store.commit(vec![put(&record)]).await?;
        for ticket in late {
            ticket.tell(uid..=uid);
        }
        self.outstanding.notify_waiters();
        self.changes.tell();
        Ok(())
    }

    /// Fails a task that shared a failed local task and can't be delivered again; it gets that task's error.
    pub async fn give_up(&self, uid: u32, failed: LocalState) {
        let record = {
            let mut state = self.lock();
            let given_up = state.change(uid, |record| {
                for copy in record.copies_mut() {
                    if !copy.state.status.is_settled() {
                        copy.state = failed.clone();
                    }
                }
            });
            let Some(record) = given_up else { return };
            state.forget_waiting(&record);
            record
        };
        self.changes.tell();
        self.settle(record).await;
    }
}

#[cfg(test)]
pub(super) mod tests;
