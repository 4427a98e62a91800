//! Answers requests of filters and Envoy: the routing table, registrations of direct writes, readiness, metrics. Clients'
//! requests never come here, because Envoy and the filter refuse paths below `/_weft`.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use weft_routing::placement::ShardId;
use weft_routing::table::Epoch;

use super::errors::ApiError;
use super::gauges;
use crate::answer::Answer;
use crate::broadcast;
use crate::call::{Call, read_whole};
use crate::cluster::{self, ClusterError, NodeId, Readiness};
use crate::edge::Context;
use crate::sockets::Peer;
use crate::tasks::{NewTask, ReplicaTask, ShardTask};
use crate::telemetry::OPEN_METRICS;
use crate::upstream::{NodeRequest, Target};

/// The largest body of a registration, in bytes.
const MAX_REGISTRATION_BYTES: u64 = 64 << 10;

pub(super) async fn handle(ctx: &Arc<Context>, call: Call) -> Result<Answer, ApiError> {
    match (call.method.clone(), call.item.as_deref()) {
        (Method::POST, Some("register")) => register(ctx, call).await,
        (Method::GET, Some("metrics")) => {
            gauges::of_tasks(ctx);
            gauges::of_jobs(ctx);
            Ok(metrics(ctx, &call))
        }
        _ => Ok(answer(ctx, &call)),
    }
}

/// Answers what this merger's own Envoy and filters ask, whether it leads or not.
pub(super) fn answer(ctx: &cluster::Context, call: &Call) -> Answer {
    match (call.method.clone(), call.item.as_deref()) {
        (Method::GET, Some("table")) => table(ctx, call),
        (Method::GET, Some("ready")) => ready(ctx, call),
        (Method::GET, Some("reaches-nodes")) => reaches_nodes(ctx),
        (Method::GET, Some("metrics")) => {
            gauges::of_no_jobs(ctx);
            metrics(ctx, call)
        }
        _ => Answer::empty(StatusCode::NOT_FOUND),
    }
}

/// The routing table, or what has changed in it since the epoch that a filter has, or 304 if it has the newest.
fn table(ctx: &cluster::Context, call: &Call) -> Answer {
    if !ctx.upstream.may_send() {
        // Another merger may have moved an index: filters must not go on by an old table.
        return Answer::empty(StatusCode::SERVICE_UNAVAILABLE);
    }
    let asked = |wanted: &str| {
        let mut pairs = call.query_pairs();
        pairs.find(|(name, _)| name == wanted)
    };
    let held = asked("epoch").and_then(|(_, epoch)| epoch.parse::<u64>().ok());
    let placements = &ctx.cluster.placements;
    if held == Some(placements.epoch().0) {
        ctx.metrics
            .table_polls
            .with_label_values(&["unchanged"])
            .inc();
        return Answer::empty(StatusCode::NOT_MODIFIED);
    }
    let knows_changes = asked("changes").is_some_and(|(_, value)| value == "true");
    let changes = held.filter(|_| knows_changes);
    let changes = changes.and_then(|held| placements.changes_since(Epoch(held)));
    let (outcome, json) = match changes {
        Some(changes) => ("changes", changes.into_bytes()),
        None => ("changed", placements.table().1.as_bytes().to_vec()),
    };
    ctx.metrics.table_polls.with_label_values(&[outcome]).inc();
    Answer::json_bytes(StatusCode::OK, json)
}

/// Whether a node may serve reads. Envoy's health check asks this, with the node's name as host.
fn ready(ctx: &cluster::Context, call: &Call) -> Answer {
    let node = NodeId::from(call.header("host").unwrap_or_default().to_owned());
    if !ctx.upstream.may_send() {
        // Another merger may lead, and may have taken the node out.
        let reason = "this merger's lease in etcd is over";
        return not_ready(&node, reason);
    }
    // Without a connection, as in tests, all requests count as one Envoy's.
    let nobody = Peer::Local(0);
    match ctx.cluster.readiness(&node, call.peer.unwrap_or(nobody)) {
        Readiness::Ready => Answer::json(StatusCode::OK, &json!({"node": node, "ready": true})),
        Readiness::Degraded(reason) => Answer::json(
            StatusCode::OK,
            &json!({"node": node, "ready": true, "reason": reason}),
        )
        .with_header(
            HeaderName::from_static("x-envoy-degraded"),
            HeaderValue::from_static("true"),
        ),
        Readiness::NotReady(reason) => not_ready(&node, reason),
        // The status is not 503, so that Envoy keeps the node as it is.
        Readiness::Unknown => Answer::json(
            StatusCode::TOO_EARLY,
            &json!({"node": node, "ready": null, "reason": "not known yet"}),
        ),
    }
}

/// Whether this merger reaches any node. Other mergers' Envoys ask this, which may send it requests of theirs while their own
/// merger is gone.
fn reaches_nodes(ctx: &cluster::Context) -> Answer {
    let topology = ctx.cluster.topology();
    let mut nodes = topology.all_nodes();
    let reaches = nodes.any(|(_, node)| ctx.cluster.health.answers(&node.id));
    let status = match reaches {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Answer::json(status, &json!({"reachesNodes": reaches}))
}

fn not_ready(node: &NodeId, reason: &str) -> Answer {
    Answer::json(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({"node": node, "ready": false, "reason": reason}),
    )
}

/// `GET /metrics`: Weft's own metrics, for clients to which a node would show the node's. A node is asked with the client's key,
/// because the node checks the key and knows whether the feature is enabled.
pub(super) async fn metrics_for_client(
    ctx: &cluster::Context,
    call: &Call,
) -> Result<Answer, ApiError> {
    let shard = ctx.cluster.shards().into_iter().next();
    let shard = shard.ok_or(ClusterError::NoShards)?;
    let request = NodeRequest::new(
        Target::Shard(shard),
        Method::GET,
        "/metrics",
        &call.forwarded,
        ctx.search_timeout,
    );
    let answer = ctx.upstream.send(request).await?;
    if !answer.status.is_success() {
        return Ok(answer.pass_on());
    }
    Ok(metrics(ctx, call))
}

/// Metrics in Prometheus' text format, or in OpenMetrics' for whoever accepts that.
pub(super) fn metrics(ctx: &cluster::Context, call: &Call) -> Answer {
    gauges::of_replicas(ctx);
    let accepts = call.header("accept").unwrap_or_default();
    let (kind, text) = match accepts.contains(OPEN_METRICS) {
        true => (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ctx.metrics.render_open(),
        ),
        false => ("text/plain; version=0.0.4", ctx.metrics.render()),
    };
    Answer {
        content_type: Some(HeaderValue::from_static(kind)),
        ..Answer::json_bytes(StatusCode::OK, text)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    shard: ShardId,
    task_uid: u32,
    index_uid: String,
    #[serde(rename = "type")]
    kind: String,
    custom_metadata: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LocalTask {
    index_uid: Option<String>,
    #[serde(rename = "type")]
    kind: String,
}

/// The node's task that a registration is about. The node itself is asked to confirm it, because a task number that the node
/// hasn't given would make it look as if it had lost its disk.
async fn direct_write(ctx: &Context, registration: &Registration) -> Result<ReplicaTask, ApiError> {
    if !ctx.cluster.direct_writes() {
        return Err(ApiError::bad_registration("direct writes are off"));
    }
    let topology = ctx.cluster.topology();
    for node in topology.nodes(registration.shard) {
        let uid = registration.task_uid;
        let query = format!("uids={uid}&limit=1");
        let authority = ctx.own_authority();
        let listed = ctx
            .upstream
            .tasks(node.address, &query, &authority, ctx.search_timeout);
        let Ok(listed) = listed.await else {
            continue;
        };
        let is_it = |task: &LocalTask| {
            task.kind == registration.kind
                && task.index_uid.as_ref() == Some(&registration.index_uid)
        };
        if listed.first().is_some_and(is_it) {
            return Ok(ctx.cluster.marks.acknowledged_beside(&node.id, uid).into());
        }
    }
    Err(ApiError::bad_registration(
        "no node of the shard has such a task",
    ))
}

/// Gives a cluster-wide uid to a write that a filter sent directly to a node.
async fn register(ctx: &Arc<Context>, call: Call) -> Result<Answer, ApiError> {
    let idle = ctx.pace.idle;
    let body = read_whole(call.body, MAX_REGISTRATION_BYTES, idle).await?;
    let registration: Registration = serde_json::from_slice(&body)
        .map_err(|error| ApiError::malformed_payload(&error.to_string()))?;
    let shard = registration.shard;
    let copy = direct_write(ctx, &registration).await?;
    broadcast::written_to(&ctx.broadcast, &registration.index_uid).await?;
    let new = NewTask {
        kind: registration.kind,
        index_uid: Some(registration.index_uid),
        custom_metadata: registration.custom_metadata,
        parts: vec![ShardTask::taken(shard, vec![copy])],
        ..NewTask::default()
    };
    let enqueued = ctx.tasks.create(new).await?;
    ctx.metrics.registered.inc();
    Ok(Answer::json(
        StatusCode::OK,
        &json!({"taskUid": enqueued.task_uid}),
    ))
}
