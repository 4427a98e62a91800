//! Takes over the nodes' answers about local tasks into the tasks that clients see.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Tasks;
use crate::cluster::NodeId;
use crate::store::Patience;
use crate::tasks::aggregate;
use crate::tasks::follow::lost;
use crate::tasks::record::{LocalState, ReadBack, TaskRecord};

/// How many ends of tasks are stored in one commit.
const ENDS_A_COMMIT: usize = 256;

impl Tasks {
    /// The lowest outstanding local uids of a node, at most `limit`: nodes work in order, so these settle first.
    pub(in crate::tasks) fn outstanding(&self, node: &NodeId, limit: usize) -> Vec<u32> {
        let state = self.lock();
        state
            .waiting
            .get(node)
            .map(|waiting| waiting.keys().copied().take(limit).collect())
            .unwrap_or_default()
    }

    /// The nodes that have outstanding tasks.
    pub(in crate::tasks) fn busy_nodes(&self) -> Vec<NodeId> {
        let state = self.lock();
        state
            .waiting
            .iter()
            .filter(|(_, waiting)| !waiting.is_empty())
            .map(|(node, _)| node.clone())
            .collect()
    }

    /// Resolves when a task is created after the call.
    pub(in crate::tasks) fn created(&self) -> tokio::sync::futures::Notified<'_> {
        self.outstanding.notified()
    }

    /// Takes over a node's answers about its local tasks. True if anything changed.
    pub(in crate::tasks) async fn apply(
        &self,
        node: &NodeId,
        said: Vec<(u32, LocalState)>,
    ) -> bool {
        let mut changed = false;
        let mut settled = Vec::new();
        {
            let mut state = self.lock();
            for (local_uid, local) in said {
                let uids = state.waited_for(node, local_uid);
                for uid in uids {
                    if state.note_shared_end(node, local_uid, uid, &local) {
                        changed = true;
                        continue;
                    }
                    let Some(record) = state.update(node, local_uid, uid, &local) else {
                        continue;
                    };
                    changed = true;
                    // If replicas disagree, the task ends only when those that differ are out of sync.
                    if aggregate::nodes_status(&record).is_settled()
                        && !state.note_differing(&record)
                        && !state.note_due(&record)
                    {
                        settled.push(record);
                    }
                }
            }
        }
        self.changes.tell();
        self.settle_all(settled).await;
        changed
    }

    /// Fails all outstanding tasks of a node that lost its disk.
    pub async fn fail_outstanding(&self, node: &NodeId) {
        let uids = self.outstanding(node, usize::MAX);
        let said = uids.into_iter().map(|uid| (uid, lost(node, uid)));
        self.apply(node, said.collect()).await;
    }

    /// Takes the tasks that the nodes have done and that are now to be read back.
    pub(in crate::tasks) fn take_due(&self) -> Vec<u32> {
        std::mem::take(&mut self.lock().read_back_due)
    }

    /// Stores the result of a task's read-back, which ends the task.
    pub async fn read_back(&self, uid: u32, found: ReadBack) {
        let changed = self.lock().change(uid, |record| record.read_back = found);
        if let Some(record) = changed {
            self.settle(record).await;
        }
    }

    /// Stores how a task ended, and only then removes it from the open tasks.
    pub(super) async fn settle(&self, record: Arc<TaskRecord>) {
        self.settle_all(vec![record]).await;
    }

    /// The same for several tasks, in as few commits as possible.
    pub(super) async fn settle_all(&self, records: Vec<Arc<TaskRecord>>) {
        for records in records.chunks(ENDS_A_COMMIT) {
            // Computed only once, since this counts the tasks that wait to be announced.
            let changes = self.ends(records);
            // If the merger crashes before this is stored, the nodes are asked again.
            let mut patience = Patience::with("the end of tasks");
            let stored = loop {
                let outcome = self.store.commit_unsynced(changes.clone()).await;
                if let ControlFlow::Break(stored) = patience.after(outcome).await {
                    break stored;
                }
            };
            if stored.is_none() {
                continue;
            }
            let mut state = self.lock();
            for record in records {
                state.open.remove(&record.uid);
            }
            drop(state);
            self.changes.tell();
            for record in records {
                self.tell(record);
            }
        }
    }
}
