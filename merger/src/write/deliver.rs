//! Deliver: takes the shards' locks and sends each shard its pieces, the same to every in-sync replica, in the same order.
//!
//! Either no shard accepted anything, and the client gets the reason; or the write is a task, which says what was not accepted.
//! A replica that missed what another took has left the in-sync set before the client gets the task. In modes other than
//! `sync`, the task names the replicas that haven't taken the write yet.

use std::sync::Arc;

use futures_util::future::join_all;
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use serde::Deserialize;
use weft_routing::operation::NamedOperation;
use weft_routing::placement::{ShardId, SlotMap};

use super::WriteError;
use super::spool::Piece;
use crate::answer::Answer;
use crate::call::{AnyBody, ForwardedHeaders};
use crate::cluster::{Placement, WriteMode};
use crate::ids::Ids;
use crate::replication::{
    Command, Content, Missed, NotTaken, NotThere, Order, WriteGuard, knock, reasons, replicate,
    settle_doubt, stagger,
};
use crate::tasks::ShardTask;
use crate::write::Context;

/// A write, laid out by shard.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// The index; merged small writes of it must not be repeated after this write.
    pub(super) index_uid: Option<String>,
    /// What the write does.
    pub(super) named: NamedOperation,
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) forwarded: ForwardedHeaders,
    /// How many replicas must take the write before it is acknowledged.
    pub(super) mode: WriteMode,
    pub(super) loads: Vec<ShardPayload>,
}

/// What one shard gets.
#[derive(Debug, Clone)]
pub(super) struct ShardPayload {
    pub(super) shard: ShardId,
    pub(super) pieces: Vec<Piece>,
    /// The documents' ids, if known: a resync repairs them on a replica that is being brought back.
    pub(super) ids: Option<Ids>,
    /// The path for this shard, if it isn't the delivery's.
    pub(super) path_and_query: Option<String>,
    /// What is removed there once all shards have taken their documents, as bodies of `documents/delete-batch`.
    pub(super) removals: Vec<Piece>,
    /// How many of its documents have a later version in the same write that another shard gets.
    pub(super) superseded: u64,
}

/// The result of a delivery.
#[derive(Debug)]
pub(super) enum Delivered {
    /// At least one shard has accepted something.
    Taken(Vec<ShardTask>),
    /// The nodes refused the write, and nothing was accepted.
    Refused(Answer),
}

/// Delivers to all shards at once. `None` if the index was moved, created or deleted since the write was laid out by `slots`;
/// nothing was sent then. Also returns the uid of the task: tasks are numbered in the order in which shards take them.
///
/// # Errors
/// A shard can't be reached, and no shard accepted anything.
pub(super) async fn deliver(
    ctx: &Arc<Context>,
    slots: Option<&Arc<SlotMap>>,
    delivery: &mut Delivery,
) -> Result<Option<(Delivered, u32)>, WriteError> {
    let span = delivery.forwarded.span().clone();
    let sequencing = span.phase("sequence");
    let shards: Vec<ShardId> = delivery.loads.iter().map(|load| load.shard).collect();
    let guard = ctx.locks.lock(&shards).await;
    if let Some(index_uid) = &delivery.index_uid {
        let now = ctx.cluster.placement(index_uid);
        if now.as_ref().map(|placement| &placement.slots) != slots {
            return Ok(None);
        }
        ctx.writes.coalescer.note_other(index_uid);
    }
    drop(sequencing);
    let delivering = span.phase("deliver");
    delivery.forwarded = std::mem::take(&mut delivery.forwarded).beneath(&delivering);
    let delivered = deliver_now(ctx, &guard, delivery).await?;
    let uid = match &delivered {
        Delivered::Taken(_) => ctx.tasks.reserve(),
        Delivered::Refused(_) => 0,
    };
    Ok(Some((delivered, uid)))
}

/// As [`deliver`], for a caller that holds the locks of all shards in `guard`.
///
/// # Errors
/// As for [`deliver`].
pub(super) async fn deliver_now(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    delivery: &Delivery,
) -> Result<Delivered, WriteError> {
    let shards: Vec<ShardId> = delivery.loads.iter().map(|load| load.shard).collect();
    for shard in &shards {
        settle_doubt(ctx, *shard).await?;
        ctx.cluster.replicas_or_none(*shard)?;
        if delivery.mode == WriteMode::Quorum {
            ctx.cluster.has_quorum(*shard)?;
        }
    }
    if let [_, _, ..] = delivery.loads.as_slice() {
        knock(ctx, &shards).await.map_err(|error| match error {
            NotThere::Cluster(error) => error.into(),
            NotThere::Unreachable { shard, source } => WriteError::Unreachable { shard, source },
        })?;
    }
    for load in &delivery.loads {
        let (shard, ids) = (load.shard, load.ids.as_ref());
        ctx.cluster.note_write(shard, &delivery.named, ids);
        let pieces = load.pieces.iter().chain(&load.removals);
        let bytes: u64 = pieces.map(Piece::bytes).sum();
        stagger(&ctx.replication, shard, bytes);
        ctx.cluster.fullness.wrote(shard, bytes);
    }
    let loads = || delivery.loads.iter();
    let mut outcomes = join_all(loads().map(|load| to_shard(ctx, guard, delivery, load))).await;
    // What a shard didn't take may be the only version of a document that is left.
    if outcomes.iter().all(|outcome| outcome.failure.is_none()) {
        let removing = delivery.removing();
        let from = loads().filter_map(ShardPayload::removing);
        let removed = from.map(async |load| {
            let mut outcome = to_shard(ctx, guard, &removing, &load).await;
            for part in &mut outcome.parts {
                part.is_removal = true;
            }
            outcome
        });
        outcomes.extend(join_all(removed).await);
    }
    settle(outcomes)
}

impl Delivery {
    /// The same write, as far as it removes documents.
    fn removing(&self) -> Self {
        let uid = self.index_uid.as_deref().unwrap_or_default();
        Self {
            method: Method::POST,
            path_and_query: format!("/indexes/{uid}/documents/delete-batch"),
            content_type: Some(HeaderValue::from_static("application/json")),
            loads: Vec::new(),
            ..self.clone()
        }
    }
}

impl ShardPayload {
    /// What is removed from the shard; `None` if nothing is.
    fn removing(&self) -> Option<Self> {
        (!self.removals.is_empty()).then(|| Self {
            shard: self.shard,
            pieces: self.removals.clone(),
            ids: self.ids.clone(),
            path_and_query: None,
            removals: Vec::new(),
            superseded: 0,
        })
    }
}

/// Whether the index still has the slots and the primary key by which a write was laid out, and isn't being deleted. This stays
/// so while the caller holds the lock of one of its shards.
pub(super) fn layout_unchanged(ctx: &Context, before: &Placement) -> bool {
    let now = ctx.cluster.placement(&before.uid);
    now.is_some_and(|now| {
        now.deleted_by.is_none()
            && now.primary_key == before.primary_key
            && now.slots == before.slots
    })
}

/// The result of one shard's delivery.
struct Outcome {
    parts: Vec<ShardTask>,
    /// Why some of it was not accepted.
    failure: Option<Failure>,
}

enum Failure {
    Refused(Answer),
    Failed(WriteError),
}

async fn to_shard(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    delivery: &Delivery,
    load: &ShardPayload,
) -> Outcome {
    let total: u64 = load.pieces.iter().map(Piece::documents).sum();
    let mut accepted = 0;
    let mut parts = Vec::with_capacity(load.pieces.len());
    let mut failure = None;
    for (place, piece) in load.pieces.iter().enumerate() {
        // The mode must apply to the whole write, so all pieces but the last must reach every replica before the next is sent.
        let mode = match place + 1 == load.pieces.len() {
            true => delivery.mode,
            false => WriteMode::Sync,
        };
        match to_replicas(ctx, guard, delivery, load, piece, mode).await {
            Ok(mut part) => {
                part.superseded = if place == 0 { load.superseded } else { 0 };
                parts.push(part);
                accepted += piece.documents();
            }
            Err(failed) => {
                let reason = match &failed {
                    Failure::Refused(answer) => format!("its nodes answered {}", said(answer)),
                    Failure::Failed(error) => error.to_string(),
                };
                let missing = total - accepted;
                let why = match &failed {
                    // The error text already says that it isn't known.
                    Failure::Failed(WriteError::Unknown { .. }) => {
                        format!("{reason}: {missing} of {total} documents")
                    }
                    _ => format!("{reason}; {missing} of {total} documents are not written"),
                };
                parts.push(ShardTask::undelivered(load.shard, why));
                failure = Some(failed);
                break;
            }
        }
    }
    Outcome { parts, failure }
}

/// Sends one piece to all in-sync replicas of a shard.
async fn to_replicas(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    delivery: &Delivery,
    load: &ShardPayload,
    piece: &Piece,
    mode: WriteMode,
) -> Result<ShardTask, Failure> {
    let shard = load.shard;
    let replicas = ctx
        .cluster
        .replicas_or_none(shard)
        .map_err(|error| Failure::Failed(error.into()))?;
    let order = Order {
        shard,
        replicas,
        mode,
        command: Arc::new(command(ctx, delivery, load, piece)),
        taken: Vec::new(),
    };
    match replicate(&ctx.replication, guard, order).await {
        Ok(receipt) => Ok(receipt.part),
        Err(NotTaken::Refused(answer)) => Err(Failure::Refused(answer.pass_on())),
        Err(NotTaken::NoQuorum { taken, wanted }) => Err(Failure::Failed(WriteError::NoQuorum {
            shard,
            taken,
            wanted,
        })),
        Err(error @ NotTaken::TakersLeft) => Err(Failure::Failed(WriteError::Unknown {
            shard,
            detail: error.to_string(),
        })),
        Err(NotTaken::Cluster(error)) => Err(Failure::Failed(error.into())),
        Err(NotTaken::Unanswered(missed)) => {
            let in_doubt = missed.iter().any(Missed::may_have_it);
            let said = reasons(&missed);
            let error = missed.into_iter().rev().find_map(Missed::error);
            Err(Failure::Failed(match error {
                Some(error) if in_doubt => WriteError::Unknown {
                    shard,
                    detail: error.to_string(),
                },
                Some(source) => WriteError::Unreachable { shard, source },
                None => WriteError::Unknown {
                    shard,
                    detail: said,
                },
            }))
        }
    }
}

/// The request that brings one piece to every replica.
fn command(ctx: &Context, delivery: &Delivery, load: &ShardPayload, piece: &Piece) -> Command {
    let path = load.path_and_query.as_ref();
    let path = path.unwrap_or(&delivery.path_and_query);
    let is_replicated = ctx.cluster.topology().nodes(load.shard).len() > 1;
    let content_type = delivery.content_type.clone();
    Command {
        method: delivery.method.clone(),
        path_and_query: match is_replicated {
            true => marked(path, &uuid::Uuid::new_v4().simple().to_string()),
            false => path.clone(),
        },
        headers: content_type
            .map(|value| (CONTENT_TYPE, value))
            .into_iter()
            .collect(),
        forwarded: delivery.forwarded.clone(),
        body: Box::new(piece.clone()),
        is_task: true,
    }
}

impl Content for Piece {
    fn bytes(&self) -> u64 {
        self.bytes()
    }

    fn body(&self) -> AnyBody {
        self.body()
    }
}

/// The path with `mark` as the task's `customMetadata`, in place of the client's own, which only the merger's record keeps. Two
/// replicas have the same write if and only if their tasks have the same mark.
fn marked(path_and_query: &str, mark: &str) -> String {
    let (path, query) = path_and_query
        .split_once('?')
        .unwrap_or((path_and_query, ""));
    let mut marked = form_urlencoded::Serializer::new(String::new());
    let others = form_urlencoded::parse(query.as_bytes());
    marked.extend_pairs(others.filter(|(name, _)| name != METADATA));
    marked.append_pair(METADATA, mark);
    format!("{path}?{}", marked.finish())
}

/// The query parameter whose text a node stores with the task.
const METADATA: &str = "customMetadata";

/// The message of a refusal, for use in another message.
fn said(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    match serde_json::from_slice::<Refusal>(&answer.body) {
        Ok(refusal) => format!("{}: {}", answer.status.as_u16(), refusal.message),
        Err(_) => answer.status.to_string(),
    }
}

fn settle(outcomes: Vec<Outcome>) -> Result<Delivered, WriteError> {
    let taken = outcomes
        .iter()
        .flat_map(|outcome| &outcome.parts)
        .any(|part| !part.copies.is_empty());
    if taken {
        return Ok(Delivered::Taken(
            outcomes
                .into_iter()
                .flat_map(|outcome| outcome.parts)
                .collect(),
        ));
    }
    let mut failures: Vec<Failure> = outcomes
        .into_iter()
        .filter_map(|outcome| outcome.failure)
        .collect();
    let refusal = failures
        .iter()
        .position(|failure| matches!(failure, Failure::Refused(_)));
    let place = refusal.unwrap_or_default();
    if place >= failures.len() {
        return Ok(Delivered::Taken(Vec::new()));
    }
    match failures.swap_remove(place) {
        Failure::Refused(answer) => Ok(Delivered::Refused(answer)),
        Failure::Failed(error) => Err(error),
    }
}
