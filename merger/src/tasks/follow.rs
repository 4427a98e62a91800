//! Asks nodes how their local tasks stand: one follower a node, one request of it in flight, however many clients wait.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::serde::rfc3339;
use tokio::time::Instant;

use super::record::{LocalState, Status};
use crate::app::App;
use crate::cluster::{NodeId, TakenOut, take_out_surely};
use crate::supervise::{AGAIN, survive};
use crate::upstream::{NodeRequest, Target};

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

/// Follows all nodes; never ends.
pub async fn follow(app: Arc<App>) {
    let following: Arc<Mutex<HashSet<NodeId>>> = Arc::default();
    loop {
        let created = app.tasks.created();
        // Those of replicas that were taken out meanwhile.
        act_on_shared_ends(&app);
        for node in app.tasks.busy_nodes() {
            // Nobody waits for a replica that is out of sync, be it that it went out while a write was on its way. But a task
            // that ends without it has ended for readers, too.
            if !app.cluster.in_sync.holds(&node) && app.cluster.reads_have_left(&node) {
                app.tasks.abandon(&node).await;
            }
            let new = following
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(node.clone());
            if new {
                let (app, following) = (Arc::clone(&app), Arc::clone(&following));
                tokio::spawn(async move {
                    // After a panic it is begun anew when the node is looked for again.
                    survive(&app, "follow-node", follow_node(&app, &node)).await;
                    following
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&node);
                });
            }
        }
        look_into_due(&app);
        let _ = tokio::time::timeout(LOOK_AGAIN, created).await;
    }
}

/// Follows one node until it has nothing outstanding.
async fn follow_node(app: &Arc<App>, node: &NodeId) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let created = app.tasks.created();
        let uids = app.tasks.outstanding(node, TASKS_A_POLL);
        if uids.is_empty() {
            return;
        }
        let asked = Instant::now();
        let said = poll(app, node, &uids).await;
        let rest = asked.elapsed().saturating_mul(REST_AFTER_POLL);
        let Some(said) = said else {
            tokio::time::sleep(UNREACHABLE_PAUSE).await;
            continue;
        };
        let all_ended = said.iter().all(|(_, state)| state.status.is_settled());
        let changed = app.tasks.apply(node, said).await;
        take_out_differing(app).await;
        act_on_shared_ends(app);
        look_into_due(app);
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

/// Replicas whose tasks ended otherwise than their shard's others hold something else now.
async fn take_out_differing(app: &App) {
    for (node, reason) in app.tasks.take_differing() {
        // Nobody would find again that it differs.
        let taken_out = loop {
            let taking_out = take_out_surely(app, &node, &reason);
            if let Some(taken_out) = survive(app, "take-out", taking_out).await {
                break taken_out;
            }
            tokio::time::sleep(AGAIN).await;
        };
        match taken_out {
            Some(TakenOut::Before | TakenOut::Last) => app.tasks.abandon(&node).await,
            Some(TakenOut::Now) | None => {}
        }
    }
}

fn act_on_shared_ends(app: &Arc<App>) {
    let ends = app.tasks.take_shared_ends();
    if !ends.is_empty() {
        crate::write::shared_tasks_ended(app, ends);
    }
}

fn look_into_due(app: &Arc<App>) {
    let due = app.tasks.take_due();
    if !due.is_empty() {
        crate::broadcast::look_into(app, due);
    }
}

#[derive(Deserialize)]
struct TaskList {
    results: Vec<LocalTask>,
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
async fn poll(app: &App, node: &NodeId, uids: &[u32]) -> Option<Vec<(u32, LocalState)>> {
    let address = app.cluster.address(node)?;
    let list = uids
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let path = format!("/tasks?limit={TASKS_A_POLL}&uids={list}");
    let request = NodeRequest::new(
        Target::Node(address),
        Method::GET,
        path,
        &app.own_authority(),
        POLL_TIMEOUT,
    );
    let answer = match app.upstream.send(request).await {
        Ok(answer) if answer.status == StatusCode::OK => answer,
        Ok(answer) => {
            tracing::warn!(%node, status = %answer.status, "a node refuses to tell of its tasks");
            return None;
        }
        Err(error) => {
            tracing::debug!(%node, %error, "a node does not tell of its tasks");
            return None;
        }
    };
    let list: TaskList = match serde_json::from_slice(&answer.body) {
        Ok(list) => list,
        Err(error) => {
            tracing::warn!(%node, %error, "a node's list of tasks can't be read");
            return None;
        }
    };
    let mut said: Vec<(u32, LocalState)> = list.results.into_iter().map(Into::into).collect();
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
