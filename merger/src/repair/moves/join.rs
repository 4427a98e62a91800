//! Makes a shard hold an index before it owns any slot of it: empty, with the same primary key and settings.

use std::sync::Arc;

use http::Method;
use serde_json::{Map, Value, json};
use weft_routing::operation::{NamedOperation, Operation};
use weft_routing::placement::ShardId;

use super::send::{Write, send};
use super::{MoveError, remote, replicas, source};
use crate::cluster::{NodeRef, Placement};
use crate::repair::Context;
use crate::repair::resync::settings_change;

/// How often settings are set until the new shard has them.
const ATTEMPTS: usize = 5;

/// Creates the index on the new shard, with the settings that it has on `node`. The placement names the shard as a guest before.
pub(super) async fn join(
    ctx: &Arc<Context>,
    node: &NodeRef,
    placement: &Placement,
    to: ShardId,
) -> Result<(), MoveError> {
    let uid = &placement.uid;
    let mut shards = placement.shards().to_vec();
    shards.push(to);
    // What an earlier attempt has left.
    let leftover = exists(ctx, uid, to).await?;
    let tasks = {
        let guard = ctx.locks.lock(&shards).await;
        let now = ctx.cluster.placement(uid);
        let now = now.filter(|now| now.deleted_by.is_none() && now.slots == placement.slots);
        let now = now.ok_or(MoveError::Changed)?;
        let placements = &ctx.cluster.placements;
        placements.set_unsettled(uid, &[to], true).await?;
        let gone = match leftover {
            true => Some(send(ctx, &guard, to, deletion(uid)).await?),
            false => None,
        };
        // Writers don't wait for what the new shard still has to do.
        [gone, Some(send(ctx, &guard, to, creation(&now)).await?)]
    };
    for task in tasks.into_iter().flatten() {
        task.done(ctx).await?;
    }
    set_settings(ctx, node, uid, to).await
}

/// Creates the index on a shard that owns slots of it and lacks it, as after a first write that this shard alone refused.
pub(super) async fn complete(
    ctx: &Arc<Context>,
    placement: &Placement,
    shard: ShardId,
) -> Result<(), MoveError> {
    let uid = &placement.uid;
    if exists(ctx, uid, shard).await? {
        return Ok(());
    }
    let guard = ctx.locks.lock(&[shard]).await;
    let now = ctx.cluster.placement(uid);
    let now = now.filter(|now| now.deleted_by.is_none() && now.slots == placement.slots);
    let now = now.ok_or(MoveError::Changed)?;
    let created = send(ctx, &guard, shard, creation(&now)).await?;
    drop(guard);
    created.done(ctx).await?;
    for other in placement.shards() {
        if *other != shard && exists(ctx, uid, *other).await? {
            return set_settings(ctx, &source(ctx, *other)?, uid, shard).await;
        }
    }
    Ok(())
}

fn creation(placement: &Placement) -> Write {
    let create = NamedOperation::unnamed(Operation::CreateIndex);
    let body = json!({"uid": placement.uid, "primaryKey": placement.primary_key});
    Write::change(create, Method::POST, "/indexes".to_owned(), &body)
}

/// Deletes the index on a shard that owns none of its slots.
pub(super) async fn leave(ctx: &Arc<Context>, uid: &str, shard: ShardId) -> Result<(), MoveError> {
    if !exists(ctx, uid, shard).await? {
        return Ok(());
    }
    // As for documents that a move has left: see `sweep::remove`.
    ctx.cluster.mergers_follow().await;
    let placement = ctx.cluster.placement(uid);
    let mut shards = placement.map_or(Vec::new(), |index| index.shards().to_vec());
    shards.push(shard);
    shards.sort_unstable();
    shards.dedup();
    let guard = ctx.locks.lock(&shards).await;
    let now = ctx.cluster.placement(uid);
    if now.is_some_and(|now| now.shards().contains(&shard)) {
        return Err(MoveError::Changed);
    }
    let gone = send(ctx, &guard, shard, deletion(uid)).await?;
    drop(guard);
    gone.done(ctx).await
}

fn deletion(uid: &str) -> Write {
    let named = NamedOperation::of_index(Operation::DeleteIndex, uid);
    let path = format!("/indexes/{uid}");
    Write::change(named, Method::DELETE, path, &Value::Null)
}

/// Whether any replica of the shard has the index.
pub(super) async fn exists(ctx: &Context, uid: &str, shard: ShardId) -> Result<bool, MoveError> {
    for node in replicas(ctx, shard)? {
        let node = remote(ctx, &node);
        node.applied().await?;
        let indexes = node.indexes().await?;
        if indexes.iter().any(|index| index.uid == uid) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether every replica of the shard has the settings that the index has on `node`.
pub(super) async fn has_settings(
    ctx: &Context,
    node: &NodeRef,
    uid: &str,
    shard: ShardId,
) -> Result<bool, MoveError> {
    Ok(lacking(ctx, node, uid, shard).await?.is_empty())
}

async fn lacking(
    ctx: &Context,
    node: &NodeRef,
    uid: &str,
    shard: ShardId,
) -> Result<Map<String, Value>, MoveError> {
    let path = format!("/indexes/{uid}/settings");
    let wanted: Map<String, Value> = remote(ctx, node).get(&path).await?;
    for replica in replicas(ctx, shard)? {
        let held: Map<String, Value> = remote(ctx, &replica).get(&path).await?;
        let change = settings_change(uid, &wanted, &held)?;
        if !change.is_empty() {
            return Ok(change);
        }
    }
    Ok(Map::new())
}

/// Gives the shard the settings that the index has on `node`.
pub(super) async fn set_settings(
    ctx: &Arc<Context>,
    node: &NodeRef,
    uid: &str,
    shard: ShardId,
) -> Result<(), MoveError> {
    for _ in 0..ATTEMPTS {
        remote(ctx, node).applied().await?;
        let change = lacking(ctx, node, uid, shard).await?;
        if change.is_empty() {
            return Ok(());
        }
        let named = NamedOperation::of_index(Operation::UpdateSettings, uid);
        let path = format!("/indexes/{uid}/settings");
        let write = Write::change(named, Method::PATCH, path, &Value::Object(change));
        let guard = ctx.locks.lock(&[shard]).await;
        let tasks = send(ctx, &guard, shard, write).await?;
        drop(guard);
        tasks.done(ctx).await?;
    }
    Err(MoveError::Settings {
        index: uid.to_owned(),
        shard,
    })
}
