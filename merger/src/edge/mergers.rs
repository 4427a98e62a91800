//! `GET /_cluster/mergers` and `POST /_cluster/leader/step-down`: the mergers that share the state.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Reading;
use super::authorise::authorise;
use super::errors::ApiError;
use crate::answer::Answer;
use crate::call::Call;
use crate::leadership::{Registration, Roll};

/// The mergers that share the state with this one.
pub struct Peers {
    /// This merger's id.
    pub me: String,
    /// Where others reach it; `None` if it listens on sockets only.
    pub address: Option<SocketAddr>,
    /// The list of all of them; `None` for a merger that is alone with its store.
    pub roll: Option<Roll>,
    /// Told when an operator wants the leader to step down.
    pub step_down: Arc<Notify>,
}

impl Peers {
    /// A merger that is alone.
    pub fn alone(address: Option<SocketAddr>) -> Self {
        Self {
            me: "alone".to_owned(),
            address,
            roll: None,
            step_down: Arc::default(),
        }
    }
}

/// Whether the call is for this module.
pub(super) fn is_about_mergers(call: &Call) -> bool {
    matches!(call.item.as_deref(), Some("mergers" | "leader/step-down"))
}

/// Answers a leader's call. The key was judged.
pub(super) async fn handle(peers: &Peers, call: &Call) -> Result<Answer, ApiError> {
    match (call.method.clone(), call.item.as_deref()) {
        (Method::GET, Some("mergers")) => show(peers, Some(&peers.me)).await,
        (Method::POST, Some("leader/step-down")) if peers.roll.is_some() => {
            peers.step_down.notify_one();
            let told = json!({"id": peers.me, "stepsDown": true});
            Ok(Answer::json(StatusCode::ACCEPTED, &told))
        }
        (Method::POST, Some("leader/step-down")) => Err(ApiError::alone()),
        _ => Ok(Answer::empty(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

/// A follower's answer to `GET /_cluster/mergers`.
pub(super) async fn list(ctx: &Reading, peers: &Peers, call: &Call) -> Result<Answer, ApiError> {
    authorise(ctx, call).await?;
    if call.method != Method::GET {
        return Ok(Answer::empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    show(peers, None).await
}

/// The list; with the one that leads, if that is known. A merger that has just begun to lead may not be registered as such yet, and
/// one that led before it may still be.
async fn show(peers: &Peers, leader: Option<&str>) -> Result<Answer, ApiError> {
    let Some(roll) = &peers.roll else {
        // A merger that is alone has nothing to follow, and no lease.
        let alone = json!({"id": peers.me, "address": peers.address, "role": "leader"});
        return Ok(Answer::json(StatusCode::OK, &json!({"mergers": [alone]})));
    };
    let seen = roll
        .read()
        .await
        .map_err(|error| ApiError::stands_by(&error.to_string()))?;
    let mergers = seen.mergers.into_iter();
    let mergers: Vec<Value> = mergers
        .map(|(mut merger, left)| {
            merger.leads = leader.map_or(merger.leads, |leader| merger.id == leader);
            describe(&merger, seen.changes, left)
        })
        .collect();
    Ok(Answer::json(StatusCode::OK, &json!({"mergers": mergers})))
}

fn describe(merger: &Registration, changes: u64, lease_left: Option<std::time::Duration>) -> Value {
    let since = &time::format_description::well_known::Rfc3339;
    json!({
        "id": merger.id,
        "address": merger.address,
        "role": match (merger.leaving, merger.leads) {
            (true, _) => "leaving",
            (_, true) => "leader",
            (_, false) => "follower",
        },
        "since": merger.since.format(since).ok(),
        "applied": match merger.leads {
            true => changes,
            false => merger.applied,
        },
        "lag": match merger.leads {
            true => 0,
            false => changes.saturating_sub(merger.applied),
        },
        // A leader makes the epochs.
        "inSyncEpoch": (!merger.leads).then_some(merger.in_sync_epoch),
        "tableEpoch": (!merger.leads).then_some(merger.table_epoch),
        "leaseLeftMs": lease_left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    })
}
