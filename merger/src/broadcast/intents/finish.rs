//! Completes or undoes changes that were interrupted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use super::found::{Found, ask_all};
use super::{Effect, Intent, conclude, follow, lacking, put, undo};
use crate::broadcast::BroadcastError;
use crate::broadcast::Context;
use crate::broadcast::spread::{Taken, to_shard};
use crate::cluster::{ClusterError, NodeId, NodeRef, ReadPolicy};
use crate::replication::WriteGuard;
use crate::supervise::supervise;
use crate::tasks::ShardTask;
use crate::upstream::NodeAnswer;

/// The pause between attempts; writes to the shards that may have the change are refused meanwhile.
const AGAIN: Duration = Duration::from_millis(500);

/// Resumes the changes that the last merger left: from now on, writes to their shards are refused until each change is
/// completed or undone.
///
/// # Errors
/// The store can't be read.
pub async fn take_up_intents(ctx: &Arc<Context>) -> Result<(), ClusterError> {
    for (key, intent) in ctx.intents.all().await? {
        let shards = intent.shards().into_iter().collect();
        ctx.cluster.in_doubt.hold(&key, shards, ReadPolicy::Serve);
        finish(ctx, key, Some(intent));
    }
    Ok(())
}

/// Completes or undoes the change, however long that takes. Without `intent`, and after a panic, it is read from the store. The
/// caller holds back writes to its shards.
pub(super) fn finish(ctx: &Arc<Context>, key: String, intent: Option<Intent>) {
    let known = Mutex::new(intent);
    supervise(ctx, &ctx.metrics.panics, "finish-intents", move |ctx| {
        let known = known.lock().unwrap_or_else(PoisonError::into_inner).take();
        let key = key.clone();
        async move {
            let intent = match known {
                Some(intent) => Some(intent),
                None => stored(&ctx, &key).await,
            };
            match intent {
                Some(intent) => go_on(ctx, key, intent).await,
                // The change was completed or undone before.
                None => ctx.cluster.in_doubt.release(&key),
            }
        }
    });
}

/// The stored intent, if there is one.
async fn stored(ctx: &Context, key: &str) -> Option<Intent> {
    loop {
        match ctx.intents.find(key).await {
            Ok(found) => return found,
            Err(error) => {
                tracing::error!(key, %error, "a change that was cut off can't be read yet");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn go_on(ctx: Arc<Context>, key: String, mut intent: Intent) {
    let kind = intent.kind();
    tracing::warn!(kind, shards = ?intent.shards(), "a change of indexes was cut off: it is made whole, or undone");
    let begun = Instant::now();
    // A node that hung when the change was sent may take it after answering that it doesn't have it, so all nodes are asked
    // twice.
    let mut certain = false;
    loop {
        // Once a silent node counts as down, writers to the shards that have the change don't wait any longer for the shards
        // that don't.
        let patient = !intent.placed && begun.elapsed() < ctx.cluster.down_after();
        match attempt(&ctx, &key, &mut intent, patient, certain).await {
            Ok(Some(outcome)) => {
                return tracing::warn!(kind, outcome, "a change that was cut off has ended");
            }
            Ok(None) => certain = true,
            Err(error) => {
                certain = false;
                tracing::debug!(kind, %error, "a change that was cut off can't be ended yet");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// One attempt; returns how the change ended, or `None` if all nodes must be asked once more.
async fn attempt(
    ctx: &Arc<Context>,
    key: &str,
    intent: &mut Intent,
    patient: bool,
    certain: bool,
) -> Result<Option<&'static str>, BroadcastError> {
    let shards: BTreeSet<ShardId> = intent.shards().into_iter().collect();
    let in_doubt = &ctx.cluster.in_doubt;
    if intent.placed {
        // Asked without the locks: writers to the shards that have the change must not wait for the silent shards' timeouts.
        let found = ask_all(ctx, intent).await?;
        if let Some(silent) = found.iter().find(|found| found.has.is_none()) {
            // If no node answers at all, as before Envoy has reported the nodes, nothing is known, and nothing is held.
            if found.iter().any(Found::has_it) {
                let lacking = found.iter().filter(|found| !found.has_it());
                let lacking = lacking.map(|found| found.shard).collect();
                in_doubt.hold(key, lacking, ReadPolicy::Refuse);
            }
            return Err(BroadcastError::Silent(silent.shard));
        }
    }
    let guard = ctx.locks.lock(&intent.shards()).await;
    let found = ask_all(ctx, intent).await?;
    let any_has_it = found.iter().any(Found::has_it);
    let silent = found.iter().find(|found| found.has.is_none());
    if let Some(silent) = silent
        && (patient || !any_has_it)
    {
        // Shards that certainly don't have the change are released.
        let may_have = found
            .iter()
            .filter(|found| found.has.is_none() || found.has_it());
        let may_have = may_have.map(|found| found.shard).collect();
        in_doubt.hold(key, may_have, ReadPolicy::Serve);
        return Err(BroadcastError::Silent(silent.shard));
    }
    if !intent.placed {
        in_doubt.hold(key, shards, ReadPolicy::Serve);
    }
    if !certain && silent.is_none() {
        return Ok(None);
    }
    let outcome = match any_has_it {
        false => {
            undo(ctx, key, intent).await?;
            "undone: no node had it"
        }
        true => {
            let parts = send_to_the_rest(ctx, &guard, key, intent, found).await?;
            let lacking: BTreeSet<ShardId> = lacking(&parts).map(|part| part.shard).collect();
            if let Some(shard) = lacking.first().copied() {
                if !patient {
                    // The shards that have the change have waited long enough and are released. The others get it when they
                    // answer again; until then, reads there are refused.
                    follow(ctx, key, intent).await?;
                    in_doubt.hold(key, lacking, ReadPolicy::Refuse);
                }
                return Err(BroadcastError::Silent(shard));
            }
            register(ctx, key, intent, parts).await?;
            "made whole"
        }
    };
    in_doubt.release(key);
    drop(guard);
    Ok(Some(outcome))
}

/// Sends the change to all shards and replicas that haven't got it.
async fn send_to_the_rest(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    key: &str,
    intent: &Intent,
    found: Vec<Found>,
) -> Result<Vec<ShardTask>, BroadcastError> {
    let placements = &ctx.cluster.placements;
    if let Effect::Exchange { pairs } = &intent.effect
        && !intent.placed
        && pairs.iter().any(|pair| placements.lie_apart(pair))
    {
        // A filter with the old routing table would ask the wrong shard.
        placements
            .leave_to_merger(key, &intent.names(), true)
            .await?;
        tokio::time::sleep(ctx.cluster.lease()).await;
    }
    ctx.writes.indexes_change();
    let sent = found.into_iter().map(|found| {
        let body = intent.each.iter().find(|(shard, _)| *shard == found.shard);
        let change = body.map(|(_, body)| intent.change(ctx, body));
        async move {
            match (found.has, change) {
                (Some(has), Some(change)) => {
                    ctx.cluster
                        .dirty
                        .note(found.shard, &change.path_and_query, None);
                    let replicas = ctx.cluster.replicas_or_none(found.shard)?;
                    let taken: Taken = has.into_iter().map(as_taken).collect();
                    to_shard(ctx, guard, &change, found.shard, replicas, taken).await
                }
                _ => Ok(ShardTask::undelivered(
                    found.shard,
                    "it is silent".to_owned(),
                )),
            }
        }
    });
    join_all(sent).await.into_iter().collect()
}

/// Registers the task under a new uid: the old one may belong to another task by now.
async fn register(
    ctx: &Arc<Context>,
    key: &str,
    intent: &mut Intent,
    parts: Vec<ShardTask>,
) -> Result<(), BroadcastError> {
    let placements = &ctx.cluster.placements;
    let old = std::mem::replace(&mut intent.task, ctx.tasks.reserve());
    match &intent.effect {
        Effect::Deletion { uid, .. } => placements.mark_deleted(uid, intent.task).await?,
        Effect::Exchange { .. } if intent.placed => {
            let stored = put(key, intent);
            placements.swap_goes_on(old, intent.task, stored).await?;
        }
        Effect::Exchange { .. } => follow(ctx, key, intent).await?,
    }
    // Filters may route these indexes again, now that the routing table is the new one. This comes first: nothing may fail
    // after the task is registered.
    placements
        .leave_to_merger(key, &intent.names(), false)
        .await?;
    conclude(ctx, key, intent, parts).await.map(drop)
}

fn as_taken((node, local_uid): (NodeRef, u32)) -> (NodeId, NodeAnswer) {
    let answer = NodeAnswer {
        status: StatusCode::ACCEPTED,
        headers: HeaderMap::new(),
        body: Bytes::from(json!({"taskUid": local_uid}).to_string()),
    };
    (node.id, answer)
}
