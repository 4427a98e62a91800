//! A round: the notes are taken under the locks of all shards, and a moment is proposed or confirmed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::time::{timeout, timeout_at};
use weft_routing::placement::ShardId;

use super::read::{by_shard, placement};
use super::{Waiting, lock_all, settle, source, unread};
use crate::cluster::{Candidate, ClusterError, InUse, Touched, Writes};
use crate::repair::Context;
use crate::repair::resync::{Remote, SourceGuard};

/// The most documents that are read while writers wait.
const FEW: usize = 500;
/// How long nodes that are busy are waited for before the locks are taken.
const CALM: Duration = Duration::from_secs(5);

/// What is the same on every node and belongs to no index.
#[derive(Debug, Serialize)]
pub(crate) struct State {
    keys: Vec<Value>,
    features: Map<String, Value>,
}

/// What a round came to. `pause` is how long writers waited.
pub(crate) enum Round {
    /// What was copied is of the moment of the last round.
    Consistent {
        last_task: Option<u32>,
        pause: Duration,
    },
    /// With these documents, what was copied is of this round's moment.
    Held {
        last_task: Option<u32>,
        pause: Duration,
        /// The ids that were written since the last round, and the documents that there are of them.
        documents: BTreeMap<String, (Vec<String>, Vec<Box<RawValue>>)>,
        state: State,
    },
    /// This was written since the last round, and must be copied.
    Again { writes: Writes, pause: Duration },
}

impl Round {
    /// How long writers waited.
    pub(crate) fn pause(&self) -> Duration {
        match self {
            Self::Consistent { pause, .. }
            | Self::Held { pause, .. }
            | Self::Again { pause, .. } => *pause,
        }
    }
}

/// One round. If `hold` isn't zero and little was written, it is read while writers wait, no longer than that.
///
/// # Errors
/// A shard can't be locked, or its replicas are in doubt.
pub(crate) async fn round(
    ctx: &Arc<Context>,
    used: &InUse,
    hold: Duration,
) -> Result<Round, ClusterError> {
    if !hold.is_zero() {
        // What nodes have yet to do is waited for while writers go on.
        let _ = timeout(CALM, calm(ctx, used)).await;
    }
    let (guard, begun) = lock_all(ctx, used).await?;
    let Some((candidate, writes)) = used.take() else {
        let why = "it was ended meanwhile".to_owned();
        return Err(ClusterError::BackupBroken(why));
    };
    let last_task = ctx.tasks.last_uid();
    if let Some(before) = candidate
        && !before.writes.overwritten_by(&writes)
    {
        drop(guard);
        return Ok(Round::Consistent {
            last_task: before.last_task,
            pause: begun.elapsed(),
        });
    }
    let few = writes.documents().is_some_and(|count| count <= FEW);
    if few && !hold.is_zero() {
        match timeout_at(begun + hold, read_all(ctx, &writes)).await {
            Ok(Ok((documents, state))) => {
                drop(guard);
                return Ok(Round::Held {
                    last_task,
                    pause: begun.elapsed(),
                    documents,
                    state,
                });
            }
            Ok(Err(error)) => tracing::warn!(%error, "a backup could not read what was written"),
            Err(_) => {}
        }
    }
    if writes.documents().is_some() {
        used.propose(Candidate {
            writes: writes.clone(),
            last_task,
        });
    }
    drop(guard);
    let pause = begun.elapsed();
    Ok(Round::Again { writes, pause })
}

/// Waits until the nodes that are read have applied what they had taken.
async fn calm(ctx: &Arc<Context>, used: &InUse) -> Result<(), ClusterError> {
    for shard in used.shards() {
        let node = source(ctx, shard)?;
        Remote::new(ctx, &node).applied().await.map_err(unread)?;
    }
    Ok(())
}

type Found = BTreeMap<String, (Vec<String>, Vec<Box<RawValue>>)>;

/// Reads what was written, from all shards at once, and the state. The caller has the locks of all shards.
async fn read_all(ctx: &Arc<Context>, writes: &Writes) -> Result<(Found, State), ClusterError> {
    let mut wanted: BTreeMap<ShardId, Vec<(&String, Vec<String>)>> = BTreeMap::new();
    let mut found = Found::new();
    for (uid, touched) in &writes.indexes {
        let Touched::Ids(ids) = touched else { continue };
        found.insert(uid.clone(), (ids.iter().cloned().collect(), Vec::new()));
        for (shard, ids) in by_shard(&*placement(ctx, uid)?, ids) {
            wanted.entry(shard).or_default().push((uid, ids));
        }
    }
    let reading = wanted.into_iter().map(|(shard, indexes)| async move {
        let node = source(ctx, shard)?;
        let unbroken = SourceGuard::of(ctx, &node).map_err(unread)?;
        let remote = Remote::new(ctx, &node);
        remote.applied().await.map_err(unread)?;
        let mut read = Vec::with_capacity(indexes.len());
        for (uid, ids) in indexes {
            let documents = remote.documents_of(uid, &ids).await.map_err(unread)?;
            read.push((uid, documents));
        }
        unbroken.check().await.map_err(unread)?;
        Ok::<_, ClusterError>(read)
    });
    let (read, state) = futures_util::try_join!(try_join_all(reading), read_state(ctx))?;
    for (uid, documents) in read.into_iter().flatten() {
        if let Some((_, all)) = found.get_mut(uid) {
            all.extend(documents);
        }
    }
    Ok((found, state))
}

/// The keys and the features.
///
/// # Errors
/// The first shard can't be read.
pub(crate) async fn state(
    ctx: &Arc<Context>,
    used: &InUse,
) -> Result<Waiting<State>, ClusterError> {
    let shard = used.shards().into_iter().next();
    let node = source(ctx, shard.ok_or(ClusterError::NoShards)?)?;
    match settle(ctx, used, &node).await? {
        Waiting::Busy => Ok(Waiting::Busy),
        Waiting::Ready(()) => Ok(Waiting::Ready(read_state(ctx).await?)),
    }
}

#[derive(Deserialize)]
struct Keys {
    results: Vec<Value>,
}

async fn read_state(ctx: &Context) -> Result<State, ClusterError> {
    let shard = ctx.cluster.shards().into_iter().next();
    let node = source(ctx, shard.ok_or(ClusterError::NoShards)?)?;
    let remote = Remote::new(ctx, &node);
    let keys = match ctx.master_key.is_some() {
        true => {
            let keys: Keys = remote.get("/keys?limit=1000000").await.map_err(unread)?;
            keys.results
        }
        // Nodes without a master key have no keys.
        false => Vec::new(),
    };
    let features = remote.get("/experimental-features").await;
    Ok(State {
        keys,
        features: features.map_err(unread)?,
    })
}
