//! Completes or undoes changes that were interrupted. The table in [`state`](super::state) says what an attempt does.

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
use super::state::{Having, Heard, Placing, State, Step};
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
    let mut state = State::begin(intent.placing);
    loop {
        // Once a silent node counts as down, writers to the shards that have the change don't wait any longer for the shards
        // that don't.
        if begun.elapsed() >= ctx.cluster.down_after() {
            state = state.overdue();
        }
        state = match attempt(&ctx, &key, &mut intent, state).await {
            Ok(Attempt::Ended(outcome)) => {
                return tracing::warn!(kind, outcome, "a change that was cut off has ended");
            }
            Ok(Attempt::AllAnswered) => state.all_answered(),
            Err(error) => {
                tracing::debug!(kind, %error, "a change that was cut off can't be ended yet");
                state.unended(intent.placing)
            }
        };
        tokio::time::sleep(AGAIN).await;
    }
}

/// The result of an attempt that wasn't cut off by an error.
enum Attempt {
    /// The change has ended, as the text says.
    Ended(&'static str),
    /// All shards answered, and are to be asked once more.
    AllAnswered,
}

/// One attempt, with what its state allows.
async fn attempt(
    ctx: &Arc<Context>,
    key: &str,
    intent: &mut Intent,
    state: State,
) -> Result<Attempt, BroadcastError> {
    let in_doubt = &ctx.cluster.in_doubt;
    if state.asks_before_locking() {
        until_none_is_silent(ctx, key, intent).await?;
    }
    let guard = ctx.locks.lock(&intent.shards()).await;
    let found = ask_all(ctx, intent).await?;
    let step = state.step(Heard::of(&found));
    if state.holds_all_shards() && !matches!(step, Step::Wait(_)) {
        let shards = intent.shards().into_iter().collect();
        in_doubt.hold(key, shards, ReadPolicy::Serve);
    }
    let outcome = match step {
        Step::Wait(silent) => {
            // Shards that certainly don't have the change are released.
            let may_have = |found: &&Found| found.has.is_none() || found.has_it();
            let may_have = found.iter().filter(may_have);
            let may_have = may_have.map(|found| found.shard).collect();
            in_doubt.hold(key, may_have, ReadPolicy::Serve);
            return Err(BroadcastError::Silent(silent));
        }
        Step::AskAgain => return Ok(Attempt::AllAnswered),
        Step::Undo => {
            undo(ctx, key, intent).await?;
            "undone: no node had it"
        }
        Step::Complete => {
            complete(ctx, &guard, key, intent, state, found).await?;
            "made whole"
        }
    };
    in_doubt.release(key);
    drop(guard);
    Ok(Attempt::Ended(outcome))
}

/// Asks the nodes without the locks, and fails if a shard is silent.
async fn until_none_is_silent(
    ctx: &Context,
    key: &str,
    intent: &Intent,
) -> Result<(), BroadcastError> {
    let found = ask_all(ctx, intent).await?;
    let Heard::Silent(silent, having) = Heard::of(&found) else {
        return Ok(());
    };
    // If no node answers at all, as before Envoy has reported the nodes, nothing is known, and nothing is held.
    if having == Having::Some {
        let lacking = found.iter().filter(|found| !found.has_it());
        let lacking = lacking.map(|found| found.shard).collect();
        ctx.cluster.in_doubt.hold(key, lacking, ReadPolicy::Refuse);
    }
    Err(BroadcastError::Silent(silent))
}

/// Sends the change to the shards that lack it, and registers its task when all have it.
async fn complete(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    key: &str,
    intent: &mut Intent,
    state: State,
    found: Vec<Found>,
) -> Result<(), BroadcastError> {
    let parts = send_to_the_rest(ctx, guard, key, intent, found).await?;
    let lacking: BTreeSet<ShardId> = lacking(&parts).map(|part| part.shard).collect();
    let Some(shard) = lacking.first().copied() else {
        return register(ctx, key, intent, parts).await;
    };
    if state.goes_on_without_some() {
        // The shards that have the change have waited long enough and are released. The others get it when they answer again;
        // until then, reads there are refused.
        follow(ctx, key, intent).await?;
        ctx.cluster.in_doubt.hold(key, lacking, ReadPolicy::Refuse);
    }
    Err(BroadcastError::Silent(shard))
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
        && intent.placing == Placing::Old
        && pairs.iter().any(|pair| placements.lie_apart(pair))
    {
        // A filter with the old routing table would ask the wrong shard.
        placements
            .leave_to_merger(key, &intent.names(), true)
            .await?;
        ctx.cluster.filters_follow().await;
    }
    ctx.writes.indexes_change();
    let sent = found.into_iter().map(|found| {
        let body = intent.each.iter().find(|(shard, _)| *shard == found.shard);
        let change = body.map(|(_, body)| intent.change(ctx, body));
        async move {
            match (found.has, change) {
                (Some(has), Some(change)) => {
                    ctx.cluster.note_write(found.shard, &change.named, None);
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
        Effect::Exchange { .. } if intent.placing == Placing::New => {
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
