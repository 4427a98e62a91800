//! Changes of index names and index deletions, done on all of the index's shards or on none: deletions, renames, swaps.
//!
//! ```text
//! intent stored ─► nodes ─► placements ─► task ─► intent forgotten
//!       └─ interrupted anywhere: the nodes are asked which have it ─┬─ none: the change is undone
//!                                                                   └─ some: the others get it too, and it goes on as above
//! ```
//!
//! A change can be interrupted by a stop of the merger, or by a lost connection to a node. The client can't complete an
//! interrupted swap by repeating it, since two swaps cancel each other out. Invariant: until the change is completed or undone,
//! nothing else is written to the shards that may have it, and no replica is copied from one that has the change to one that
//! hasn't.
//!
//! This module handles a change that isn't interrupted; [`mod@finish`] completes or undoes the others, by the table of their states
//! in [`state`], and [`found`] asks the nodes.

mod finish;
mod found;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use weft_routing::operation::{NamedOperation, Operation};
use weft_routing::placement::ShardId;

pub use self::finish::take_up_intents;

use self::finish::finish;
use self::state::Placing;
use super::BroadcastError;
use super::settled::on_settled;
use super::spread::{NodeChange, Reach, Spread, spread_locked};
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::cluster::{ClusterError, NodeId, NodeRef, NodeStatus, ReadPolicy};
use crate::replication::{WriteGuard, settle_doubt};
use crate::store::{self, Store, StoreError};
use crate::supervise::survive;
use crate::tasks::{NewTask, ShardTask};

const PREFIX: &str = "intent/";

/// A change to be made, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Intent {
    effect: Effect,
    index_uid: Option<String>,
    details: Map<String, Value>,
    method: String,
    path_and_query: String,
    /// The body that each shard is sent.
    each: Vec<(ShardId, Value)>,
    /// The newest task of each node before the change: only a newer one can be the change's task.
    newest: BTreeMap<NodeId, u32>,
    /// The uid of the task; placements refer to the change by it.
    task: u32,
    /// Whether the placements have been updated.
    #[serde(rename = "placed")]
    placing: Placing,
}

/// How the placements change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub(super) enum Effect {
    /// Exchanges the indexes of each pair; if one of them doesn't exist, the other gets its name.
    Exchange { pairs: Vec<[String; 2]> },
    /// The index is removed when the task has succeeded. `before` is the task of an earlier deletion that hasn't ended.
    Deletion { uid: String, before: Option<u32> },
}

impl Intent {
    /// An intent to make `change`, with the body of each shard in `each`.
    pub(super) fn new(
        effect: Effect,
        change: &NodeChange,
        each: Vec<(ShardId, Value)>,
        index_uid: Option<String>,
        details: Value,
    ) -> Self {
        let details = details.as_object().cloned().unwrap_or_default();
        Self {
            effect,
            index_uid,
            details,
            method: change.method.to_string(),
            path_and_query: change.path_and_query.clone(),
            each,
            newest: BTreeMap::new(),
            task: 0,
            placing: Placing::Old,
        }
    }

    fn kind(&self) -> &'static str {
        match (&self.effect, &self.index_uid) {
            (Effect::Deletion { .. }, _) => "indexDeletion",
            (Effect::Exchange { .. }, Some(_)) => "indexUpdate",
            (Effect::Exchange { .. }, None) => "indexSwap",
        }
    }

    fn shards(&self) -> Vec<ShardId> {
        self.each.iter().map(|(shard, _)| *shard).collect()
    }

    /// The names that are exchanged; none for a deletion.
    fn names(&self) -> Vec<String> {
        match &self.effect {
            Effect::Exchange { pairs } => pairs.iter().flatten().cloned().collect(),
            Effect::Deletion { .. } => Vec::new(),
        }
    }

    fn pairs(&self) -> Vec<(&str, &str)> {
        match &self.effect {
            Effect::Exchange { pairs } => pairs
                .iter()
                .map(|[one, two]| (one.as_str(), two.as_str()))
                .collect(),
            Effect::Deletion { .. } => Vec::new(),
        }
    }

    /// What the change does on the nodes.
    fn named(&self) -> NamedOperation {
        match (&self.effect, &self.index_uid) {
            (Effect::Deletion { uid, .. }, _) => {
                NamedOperation::of_index(Operation::DeleteIndex, uid)
            }
            (Effect::Exchange { .. }, Some(uid)) => {
                NamedOperation::of_index(Operation::UpdateIndex, uid)
            }
            (Effect::Exchange { .. }, None) => NamedOperation::unnamed(Operation::SwapIndexes),
        }
    }

    fn change(&self, ctx: &Context, body: &Value) -> NodeChange {
        let method = self.method.parse().unwrap_or(Method::POST);
        NodeChange::own(ctx, self.named(), method, self.path_and_query.clone(), body)
    }
}

/// The stored intents: changes that are neither completed nor undone.
pub struct Intents {
    store: Arc<dyn Store>,
}

impl Intents {
    /// The intents in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    async fn all(&self) -> Result<Vec<(String, Intent)>, ClusterError> {
        let stored = self.store.range(PREFIX).await?;
        let read = |(key, stored): (String, store::Versioned)| {
            let intent = read(&key, &stored)?;
            Ok((key, intent))
        };
        stored.into_iter().map(read).collect()
    }

    async fn find(&self, key: &str) -> Result<Option<Intent>, ClusterError> {
        let stored = self.store.get(key).await?;
        stored.map(|stored| read(key, &stored)).transpose()
    }
}

fn read(key: &str, stored: &store::Versioned) -> Result<Intent, ClusterError> {
    let intent = serde_json::from_slice(&stored.value);
    intent.map_err(|_| ClusterError::Corrupt(key.to_owned()))
}

fn put(key: &str, intent: &Intent) -> store::Change {
    store::Change::put(key, serde_json::to_vec(intent).unwrap_or_default())
}

/// Makes the change and registers the task; `guard` holds the locks of all its shards.
///
/// # Errors
/// The change isn't complete, and may never be: a shard does not answer, or the store failed.
pub(super) async fn carry_out(
    ctx: &Arc<Context>,
    guard: WriteGuard,
    change: &NodeChange,
    mut intent: Intent,
) -> Result<Answer, BroadcastError> {
    for shard in intent.shards() {
        settle_doubt(ctx, shard).await?;
        let replicas = ctx.cluster.replicas_or_none(shard)?;
        let silent = |node: &NodeRef| ctx.cluster.health.status(&node.id) == NodeStatus::Silent;
        if replicas.iter().all(silent) {
            return Err(BroadcastError::Silent(shard));
        }
        let newest = |node: &NodeRef| Some((node.id.clone(), ctx.cluster.marks.newest(&node.id)?));
        intent.newest.extend(replicas.iter().filter_map(newest));
    }
    intent.task = ctx.tasks.reserve();
    let key = format!("{PREFIX}{}", uuid::Uuid::new_v4());
    ctx.intents.store.commit(vec![put(&key, &intent)]).await?;
    let beginning = begin(ctx, &guard, change, &key, &mut intent);
    let done = survive(&ctx.metrics.panics, "change-indexes", beginning).await;
    if !matches!(&done, Some(Ok(Some(_)))) {
        // Before the locks are released, so that the next writer finds the hold.
        let shards = intent.shards().into_iter().collect();
        ctx.cluster.in_doubt.hold(&key, shards, ReadPolicy::Serve);
        // After a panic, only the store knows how far the change got.
        finish(ctx, key, done.is_some().then_some(intent));
    }
    match done {
        Some(Ok(Some(answer))) => Ok(answer),
        Some(Err(error)) => Err(error),
        Some(Ok(None)) | None => Err(BroadcastError::Unfinished),
    }
}

/// Returns `None` if some shards have the change and others don't.
async fn begin(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    change: &NodeChange,
    key: &str,
    intent: &mut Intent,
) -> Result<Option<Answer>, BroadcastError> {
    if let Effect::Deletion { uid, .. } = &intent.effect {
        let placements = &ctx.cluster.placements;
        placements.mark_deleted(uid, intent.task).await?;
    }
    let own: Vec<(ShardId, NodeChange)> = intent
        .each
        .iter()
        .map(|(shard, body)| match body {
            Value::Null => (*shard, change.clone()),
            body => (*shard, change.with_body(body)),
        })
        .collect();
    let each: Vec<_> = own.iter().map(|(shard, change)| (*shard, change)).collect();
    match spread_locked(ctx, guard, &each, Reach::Replicas).await? {
        Spread::Refused(answer) => {
            undo(ctx, key, intent).await?;
            Ok(Some(answer))
        }
        Spread::Taken { parts, .. } if lacking(&parts).next().is_some() => Ok(None),
        Spread::Taken { parts, .. } => conclude(ctx, key, intent, parts).await.map(Some),
    }
}

/// The parts of shards that haven't got the change.
fn lacking(parts: &[ShardTask]) -> impl Iterator<Item = &ShardTask> {
    parts.iter().filter(|part| part.undelivered.is_some())
}

/// No node has the change: the placements go back to what they were.
async fn undo(ctx: &Context, key: &str, intent: &Intent) -> Result<(), StoreError> {
    if let Effect::Deletion { uid, before } = &intent.effect {
        let placements = &ctx.cluster.placements;
        placements.unmark_deleted(uid, intent.task).await?;
        if let Some(other) = before {
            placements.mark_deleted(uid, *other).await?;
            // The earlier deletion may have ended while the mark named this one.
            if let Ok(view) = ctx.tasks.get_as_begun(*other).await
                && view.status.is_settled()
            {
                on_settled(ctx, &view).await?;
            }
        }
    }
    forget(ctx, key).await
}

async fn forget(ctx: &Context, key: &str) -> Result<(), StoreError> {
    let gone = store::Change::delete(key);
    ctx.intents.store.commit(vec![gone]).await
}

/// Updates the placements for the change, unless that is done already.
async fn follow(ctx: &Context, key: &str, intent: &mut Intent) -> Result<(), StoreError> {
    if std::mem::replace(&mut intent.placing, Placing::New) == Placing::New {
        return Ok(());
    }
    let stored = put(key, intent);
    let followed = match &intent.effect {
        Effect::Exchange { .. } => {
            let (placements, pairs) = (&ctx.cluster.placements, intent.pairs());
            placements.swap_for(&pairs, intent.task, vec![stored]).await
        }
        // The deletion mark is there already.
        Effect::Deletion { .. } => ctx.intents.store.commit(vec![stored]).await,
    };
    if followed.is_err() {
        intent.placing = Placing::Old;
    }
    followed
}

/// All shards have the change: updates the placements, and registers the task under the intent's uid.
async fn conclude(
    ctx: &Arc<Context>,
    key: &str,
    intent: &mut Intent,
    parts: Vec<ShardTask>,
) -> Result<Answer, BroadcastError> {
    if let Effect::Exchange { .. } = &intent.effect {
        follow(ctx, key, intent).await?;
    }
    let task = NewTask {
        kind: intent.kind().to_owned(),
        index_uid: intent.index_uid.clone(),
        details: intent.details.clone(),
        parts,
        ..NewTask::default()
    };
    let forgotten = vec![store::Change::delete(key)];
    let enqueued = ctx.tasks.create_as(intent.task, task, forgotten).await?;
    Ok(Answer::json(StatusCode::ACCEPTED, &enqueued))
}
