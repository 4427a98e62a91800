//! Reads the settings of an index's nodes, and repairs those that differ from what was last set.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::Value;
use weft_routing::operation::{NamedOperation, Operation};

use crate::broadcast::Context;
use crate::broadcast::spread::NodeChange;
use crate::cluster::{NodeRef, Placement};
use crate::desired::{Values, difference};
use crate::replication::WriteGuard;
use crate::tasks::ask_until;
use crate::upstream::{NodeRequest, Target, UpstreamError, is_hidden};

/// How long a node may take to return its settings; other calls wait for the shards' locks meanwhile.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node may take to repair its settings, and how often it is asked whether it has.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// A node whose settings differ, and the repair.
pub(super) struct Drift {
    pub(super) node: NodeRef,
    /// The settings that are sent to the node.
    pub(super) patch: Values,
    /// The settings that the node must return afterwards.
    wanted: Values,
}

/// A node that could not be repaired, and why.
#[derive(Debug, thiserror::Error)]
#[error("node {node}: {}: {reason}", names(.settings))]
pub(super) struct Unmended {
    node: crate::cluster::NodeId,
    settings: Values,
    reason: Reason,
}

impl Unmended {
    /// Whether trying the same repair again is useless.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.reason, Reason::Refused(_))
    }
}

/// Why a node could not be repaired.
#[derive(Debug, thiserror::Error)]
enum Reason {
    /// The node refuses the settings, or can't apply them.
    #[error("{0}")]
    Refused(String),
    /// The node gave no answer this time.
    #[error("{0}")]
    Unanswered(String),
}

/// The answers of an index's nodes.
pub(super) struct Said {
    /// The settings of each in-sync node that has the index.
    pub(super) settings: Vec<(NodeRef, Values)>,
    /// The nodes that gave no answer.
    pub(super) silent: Vec<NodeRef>,
}

/// Asks all in-sync nodes of an index for its settings.
pub(super) async fn read(ctx: &Context, placement: &Placement) -> Said {
    let nodes = placement
        .shards()
        .iter()
        .flat_map(|shard| ctx.cluster.replicas(*shard));
    let reads = nodes.map(async |node| {
        let read = read_one(ctx, &placement.uid, &node).await;
        (node, read)
    });
    let (mut settings, mut silent) = (Vec::new(), Vec::new());
    for (node, read) in join_all(reads).await {
        match read {
            Ok(Some(values)) => settings.push((node, values)),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(node = %node.id, index = placement.uid, %error, "a node's settings can't be read back");
                silent.push(node);
            }
        }
    }
    Said { settings, silent }
}

async fn read_one(
    ctx: &Context,
    uid: &str,
    node: &NodeRef,
) -> Result<Option<Values>, UpstreamError> {
    let request = NodeRequest::new(
        Target::Node(node.address),
        Method::GET,
        format!("/indexes/{uid}/settings"),
        &ctx.own_authority(),
        READ_TIMEOUT,
    );
    let target = Target::Node(node.address);
    let answer = ctx.upstream.send(request).await?;
    let detail = match answer.status {
        StatusCode::NOT_FOUND => return Ok(None),
        StatusCode::OK => match serde_json::from_slice(&answer.body) {
            Ok(values) => return Ok(Some(values)),
            Err(error) => error.to_string(),
        },
        status => format!("status {status}"),
    };
    Err(UpstreamError::Unreachable { target, detail })
}

/// The nodes whose settings differ from `truth`.
pub(super) fn drifted(truth: &Values, said: &[(NodeRef, Values)]) -> Vec<Drift> {
    said.iter()
        .filter_map(|(node, values)| {
            let patch = difference(truth, values);
            let wanted = truth.iter().filter(|(name, _)| patch.contains_key(*name));
            let wanted = wanted.map(|(name, value)| (name.clone(), value.clone()));
            let (node, wanted) = (node.clone(), wanted.collect());
            (!patch.is_empty()).then_some(Drift {
                node,
                patch,
                wanted,
            })
        })
        .collect()
}

/// Repairs nodes. `guard` holds the locks of the index's shards, and is released once the nodes have accepted the repair.
/// Returns a text for each repaired node, or the first node that could not be repaired.
pub(super) async fn mend(
    ctx: &Context,
    uid: &str,
    drifts: Vec<Drift>,
    guard: WriteGuard,
    patience: Duration,
) -> Result<Vec<String>, Unmended> {
    let sent = join_all(drifts.iter().map(|drift| send(ctx, uid, drift))).await;
    drop(guard);
    let mut mended = Vec::new();
    for (drift, sent) in drifts.into_iter().zip(sent) {
        let outcome = match sent {
            Ok(local_uid) => settle(ctx, uid, &drift, local_uid, patience).await,
            Err(reason) => Err(reason),
        };
        let counted = |outcome| {
            ctx.metrics
                .settings_drift
                .with_label_values(&[outcome])
                .inc()
        };
        let (node, settings) = (drift.node.id, drift.patch);
        match outcome {
            Ok(()) => {
                counted("repaired");
                tracing::warn!(%node, index = uid, settings = names(&settings), "settings that differed were repaired");
                mended.push(format!("node {node}: {}", names(&settings)));
            }
            Err(reason) => {
                counted("failed");
                tracing::error!(%node, index = uid, settings = names(&settings), %reason, "settings differ and can't be repaired");
                return Err(Unmended {
                    node,
                    settings,
                    reason,
                });
            }
        }
    }
    Ok(mended)
}

pub(super) fn names(values: &Values) -> String {
    let names: Vec<&str> = values.keys().map(String::as_str).collect();
    names.join(", ")
}

async fn send(ctx: &Context, uid: &str, drift: &Drift) -> Result<u32, Reason> {
    if drift.patch.values().any(holds_a_secret) {
        let why = "nodes don't tell the API keys in it, so that it can't be set anew";
        return Err(Reason::Refused(why.to_owned()));
    }
    let path = format!("/indexes/{uid}/settings");
    let named = NamedOperation::of_index(Operation::UpdateSettings, uid);
    let patch = Value::Object(drift.patch.clone());
    let change = NodeChange::own(ctx, named, Method::PATCH, path, &patch);
    let answer = change.command().send(ctx, &drift.node).await;
    let answer = answer.map_err(|error| Reason::Unanswered(error.to_string()))?;
    let local_uid = answer.task_uid().ok_or_else(|| {
        let said = format!("it answered {}", answer.status);
        match answer.status.is_client_error() {
            true => Reason::Refused(said),
            false => Reason::Unanswered(said),
        }
    })?;
    // No task record names this local task, but a later comparison of replicas must know of it.
    ctx.cluster.marks.made(&drift.node.id, local_uid).await;
    Ok(local_uid)
}

/// Whether any embedder has an API key, which nodes don't reveal.
fn holds_a_secret(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let hidden = value.as_str().is_some_and(is_hidden);
            (name == "apiKey" && hidden) || holds_a_secret(value)
        }),
        Value::Array(values) => values.iter().any(holds_a_secret),
        _ => false,
    }
}

/// Waits for the node's task, and checks whether the settings are right now.
async fn settle(
    ctx: &Context,
    uid: &str,
    drift: &Drift,
    local_uid: u32,
    patience: Duration,
) -> Result<(), Reason> {
    let ended = || async {
        let request = NodeRequest::new(
            Target::Node(drift.node.address),
            Method::GET,
            format!("/tasks/{local_uid}"),
            &ctx.own_authority(),
            ctx.search_timeout,
        );
        let answer = ctx.upstream.send(request).await;
        let task: Value = answer
            .ok()
            .and_then(|answer| serde_json::from_slice(&answer.body).ok())
            .unwrap_or_default();
        match task.get("status").and_then(Value::as_str) {
            Some("succeeded") => Ok(Some(())),
            Some("failed" | "canceled") => {
                let message = task.pointer("/error/message").and_then(Value::as_str);
                let message = message.unwrap_or("its task was canceled");
                Err(Reason::Refused(message.to_owned()))
            }
            _ => Ok(None),
        }
    };
    let ended = ask_until(patience, ASK_EVERY, ended).await?;
    ended.ok_or_else(|| Reason::Unanswered("its task takes too long".to_owned()))?;
    let now = read_one(ctx, uid, &drift.node).await;
    let now = now.map_err(|error| Reason::Unanswered(error.to_string()))?;
    let left = now.map(|now| difference(&drift.wanted, &now));
    match left {
        Some(left) if !left.is_empty() => {
            let said = format!("it still differs in {}", names(&left));
            Err(Reason::Refused(said))
        }
        _ => Ok(()),
    }
}
