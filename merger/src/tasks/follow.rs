//! Polls nodes for the state of their local tasks: one follower for each node, with one request in flight, however many clients
//! wait.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::serde::rfc3339;
use tokio::time::Instant;

use super::record::{LocalState, Status};
use super::{Context, SharedEnd};
use crate::cluster::NodeId;
use crate::supervise::{AGAIN, survive};
use crate::upstream::TaskListError;

/// How many tasks one request asks about. Nodes work in order, so the tasks that ended are among the first; if all of them have
/// ended, the next ones are asked about at once.
const TASKS_A_POLL: usize = 20;
/// The pause between polls: short while something changes, doubled while nothing does.
const SHORTEST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The node is left alone after a poll for the time that the poll took, times this.
const REST_AFTER_POLL: u32 = 4;
/// The pause while the node doesn't answer.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(1);
const POLL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to look for nodes with outstanding tasks, besides the notification when a task is created.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What other parts of the merger do when a task ends; the follower only notifies them.
pub trait TaskEvents: Send + Sync + 'static {
    /// A replica's task ended otherwise than its shard's others. When this returns, the replica is out of sync; until then, the
    /// follower doesn't look at the node's next tasks.
    fn replica_differs(&self, node: NodeId, reason: String) -> BoxFuture<'_, ()>;

    /// Node tasks that several small writes were merged into have ended.
    fn shared_tasks_ended(&self, ends: Vec<SharedEnd>);

    /// Nodes have done these tasks' changes of settings; the settings must be read back now.
    fn settings_changed(&self, uids: Vec<u32>);
}

/// Polls nodes, and passes on what becomes of their tasks.
#[derive(Clone)]
struct Follower {
    ctx: Arc<Context>,
    events: Arc<dyn TaskEvents>,
}

/// Follows all nodes; never returns.
pub async fn follow(ctx: Arc<Context>, events: Arc<dyn TaskEvents>) {
    let follower = Follower {
        ctx: Arc::clone(&ctx),
        events,
    };
    let following: Arc<Mutex<HashSet<NodeId>>> = Arc::default();
    loop {
        let created = ctx.tasks.created();
        // Reports the shared ends of replicas that were removed from the in-sync set meanwhile.
        follower.report_shared_ends();
        for node in ctx.tasks.busy_nodes() {
            // Tasks don't wait for a replica that is out of sync, even if it was removed while a write was on its way. But a
            // task may only end without the replica once reads don't go there any more.
            if !ctx.cluster.in_sync.holds(&node) && ctx.cluster.reads_have_left(&node) {
                ctx.tasks.abandon(&node).await;
            }
            let new = following
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(node.clone());
            if new {
                let (follower, following) = (follower.clone(), Arc::clone(&following));
                tokio::spawn(async move {
                    let panics = &follower.ctx.metrics.panics;
                    // After a panic, the next round starts a new follower for the node.
                    survive(panics, "follow-node", follow_node(&follower, &node)).await;
                    following
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&node);
                });
            }
        }
        follower.report_due();
        let _ = tokio::time::timeout(LOOK_AGAIN, created).await;
    }
}

/// Follows one node until it has nothing outstanding.
async fn follow_node(follower: &Follower, node: &NodeId) {
    let ctx = &follower.ctx;
    let mut pause = SHORTEST_PAUSE;
    loop {
        let created = ctx.tasks.created();
        let uids = ctx.tasks.outstanding(node, TASKS_A_POLL);
        if uids.is_empty() {
            return;
        }
        let asked = Instant::now();
        let said = poll(ctx, node, &uids).await;
        let rest = asked.elapsed().saturating_mul(REST_AFTER_POLL);
        let Some(said) = said else {
            tokio::time::sleep(UNREACHABLE_PAUSE).await;
            continue;
        };
        let all_ended = said.iter().all(|(_, state)| state.status.is_settled());
        let changed = ctx.tasks.apply(node, said).await;
        follower.report_differing().await;
        follower.report_shared_ends();
        follower.report_due();
        if all_ended && uids.len() == TASKS_A_POLL {
            continue;
        }
        // A busy node answers slowly and needs its time for indexing: the slower it is, the less often it is asked.
        tokio::time::sleep(rest.min(LONGEST_PAUSE)).await;
        pause = if changed {
            SHORTEST_PAUSE
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        if tokio::time::timeout(pause, created).await.is_ok() {
            pause = SHORTEST_PAUSE;
            tokio::time::sleep(pause).await;
        }
    }
}

impl Follower {
    /// Reports replicas whose tasks ended otherwise than their shard's others: their data differs now.
    async fn report_differing(&self) {
        for (node, reason) in self.ctx.tasks.take_differing() {
            // Retries until it is reported: the difference wouldn't be found a second time.
            let told = || self.events.replica_differs(node.clone(), reason.clone());
            let panics = &self.ctx.metrics.panics;
            while survive(panics, "take-out", told()).await.is_none() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    fn report_shared_ends(&self) {
        let ends = self.ctx.tasks.take_shared_ends();
        if !ends.is_empty() {
            self.events.shared_tasks_ended(ends);
        }
    }

    fn report_due(&self) {
        let due = self.ctx.tasks.take_due();
        if !due.is_empty() {
            self.events.settings_changed(due);
        }
    }
}

/// A local task. Its fields stand here once more, since a flattened struct is read by way of copies.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LocalTask {
    uid: u32,
    status: Status,
    #[serde(default)]
    details: Option<Map<String, Value>>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default, with = "rfc3339::option")]
    started_at: Option<OffsetDateTime>,
    #[serde(default, with = "rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
}

impl From<LocalTask> for (u32, LocalState) {
    fn from(task: LocalTask) -> Self {
        let state = LocalState {
            status: task.status,
            details: task.details,
            error: task.error,
            started_at: task.started_at,
            finished_at: task.finished_at,
        };
        (task.uid, state)
    }
}

/// The node's answer about these tasks; `None` if it gives no usable answer. A task that the node doesn't know any more counts
/// as failed.
async fn poll(ctx: &Context, node: &NodeId, uids: &[u32]) -> Option<Vec<(u32, LocalState)>> {
    let address = ctx.cluster.address(node)?;
    let list = uids
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let query = format!("limit={TASKS_A_POLL}&uids={list}");
    let authority = ctx.own_authority();
    let listed = ctx
        .upstream
        .tasks::<LocalTask>(address, &query, &authority, POLL_TIMEOUT);
    let listed = match listed.await {
        Ok(listed) => listed,
        Err(error @ TaskListError::Upstream(_)) => {
            tracing::debug!(%node, %error, "a node does not tell of its tasks");
            return None;
        }
        Err(error) => {
            tracing::warn!(%node, %error, "a node's list of tasks can't be read");
            return None;
        }
    };
    let mut said: Vec<(u32, LocalState)> = listed.into_iter().map(Into::into).collect();
    let known: HashSet<u32> = said.iter().map(|(uid, _)| *uid).collect();
    said.extend(
        uids.iter()
            .filter(|uid| !known.contains(uid))
            .map(|uid| (*uid, lost(node, *uid))),
    );
    Some(said)
}

/// The state of a task that its node doesn't know any more.
pub(super) fn lost(node: &NodeId, uid: u32) -> LocalState {
    LocalState {
        status: Status::Failed,
        error: Some(json!({
            "message": format!("Node {node} does not know its task {uid} any more."),
            "code": "internal",
            "type": "internal",
            "link": "https://docs.meilisearch.com/errors#internal",
        })),
        ..LocalState::default()
    }
}
