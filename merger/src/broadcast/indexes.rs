//! Indexes: creating, changing and compacting them on each of their shards.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use weft_routing::is_index_uid;
use weft_routing::operation::{NamedOperation, Operation};
use weft_routing::placement::ShardId;

use super::BroadcastError;
use super::gather::{Gathered, from_all};
use super::place::{Place, until_gone, until_settled};
use super::sharding::Sharding;
use super::spread::{NodeChange, Reach, Spread, spread_locked};
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;
use crate::cluster::{ClusterError, Placement, Wanted};
use crate::replication::WriteGuard;
use crate::tasks::NewTask;

/// `POST /indexes`: places the index, then creates it on each of its shards.
pub(super) async fn create(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    let mut change = NodeChange::of(ctx, call).await?;
    let mut body: Map<String, Value> = serde_json::from_slice(&change.body).unwrap_or_default();
    let sharding = match body.remove("sharding") {
        None | Some(Value::Null) => Sharding::default(),
        Some(value) => {
            change.body = serde_json::to_vec(&body).unwrap_or_default().into();
            Sharding::read(&value)?
        }
    };
    let uid = body
        .get("uid")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if !is_index_uid(&uid) {
        // A node words the refusal; it can't accept an index without a valid uid.
        return refuse(ctx, &change).await;
    }
    let key = body
        .get("primaryKey")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let details = json!({"primaryKey": key})
        .as_object()
        .cloned()
        .unwrap_or_default();
    let task = NewTask {
        kind: "indexCreation".to_owned(),
        details,
        ..NewTask::default()
    };
    if let Some(before) = ctx.cluster.placement(&uid) {
        let wanted = sharding.wanted.strategy.as_ref();
        let is_other = wanted.is_some_and(|strategy| before.slots.strategy() != strategy);
        // An index that is being deleted would go on by its own strategy, or on its way to another one.
        if is_other || before.change().is_some() {
            until_gone(ctx, &uid).await?;
        }
    }
    let place = Place::take(ctx, &uid, &sharding.wanted).await?;
    let answer = place.spread_as_task(ctx, &change, task).await?;
    if answer.status.is_success() && place.is_new() && sharding.write.is_some() {
        ctx.cluster
            .placements
            .set_write_mode(&uid, sharding.write)
            .await?;
    }
    if answer.status.is_success() && place.is_new() && key.is_some() {
        ctx.cluster
            .placements
            .set_primary_key(&uid, key.as_deref())
            .await?;
    }
    Ok(answer)
}

async fn refuse(ctx: &Context, change: &NodeChange) -> Result<Answer, BroadcastError> {
    let Some(shard) = ctx.cluster.shards().into_iter().next() else {
        return Err(ClusterError::NoShards.into());
    };
    match from_all(ctx, change, &[shard]).await? {
        Gathered::Refused(answer) => Ok(answer),
        Gathered::All(_) => Err(BroadcastError::Unreadable { shard }),
    }
}

/// Handles a change of an index that isn't placed: one shard gets it, so that a node words the failed task or the refusal. This
/// is the first shard that the index would be placed on: while its lock is held, no other call can place the index.
///
/// # Errors
/// The index has been placed meanwhile, or a node gave no answer.
pub(super) async fn unplaced(
    ctx: &Arc<Context>,
    change: &NodeChange,
    index_uid: Option<String>,
    kind: &str,
) -> Result<Answer, BroadcastError> {
    let uid = index_uid.as_deref().unwrap_or_default();
    let slots = ctx.cluster.propose(uid)?;
    let shard = slots.shards().first().copied();
    let shard = shard.ok_or(ClusterError::NoShards)?;
    let guard = ctx.locks.lock(&[shard]).await;
    if ctx.cluster.placement(uid).is_some() {
        return Err(BroadcastError::Unsettled(uid.to_owned()));
    }
    match spread_locked(ctx, &guard, &[(shard, change)], Reach::Primaries).await? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { parts, .. } => {
            let task = NewTask {
                kind: kind.to_owned(),
                parts,
                index_uid,
                ..NewTask::default()
            };
            Ok(Answer::json(
                StatusCode::ACCEPTED,
                &ctx.tasks.create(task).await?,
            ))
        }
    }
}

/// Takes the locks of an index's shards, if its placement hasn't changed.
///
/// # Errors
/// The index is on other shards by now.
pub(super) async fn lock_where_it_lies(
    ctx: &Context,
    placement: &Placement,
) -> Result<WriteGuard, BroadcastError> {
    let guard = ctx.locks.lock(placement.shards()).await;
    match ctx.cluster.placement(&placement.uid) {
        Some(now) if now.slots == placement.slots => Ok(guard),
        _ => Err(BroadcastError::Unsettled(placement.uid.clone())),
    }
}

/// Sends a change to replicas of an index and registers the task; the caller holds the locks of all its shards.
pub(super) async fn spread_as_task(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    each: &[(ShardId, &NodeChange)],
    uid: &str,
    kind: &str,
) -> Result<Answer, BroadcastError> {
    match spread_locked(ctx, guard, each, Reach::Replicas).await? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { parts, .. } => {
            let task = NewTask {
                kind: kind.to_owned(),
                parts,
                index_uid: Some(uid.to_owned()),
                ..NewTask::default()
            };
            let enqueued = ctx.tasks.create(task).await?;
            Ok(Answer::json(StatusCode::ACCEPTED, &enqueued))
        }
    }
}

/// `POST /indexes/{uid}/compact`.
pub(super) async fn compact(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    let kind = "indexCompaction";
    let index_uid = call.index.clone();
    let uid = index_uid.clone().unwrap_or_default();
    let change = NodeChange::of(ctx, call).await?;
    until_settled(&uid, || async {
        let Some(placement) = ctx.cluster.placement(&uid) else {
            // A node words the answer.
            return unplaced(ctx, &change, index_uid.clone(), kind).await;
        };
        let guard = lock_where_it_lies(ctx, &placement).await?;
        let shards = placement.shards().iter();
        let each: Vec<_> = shards.map(|shard| (*shard, &change)).collect();
        spread_as_task(ctx, &guard, &each, &uid, kind).await
    })
    .await
}

/// A node was written to without going through the broadcast: makes the index alive again if it was being deleted, and places
/// it if it wasn't placed.
///
/// # Errors
/// The placement can't be stored.
pub async fn written_to(ctx: &Arc<Context>, uid: &str) -> Result<(), BroadcastError> {
    match ctx.cluster.placement(uid) {
        Some(placement) if placement.deleted_by.is_none() => Ok(()),
        _ => {
            // Before taking the lock: a deletion under way must find the index alive, whatever it does on the nodes.
            ctx.cluster.placements.revive(uid).await?;
            let place = Place::take(ctx, uid, &Wanted::default()).await?;
            let create = NamedOperation::unnamed(Operation::CreateIndex);
            let body = json!({"uid": uid});
            let change = NodeChange::own(ctx, create, Method::POST, "/indexes", &body);
            let shards = place.placement.shards();
            let each: Vec<_> = shards.iter().map(|shard| (*shard, &change)).collect();
            spread_locked(ctx, &place.guard, &each, Reach::Replicas)
                .await
                .map(drop)
        }
    }
}
