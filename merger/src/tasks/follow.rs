//! Asks nodes how their local tasks stand: one follower a node, one request of it in flight, however many clients wait.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::serde::rfc3339;
use tokio::time::Instant;

use futures_util::future::BoxFuture;

use super::Context;
use super::SharedEnd;
use super::record::{LocalState, Status};
use crate::cluster::NodeId;
use crate::supervise::{AGAIN, survive};
use crate::upstream::TaskListError;

/// How many tasks one request asks for. Nodes work in order, so that those which ended are among the first; where all of them have,
/// the next are asked for at once.
const TASKS_A_POLL: usize = 20;
/// The pause between polls: short while something changes, doubled while nothing does.
const SHORTEST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How much longer than a poll took the node is left alone after it.
const REST_AFTER_POLL: u32 = 4;
/// The pause while the node doesn't answer.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(1);
const POLL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often nodes with outstanding tasks are looked for, beside the call when one is created.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What follows from a task's end is another part's work: this one only says so.
pub trait TaskEvents: Send + Sync + 'static {
    /// A replica's task ended otherwise than its shard's others. The replica is out of sync when this is done: before that, the node's
    /// next tasks are not looked at.
    fn replica_differs(&self, node: NodeId, reason: String) -> BoxFuture<'_, ()>;

    /// Tasks of nodes have ended that several small writes were merged into.
    fn shared_tasks_ended(&self, ends: Vec<SharedEnd>);

    /// These tasks have changed settings on nodes, which are to be read back.
    fn settings_changed(&self, uids: Vec<u32>);
}

/// Follows nodes, and tells of what their tasks come to.
#[derive(Clone)]
struct Follower {
    ctx: Arc<Context>,
    events: Arc<dyn TaskEvents>,
}

/// Follows all nodes; never ends.
pub async fn follow(ctx: Arc<Context>, events: Arc<dyn TaskEvents>) {
    let follower = Follower {
        ctx: Arc::clone(&ctx),
        events,
    };
    let following: Arc<Mutex<HashSet<NodeId>>> = Arc::default();
    loop {
        let created = ctx.tasks.created();
        // Those of replicas that were taken out meanwhile.
        follower.report_shared_ends();
        for node in ctx.tasks.busy_nodes() {
            // Nobody waits for a replica that is out of sync, be it that it went out while a write was on its way. But a task
            // that ends without it has ended for readers, too.
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
                    // After a panic it is begun anew when the node is looked for again.
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
        // A busy node is slow to answer, and its time is for indexing: it is asked the less often.
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
    /// Replicas whose tasks ended otherwise than their shard's others hold something else now.
    async fn report_differing(&self) {
        for (node, reason) in self.ctx.tasks.take_differing() {
            // Nobody would find again that it differs.
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

/// What the node says of these tasks; `None` while it gives no usable answer. A task that the node doesn't know any more has failed.
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

/// What is said of a task that its node doesn't know.
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
