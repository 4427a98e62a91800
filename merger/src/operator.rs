//! The API for operators: `/_cluster/…` and `GET /indexes/{uid}/_shards`. It needs the master key.

mod backups;
mod index_shards;
mod jobs;
mod moves;
mod spares;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_routing::operation::Operation;
use weft_routing::placement::ShardId;

use crate::answer::Answer;
use crate::call::{Call, empty, read_whole};
use crate::cluster::{
    ClusterError, Mark, NodeId, NodeRef, NodeStatus, Placement, Probe, READS_FOLLOW, Removal,
    SyncState, until,
};
use crate::repair::{self, Context};
use crate::replication::{dated, has_same_disk, probe, reads_leave};
use crate::spares::free_spares;
use crate::webhooks::Webhooks;

/// The largest body of a request to this API, in bytes.
const MAX_BODY_BYTES: u64 = 64 << 10;

/// The health of a shard or of the whole cluster, with the usual meaning of the colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    /// Every replica is in sync, answers, and gets reads.
    Green,
    /// At least one replica is, so nothing is missing.
    Yellow,
    /// No replica is: searches miss the shard's documents, and writes to it are refused.
    Red,
}

impl Health {
    fn as_str(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Red => "red",
        }
    }

    fn of(active: usize, all: usize) -> Self {
        match active {
            0 => Self::Red,
            active if active < all => Self::Yellow,
            _ => Self::Green,
        }
    }
}

/// Answers an operation on the cluster.
///
/// # Errors
/// [`ClusterError`].
pub async fn handle(
    ctx: &Arc<Context>,
    hooks: &Webhooks,
    mut call: Call,
) -> Result<Answer, ClusterError> {
    if call.operation == Operation::IndexShards {
        return index_shards::describe(ctx, &call).await;
    }
    let path = call.item.clone().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match (call.method.clone(), parts.as_slice()) {
        (Method::GET, ["health"]) => Ok(ok(&health(ctx))),
        (Method::GET, ["nodes"]) => Ok(ok(&nodes(ctx))),
        (Method::GET, ["shards"]) => Ok(ok(&shards(ctx))),
        (Method::GET, ["verify"]) => Ok(ok(&repair::last_verification(ctx))),
        (Method::POST, ["verify"]) => Ok(ok(&repair::verify(ctx).await)),
        (Method::POST, ["nodes", id, "drain"]) => drain(ctx, id).await,
        (Method::POST, ["nodes", id, "resume"]) => {
            let id = (*id).to_owned();
            resume(ctx, &mut call, &id).await
        }
        (_, ["backups", parts @ ..]) => {
            let unknown = || Err(ClusterError::UnknownPath(format!("/_cluster/{path}")));
            let backups = backups::handle(ctx, hooks, &mut call, parts).await;
            backups.unwrap_or_else(unknown)
        }
        (_, ["jobs", parts @ ..]) => {
            let unknown = || Err(ClusterError::UnknownPath(format!("/_cluster/{path}")));
            let jobs = jobs::handle(ctx, &mut call, parts).await;
            jobs.unwrap_or_else(unknown)
        }
        (_, parts) => {
            let unknown = || Err(ClusterError::UnknownPath(format!("/_cluster/{path}")));
            let moves = moves::handle(ctx, &mut call, parts).await;
            moves.unwrap_or_else(unknown)
        }
    }
}

/// A call's body; all defaults if it is empty.
async fn body_of<T: DeserializeOwned + Default>(
    ctx: &Context,
    call: &mut Call,
) -> Result<T, ClusterError> {
    let body = std::mem::replace(&mut call.body, empty());
    let body = read_whole(body, MAX_BODY_BYTES, ctx.pace.idle).await?;
    match body.is_empty() {
        true => Ok(T::default()),
        false => serde_json::from_slice(&body)
            .map_err(|error| ClusterError::InvalidBody(error.to_string())),
    }
}

fn ok(value: &Value) -> Answer {
    Answer::json(StatusCode::OK, value)
}

fn is_active(ctx: &Context, node: &NodeRef) -> bool {
    ctx.cluster.in_sync.holds(&node.id)
        && ctx.cluster.is_up(&node.id)
        && matches!(ctx.cluster.health.status(&node.id), NodeStatus::Up | NodeStatus::Slow)
        // A client that reads `green` and searches right after must not get Envoy's answer that no replica is there.
        && ctx.cluster.health.gets_reads(&node.id)
}

fn shard_health(ctx: &Context, shard: ShardId) -> Health {
    let topology = ctx.cluster.topology();
    let nodes = topology.nodes(shard);
    let active = nodes.iter().filter(|node| is_active(ctx, node)).count();
    let by_nodes = Health::of(active, nodes.len());
    // One of the replicas may soon be out of sync.
    match ctx.cluster.in_doubt.contains(shard) {
        true => by_nodes.max(Health::Yellow),
        false => by_nodes,
    }
}

fn health(ctx: &Context) -> Value {
    let topology = ctx.cluster.topology();
    let all: Vec<(ShardId, NodeRef)> = topology
        .all_nodes()
        .map(|(shard, node)| (shard, node.clone()))
        .collect();
    let worst = topology
        .shards()
        .into_iter()
        .map(|shard| shard_health(ctx, shard))
        .max();
    let active = all.iter().filter(|(_, node)| is_active(ctx, node)).count();
    let initializing = {
        let resyncs = ctx.resyncs.state();
        all.iter()
            .filter(|(_, node)| resyncs.under_way.contains_key(&node.id))
            .count()
    };
    json!({
        // Without any shard, nothing can be answered.
        "status": worst.unwrap_or(Health::Red).as_str(),
        "nodeCount": all.len(),
        "activeShards": active,
        "relocatingShards": relocating(ctx),
        "initializingShards": initializing,
        "unassignedShards": all.len().saturating_sub(active + initializing),
        "stoppedResyncs": ctx.resyncs.stopped(),
        "spareNodes": free_spares(&ctx.cluster),
        "epoch": ctx.cluster.in_sync.epoch(),
    })
}

/// How many moves have not ended.
fn relocating(ctx: &Context) -> usize {
    let moves = ctx.cluster.moves.all();
    moves.iter().filter(|one| !one.has_ended()).count()
}

fn nodes(ctx: &Context) -> Value {
    let topology = ctx.cluster.topology();
    let nodes: Vec<Value> = topology
        .all_nodes()
        .map(|(shard, node)| describe(ctx, shard, node))
        .collect();
    json!({
        "nodes": nodes,
        "spares": spares::list(&ctx.cluster),
        "replacements": spares::replacements(&ctx.cluster),
        "epoch": ctx.cluster.in_sync.epoch(),
    })
}

fn describe(ctx: &Context, shard: ShardId, node: &NodeRef) -> Value {
    let cluster = &ctx.cluster;
    let standing = cluster.in_sync.sync_state(&node.id);
    let life = cluster.health.status(&node.id);
    let status = match (&standing, life) {
        (Some(SyncState::Drained { .. }), _) => "drained",
        (_, NodeStatus::Lost) => "lost",
        _ if ctx.resyncs.state().stopped.contains(&node.id) => "stopped",
        _ if cluster.health.answers(&node.id) => "up",
        _ if !cluster.is_up(&node.id) => "down",
        _ => "silent",
    };
    let (reason, since) = match &standing {
        Some(SyncState::Out { reason, since }) => (Some(reason.clone()), Some(*since)),
        Some(SyncState::Drained { since }) => (None, Some(*since)),
        _ => (None, None),
    };
    let indexes = cluster.placements.all();
    let holds = indexes
        .iter()
        .filter(|placement| placement.shards().contains(&shard))
        .count();
    let is_primary = cluster
        .primary(shard)
        .is_some_and(|primary| primary.id == node.id);
    let (resync, failed, stopped) = {
        let resyncs = ctx.resyncs.state();
        let progress = resyncs.under_way.get(&node.id);
        (
            progress.map(|progress| progress.view()),
            resyncs.failed.get(&node.id).cloned(),
            resyncs.stopped.contains(&node.id),
        )
    };
    json!({
        "id": node.id,
        "address": node.address,
        "status": status,
        "shardCount": holds,
        "role": if is_primary { "primary" } else { "replica" },
        "shard": shard,
        "inSync": cluster.in_sync.holds(&node.id),
        "ready": cluster.health.is_ready(&node.id),
        "lagTasks": ctx.tasks.outstanding_count(&node.id),
        "behind": cluster.queues.lag(&node.id).writes,
        "reason": reason,
        "since": since.and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok()),
        "resync": resync,
        "lastResyncError": failed,
        "needsConfirmation": stopped,
    })
}

fn shards(ctx: &Context) -> Value {
    let all = ctx.cluster.topology().shards();
    let shards: Vec<Value> = all
        .into_iter()
        .map(|shard| describe_shard(ctx, shard))
        .collect();
    json!({"shards": shards, "epoch": ctx.cluster.in_sync.epoch()})
}

fn describe_shard(ctx: &Context, shard: ShardId) -> Value {
    let topology = ctx.cluster.topology();
    let primary = ctx.cluster.primary(shard).map(|node| node.id);
    let replicas: Vec<&NodeId> = topology
        .nodes(shard)
        .iter()
        .map(|node| &node.id)
        .filter(|id| Some(*id) != primary.as_ref())
        .collect();
    let in_sync: Vec<NodeId> = ctx
        .cluster
        .replicas(shard)
        .into_iter()
        .map(|node| node.id)
        .collect();
    json!({
        "shardId": shard,
        "primary": primary,
        "replicas": replicas,
        "inSync": in_sync,
        "inDoubt": ctx.cluster.in_doubt.contains(shard),
        "draining": ctx.cluster.moves.draining().contains(&shard),
        "indexes": holds(ctx, shard),
        // Nothing is there, and nothing will be.
        "removable": ctx.cluster.moves.draining().contains(&shard) && holds(ctx, shard) == 0,
        "state": shard_health(ctx, shard).as_str(),
    })
}

/// How many indexes have a part on a shard.
fn holds(ctx: &Context, shard: ShardId) -> usize {
    let indexes = ctx.cluster.placements.all();
    let is_there = |index: &&Arc<Placement>| index.concerns(shard);
    indexes.iter().filter(is_there).count()
}

fn node(ctx: &Context, id: &str) -> Result<(ShardId, NodeRef), ClusterError> {
    let topology = ctx.cluster.topology();
    let id = NodeId::from(id.to_owned());
    let found = topology
        .all_nodes()
        .find(|(_, node)| node.id == id)
        .map(|(shard, node)| (shard, node.clone()));
    found.ok_or(ClusterError::UnknownNode(id))
}

/// Drains a node: it gets no reads and no writes and isn't primary until it is resumed.
async fn drain(ctx: &Arc<Context>, id: &str) -> Result<Answer, ClusterError> {
    let (shard, node) = node(ctx, id)?;
    // Not in the middle of a write, which the node would then seem to have missed.
    let guard = ctx.locks.lock(&[shard]).await;
    // What only this one has taken, another must have got before it goes.
    ctx.cluster.stagger.end(shard);
    let others_have_all = || {
        let replicas = ctx.cluster.replicas(shard);
        let mut others = replicas.iter().filter(|other| other.id != node.id);
        let have_all = others.all(|other| ctx.cluster.queues.caught_up(&other.id));
        have_all.then_some(())
    };
    let states = [&ctx.cluster.queues.changes, &ctx.cluster.in_sync.changes];
    let late = |_| ClusterError::LastReplica(node.id.clone());
    tokio::time::timeout(DRAIN_WAITS, until(states, others_have_all))
        .await
        .map_err(late)?;
    // A replica that is in sync but doesn't answer may come back with another disk, so another one must answer now.
    if ctx.cluster.in_sync.holds(&node.id) && !another_is_sound(ctx, shard, &node).await {
        return Err(ClusterError::LastReplica(node.id));
    }
    if ctx.cluster.in_sync.drain(&node.id).await? == Removal::RefusedLast {
        return Err(ClusterError::LastReplica(node.id));
    }
    reads_leave(ctx, &node.id).await;
    drop(guard);
    ctx.tasks.abandon(&node.id).await;
    // The operator may stop the node after this answer, so every Envoy must know by then.
    tokio::time::sleep(READS_FOLLOW).await;
    Ok(ok(&describe(ctx, shard, &node)))
}

/// Whether another replica in sync answers now and still has the same disk.
async fn another_is_sound(ctx: &Context, shard: ShardId, node: &NodeRef) -> bool {
    for other in ctx.cluster.replicas(shard) {
        if other.id == node.id {
            continue;
        }
        if let (Probe::Answer(newest), Mark::At(mark)) =
            (probe(ctx, &other).await, ctx.cluster.marks.mark(&other.id))
            && newest >= mark
            && has_same_disk(ctx, &other).await == Some(true)
        {
            return true;
        }
    }
    false
}

/// How long a drain waits until the others have no lag.
const DRAIN_WAITS: Duration = Duration::from_secs(30);

/// Lets a node serve again with the data that it has, because its shard has no replica that holds all acknowledged writes. The
/// other replicas are brought back from it.
async fn accept_loss(
    ctx: &Arc<Context>,
    shard: ShardId,
    node: &NodeRef,
) -> Result<(), ClusterError> {
    let _guard = ctx.locks.lock(&[shard]).await;
    let Probe::Answer(newest) = probe(ctx, node).await else {
        return Err(ClusterError::Silent(node.id.clone()));
    };
    let shown = match newest {
        Some(uid) => Some(dated(ctx, node, uid).await),
        None => None,
    };
    tracing::warn!(node = %node.id, "an operator accepts that the shard has what this node has");
    // The new disk gives the numbers of the old disk's tasks to other tasks.
    ctx.tasks.fail_outstanding(&node.id).await;
    let cluster = &ctx.cluster;
    for other in cluster.in_sync.members_in_sync(shard) {
        cluster.health.begins_anew(&other);
    }
    cluster
        .in_sync
        .accept_loss(&node.id, shown, &cluster.marks)
        .await?;
    cluster.health.begins_anew(&node.id);
    Ok(())
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Resume {
    /// If the shard has no replica that is in sync and not lost, this node serves again with the data that it has.
    accept_data_loss: bool,
    /// The node's resync may delete all that it would delete.
    accept_deletions: bool,
}

/// Lets a node catch up. Or, if the request says so, lets it serve again although its data was lost.
async fn resume(ctx: &Arc<Context>, call: &mut Call, id: &str) -> Result<Answer, ClusterError> {
    let (shard, node) = node(ctx, id)?;
    let wish: Resume = body_of(ctx, call).await?;
    ctx.cluster.in_sync.resume(&node.id).await?;
    if wish.accept_deletions {
        tracing::warn!(node = %node.id, "an operator accepts what the node's resync deletes");
        let mut resyncs = ctx.resyncs.state();
        resyncs.stopped.remove(&node.id);
        resyncs.confirmed.insert(node.id.clone());
    }
    if wish.accept_data_loss && ctx.cluster.replicas(shard).is_empty() {
        accept_loss(ctx, shard, &node).await?;
    }
    Ok(ok(&describe(ctx, shard, &node)))
}
