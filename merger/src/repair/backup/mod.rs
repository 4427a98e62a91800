//! What the merger does for a backup: it says what there is, reads documents, and finds a moment in the order of writes to which
//! all that was copied belongs. The client of a backup (`weft backup`) keeps the copies.
//!
//! ```text
//! begin:   what is written is noted from here on; no index's slots move any more
//! copy:    every index, shard by shard, while clients write
//! round:   with the locks of all shards: the notes are taken, and a moment is proposed
//!          ├─ few documents were written: they are read before the locks are released ─► the copy is of this moment
//!          └─ otherwise the client copies them, and asks for the next round:
//!                  nothing of that was written again meanwhile ─► the copy is of the moment before
//!                  else ─► the next moment
//! ```
//!
//! Why the copy is of one moment: a write holds the locks of all of its shards from before it is noted until the shards have it, so a
//! write is either before the moment on all shards, or after it on all. A client that was told of a write sends its next one later,
//! so the writes before the moment are a beginning of the order in which clients were told. A document that was not noted before the
//! moment was copied as it was then. One that was noted is read after the nodes have applied what they had taken, and counts only if
//! nobody wrote it again in between.
//!
//! Invariants: notes are taken only under the locks of all shards, after doubts were settled, so that the replicas in sync are equal
//! in what was noted. Writers wait for a round no longer than its client allows. Documents of a slot are read from its owner only.
//! Here nothing is changed, neither on nodes nor in the store.

mod read;
mod round;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;
use uuid::Uuid;
use weft_routing::placement::ShardId;

pub(crate) use read::{Cursor, documents, page};
pub(crate) use round::{Round, State, round, state};

use super::Context;
use super::resync::{Remote, ResyncError, SourceGuard};
use crate::cluster::{
    BACKUP_LEASE, ClusterError, InUse, NodeRef, NodeStatus, Placement, WriteMode, wish_for,
};
use crate::replication::{WriteGuard, settle_doubt};

/// How long one request waits for nodes that have yet to apply what they have taken, and for locks.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that may need more time than one request has: the client asks again.
pub(crate) enum Waiting<T> {
    /// It is there.
    Ready(T),
    /// Nodes are still busy with what they have taken.
    Busy,
}

/// An index, as it is when a backup begins with it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    uid: String,
    primary_key: Option<String>,
    shards: Vec<ShardId>,
    shard_count: Option<u16>,
    write_mode: Option<WriteMode>,
    /// How its documents get their slots, as a client asks for it.
    strategy: Map<String, Value>,
    documents: u64,
    settings: Map<String, Value>,
}

/// Begins a backup.
///
/// # Errors
/// Another one is being made, or a shard can't be locked.
pub(crate) async fn begin(ctx: &Arc<Context>) -> Result<Uuid, ClusterError> {
    if ctx.cluster.direct_writes() {
        return Err(ClusterError::BackupUnordered);
    }
    let shards = ctx.cluster.shards();
    if shards.is_empty() {
        return Err(ClusterError::NoShards);
    }
    let backups = &ctx.cluster.backups;
    let id = backups.begin(shards);
    let id = id.ok_or(ClusterError::BackupRunning)?;
    let Some(used) = backups.use_it(id) else {
        return Err(ClusterError::UnknownBackup(id.to_string()));
    };
    for placement in ctx.cluster.placements.all() {
        used.hold(&placement.uid, ctx.cluster.moves.hold(&placement.uid));
    }
    // What was on its way when the notes began has arrived after this.
    let locked = lock_all(ctx, &used).await;
    if let Err(error) = locked {
        drop(used);
        backups.end(id);
        return Err(error);
    }
    tokio::spawn(end_in_time(Arc::clone(backups), id));
    Ok(id)
}

/// Ends a backup whose client vanished.
async fn end_in_time(backups: Arc<crate::cluster::Backups>, id: Uuid) {
    while backups.is_there(id) {
        tokio::time::sleep(BACKUP_LEASE / 4).await;
    }
}

/// A backup by its id, for the time of one request.
///
/// # Errors
/// It has ended.
pub(crate) fn used(ctx: &Context, id: &str) -> Result<InUse, ClusterError> {
    let known = Uuid::try_parse(id).ok();
    let known = known.and_then(|id| ctx.cluster.backups.use_it(id));
    known.ok_or_else(|| ClusterError::UnknownBackup(id.to_owned()))
}

/// Ends a backup.
///
/// # Errors
/// It has ended already.
pub(crate) fn end(ctx: &Context, id: &str) -> Result<(), ClusterError> {
    let known = Uuid::try_parse(id).ok();
    match known.is_some_and(|id| ctx.cluster.backups.end(id)) {
        true => Ok(()),
        false => Err(ClusterError::UnknownBackup(id.to_owned())),
    }
}

/// The locks of all shards, whose doubts are settled, and since when writers wait.
async fn lock_all(ctx: &Arc<Context>, used: &InUse) -> Result<(WriteGuard, Instant), ClusterError> {
    let shards = used.shards();
    if ctx.cluster.shards() != shards {
        let why = "shards have come or gone".to_owned();
        return Err(ClusterError::BackupBroken(why));
    }
    let locking = tokio::time::timeout(PATIENCE, ctx.locks.lock(&shards)).await;
    let guard = locking.map_err(|_| {
        let seconds = PATIENCE.as_secs();
        ClusterError::BackupUnread(format!("writes hold a shard for more than {seconds} s"))
    })?;
    let since = Instant::now();
    for shard in shards {
        settle_doubt(ctx, shard).await?;
    }
    Ok((guard, since))
}

/// The replica of a shard that is read: one in sync that answers, without lag if there is one.
fn source(ctx: &Context, shard: ShardId) -> Result<NodeRef, ClusterError> {
    let mut replicas = ctx.cluster.replicas_or_none(shard)?;
    replicas.retain(|node| ctx.cluster.health.status(&node.id) == NodeStatus::Up);
    replicas.sort_by_key(|node| !ctx.cluster.queues.caught_up(&node.id));
    let found = replicas.into_iter().next();
    found.ok_or_else(|| {
        ClusterError::BackupUnread(format!("no replica of shard-{} answers", shard.0))
    })
}

fn unread(error: ResyncError) -> ClusterError {
    match error {
        ResyncError::Cluster(error) => error,
        ResyncError::Store(error) => error.into(),
        other => ClusterError::BackupUnread(other.to_string()),
    }
}

/// Waits until a node has applied everything up to the last round.
async fn settle(ctx: &Context, used: &InUse, node: &NodeRef) -> Result<Waiting<()>, ClusterError> {
    let (round, is_settled) = used.settled(&node.id);
    if is_settled {
        return Ok(Waiting::Ready(()));
    }
    let remote = Remote::new(ctx, node);
    match tokio::time::timeout(PATIENCE, remote.applied()).await {
        Ok(applied) => applied.map_err(unread)?,
        Err(_) => return Ok(Waiting::Busy),
    }
    used.set_settled(&node.id, round);
    Ok(Waiting::Ready(()))
}

#[derive(Deserialize, Default)]
struct Stats {
    indexes: BTreeMap<String, Count>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    number_of_documents: u64,
}

/// What one shard says of its indexes.
struct Said {
    primary_keys: BTreeMap<String, Option<String>>,
    counts: BTreeMap<String, Count>,
    node: NodeRef,
}

/// All indexes, with their settings.
///
/// # Errors
/// A node can't be read.
pub(crate) async fn indexes(
    ctx: &Arc<Context>,
    used: &InUse,
) -> Result<Waiting<Vec<Index>>, ClusterError> {
    let mut said = BTreeMap::new();
    for shard in used.shards() {
        let node = source(ctx, shard)?;
        if let Waiting::Busy = settle(ctx, used, &node).await? {
            return Ok(Waiting::Busy);
        }
        let unbroken = SourceGuard::of(ctx, &node).map_err(unread)?;
        let remote = Remote::new(ctx, &node);
        let listed = remote.indexes().await.map_err(unread)?;
        let stats: Stats = remote.get("/stats").await.map_err(unread)?;
        unbroken.check().await.map_err(unread)?;
        let keys = listed
            .into_iter()
            .map(|index| (index.uid, index.primary_key));
        let one = Said {
            primary_keys: keys.collect(),
            counts: stats.indexes,
            node,
        };
        said.insert(shard, one);
    }
    let mut indexes = Vec::new();
    for placement in ctx.cluster.placements.all() {
        // Its deletion was acknowledged already.
        if placement.deleted_by.is_some() {
            continue;
        }
        used.hold(&placement.uid, ctx.cluster.moves.hold(&placement.uid));
        if let Some(index) = describe(ctx, &placement, &said).await? {
            indexes.push(index);
        }
    }
    let with_key = indexes.iter().filter(|index| index.primary_key.is_some());
    used.know(with_key.map(|index| index.uid.clone()).collect());
    Ok(Waiting::Ready(indexes))
}

async fn describe(
    ctx: &Context,
    placement: &Placement,
    said: &BTreeMap<ShardId, Said>,
) -> Result<Option<Index>, ClusterError> {
    let uid = &placement.uid;
    let mut index = Index {
        uid: uid.clone(),
        primary_key: placement.primary_key.clone(),
        shards: placement.shards().to_vec(),
        shard_count: placement.shard_count,
        write_mode: placement.write_mode,
        strategy: wish_for(placement.sure_strategy()),
        documents: 0,
        settings: Map::new(),
    };
    let mut reader = None;
    for shard in placement.shards() {
        let Some(one) = said.get(shard) else {
            return Err(ClusterError::ShardEmpty(*shard));
        };
        let Some(key) = one.primary_keys.get(uid) else {
            continue;
        };
        reader.get_or_insert(&one.node);
        if index.primary_key.is_none() {
            index.primary_key.clone_from(key);
        }
        let count = one.counts.get(uid);
        index.documents += count.map_or(0, |count| count.number_of_documents);
    }
    // An index whose creation failed has a placement, but no node has it.
    let Some(node) = reader else { return Ok(None) };
    let path = format!("/indexes/{uid}/settings");
    let remote = Remote::new(ctx, node);
    index.settings = remote.get(&path).await.map_err(unread)?;
    Ok(Some(index))
}
