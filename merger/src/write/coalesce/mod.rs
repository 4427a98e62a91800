//! Coalesce: small writes that wait for the same shard's lock are sent together, as one node task.
//!
//! A node makes each task durable separately, so it takes only so many a second, however many clients send them. While one
//! group is being sent, the next one gathers; a write that finds the shard idle doesn't wait. Only neighbours of the same kind
//! are merged, so the order of writes to a shard doesn't change.
//!
//! Each client gets its own task with its own outcome. Writes with fields that the engine checks specially (`_vectors`, `_geo`,
//! `_geojson`), or with values that only its indexer refuses, are sent alone. If a merged task fails nevertheless, each of its
//! writes is sent again, alone, and fails or succeeds on its own. Merged writes are kept in memory until then ([`held`],
//! [`alone`]); if the merger restarts before that, all writes of a failed group fail.
//!
//! Writes of an index that lies [by a field](by_field) wait apart from others, since they need the turns of several shards: so a
//! shard that hangs delays only those that need it.

mod alone;
mod batchable;
mod by_field;
mod held;
mod line;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hashbrown::HashMap;
use http::{HeaderValue, Method};
use serde_json::Value;
use tokio::sync::oneshot;
use weft_routing::operation::{NamedOperation, Operation};
use weft_routing::placement::ShardId;

pub(super) use self::alone::ended;
pub(super) use self::batchable::is_harmless;
pub(super) use self::by_field::may_merge;

use self::by_field::{Prepared, removing};
use self::held::{HELD_BYTES, Held};
use self::line::{Line, Next, Waiting};
use super::WriteError;
use super::add::task;
use super::deliver::{Delivered, Delivery, ShardPayload, deliver_now, layout_unchanged};
use super::format::Format;
use super::spool::Piece;
use crate::answer::Answer;
use crate::base::Stopping;
use crate::call::ForwardedHeaders;
use crate::cluster::{Placement, WriteMode};
use crate::ids::Ids;
use crate::replication::{WriteGuard, put_in_doubt};
use crate::spans::Span;
use crate::supervise::note_panic;
use crate::tasks::{Enqueued, Member, NewTask, ShardTask};
use crate::write::Context;

/// A write with more bytes or documents than this isn't a small write.
pub(super) const SMALL_BYTES: usize = 64 << 10;
pub(super) const SMALL_DOCUMENTS: usize = 32;

/// The properties that all writes of a group share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kind {
    /// The placement by which the write was laid out.
    pub(super) placement: Arc<Placement>,
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) format: Format,
    pub(super) authority: Option<HeaderValue>,
    pub(super) mode: WriteMode,
}

/// A small write to one shard.
#[derive(Debug, Clone)]
pub(super) struct Small {
    pub(super) kind: Kind,
    pub(super) forwarded: ForwardedHeaders,
    /// The documents, with the separators between them.
    pub(super) documents: Bytes,
    pub(super) piece: Piece,
    /// The documents' ids, each once.
    pub(super) ids: Ids,
    /// The client's `customMetadata`.
    pub(super) custom_metadata: Option<String>,
}

impl Small {
    /// The same write, whose requests belong beneath this span.
    pub(super) fn beneath(self, span: &Span) -> Self {
        Self {
            forwarded: self.forwarded.beneath(span),
            ..self
        }
    }
}

/// The result of a small write.
#[derive(Debug)]
pub(super) enum Sent {
    Taken(Enqueued),
    Refused(Answer),
    /// Not sent: the index was deleted, or laid out anew, after the write was laid out.
    Gone,
}

/// The result, or the error that the whole group got.
pub(super) type Outcome = Result<Sent, Arc<WriteError>>;

/// Where small writes wait: before a shard; those of an index that lies by a field in a line of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    shard: ShardId,
    by_field: Option<String>,
}

impl Place {
    fn of(shard: ShardId, placement: &Placement) -> Self {
        let is_by_field = placement.slots.field().is_some();
        Self {
            shard,
            by_field: is_by_field.then(|| placement.uid.clone()),
        }
    }
}

/// Small writes that wait or are held.
#[derive(Debug, Default)]
pub(super) struct Coalescer {
    lines: Mutex<HashMap<Place, Line>>,
    held: Mutex<Held>,
}

/// Sends a small write, merged with its neighbours if possible.
pub(super) async fn send(
    ctx: &Arc<Context>,
    shard: ShardId,
    small: Small,
) -> Result<Sent, WriteError> {
    // The request to the nodes is one of its whole group.
    small.forwarded.asked().note_shard(shard);
    let place = Place::of(shard, &small.kind.placement);
    let (sent, outcome) = oneshot::channel();
    let served = {
        let mut lines = ctx.writes.coalescer.lines();
        let line = lines.entry(place.clone()).or_default();
        line.waiting.push_back(Waiting { small, sent });
        std::mem::replace(&mut line.served, true)
    };
    if !served {
        // The merger doesn't stop before they are sent, whoever still waits for them.
        ctx.begun.spawn(serve(Arc::clone(ctx), place));
    }
    let outcome = outcome.await.map_err(|_| Stopping)?;
    outcome.map_err(WriteError::Together)
}

/// Sends the writes that wait at a place until none is left. A panic loses the group being sent, whose clients are told so;
/// the writes behind it are still sent.
async fn serve(ctx: Arc<Context>, place: Place) {
    while let Err(error) = tokio::spawn(serve_line(Arc::clone(&ctx), place.clone())).await {
        if !note_panic(&ctx.metrics.panics, "send-small-writes", error) {
            return;
        }
        // After the panic, some replicas may have the group and others not.
        let index = place.by_field.as_deref();
        let placement = index.and_then(|uid| ctx.cluster.placement(uid));
        let others = placement.iter().flat_map(|placement| placement.shards());
        let shards: BTreeSet<ShardId> = others.copied().chain([place.shard]).collect();
        for shard in shards {
            put_in_doubt(&ctx.replication, shard);
        }
    }
}

/// Sends one group after the other.
async fn serve_line(ctx: Arc<Context>, place: Place) {
    let wait = ctx.options.coalesce_wait;
    loop {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let coalescer = &ctx.writes.coalescer;
        let Some(next) = coalescer.next(&place) else {
            return;
        };
        let prepared = Prepared::of(&ctx, place.shard, next).await;
        let guard = ctx.locks.lock(&prepared.shards).await;
        let group = coalescer.next_group(&place);
        send_group(&ctx, &guard, place.shard, group, &prepared).await;
    }
}

async fn send_group(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    shard: ShardId,
    group: Vec<Waiting>,
    prepared: &Prepared,
) {
    let (smalls, clients): (Vec<Small>, Vec<_>) = group
        .into_iter()
        .map(|waiting| (waiting.small, waiting.sent))
        .unzip();
    let Some(first) = smalls.first() else { return };
    if !layout_unchanged(ctx, &first.kind.placement) {
        for client in clients {
            let _ = client.send(Ok(Sent::Gone));
        }
        return;
    }
    ctx.metrics.small_writes.inc_by(smalls.len() as u64);
    ctx.metrics.small_write_groups.inc();
    let delivery = match delivery_of(ctx, shard, &smalls, first, prepared).await {
        Ok(delivery) => delivery,
        Err(error) => return fail(clients, error),
    };
    match deliver_now(ctx, guard, &delivery).await {
        Ok(Delivered::Taken(parts)) => register(ctx, shard, smalls, clients, parts),
        Ok(Delivered::Refused(answer)) => {
            for client in clients {
                let _ = client.send(Ok(Sent::Refused(answer.clone())));
            }
        }
        Err(error) => fail(clients, error),
    }
}

/// What goes to the shards for a group that begins with `first`.
async fn delivery_of(
    ctx: &Context,
    shard: ShardId,
    smalls: &[Small],
    first: &Small,
    prepared: &Prepared,
) -> Result<Delivery, WriteError> {
    let documents: Vec<&[u8]> = smalls.iter().map(|small| &*small.documents).collect();
    let piece = Piece::of(first.piece.framing().clone(), &documents);
    let ids = Ids::concat(smalls.iter().map(|small| &small.ids));
    let removed = removing(ctx, &first.kind, shard, &ids, Some(prepared)).await?;
    // Noted whatever the result, and even if the write is sent alone and not kept.
    let index_uid = &first.kind.placement.uid;
    ctx.writes.coalescer.held().note(index_uid, Some(&ids));
    // Of the traces of a group, the first gets the requests to the nodes.
    let traced = smalls
        .iter()
        .find(|small| small.forwarded.span().is_traced());
    let small = traced.unwrap_or(first);
    Ok(delivery(small, shard, (piece, ids), removed))
}

/// Makes tasks of the writes of a group that its shard has taken. The next group needn't wait until they are durable.
fn register(
    ctx: &Arc<Context>,
    shard: ShardId,
    smalls: Vec<Small>,
    clients: Vec<oneshot::Sender<Outcome>>,
    parts: Vec<ShardTask>,
) {
    let Some(first) = smalls.first() else { return };
    let uid = &first.kind.placement.uid;
    let members: Vec<Member> = smalls.iter().map(member).collect();
    let task = task_of(uid, &members, parts);
    // Uids are assigned in the order of writes.
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let uid = ctx.tasks.reserve_all(count);
    if smalls.len() > 1
        && let Some(copy) = task.parts.first().and_then(|part| part.copies.first())
    {
        ctx.writes
            .coalescer
            .held()
            .keep((copy.node.clone(), copy.local_uid), shard, smalls);
    }
    let ctx = Arc::clone(ctx);
    tokio::spawn(async move {
        match ctx.tasks.create_as(uid, task, Vec::new()).await {
            Ok(enqueued) => {
                for ((client, member), uid) in clients.into_iter().zip(members).zip(uid..) {
                    let enqueued = enqueued.of_member(uid, member.custom_metadata);
                    // If the client is gone, its task exists nevertheless.
                    let _ = client.send(Ok(Sent::Taken(enqueued)));
                }
            }
            Err(error) => fail(clients, error.into()),
        }
    });
}

fn member(small: &Small) -> Member {
    Member {
        documents: small.ids.len() as u64,
        sent: small.piece.documents(),
        custom_metadata: small.custom_metadata.clone(),
    }
}

/// The task of a group's writes.
fn task_of(index_uid: &str, members: &[Member], parts: Vec<ShardTask>) -> NewTask {
    let received = members.iter().map(|member| member.sent).sum();
    let task = NewTask {
        parts,
        ..task(index_uid, received, Value::Null)
    };
    match members {
        [alone] => NewTask {
            custom_metadata: alone.custom_metadata.clone(),
            ..task
        },
        together => NewTask {
            members: together.to_vec(),
            ..task
        },
    }
}

fn fail(clients: Vec<oneshot::Sender<Outcome>>, error: WriteError) {
    let error = Arc::new(error);
    for client in clients {
        let _ = client.send(Err(Arc::clone(&error)));
    }
}

/// What a shard gets, and what others remove because of that.
fn delivery(
    small: &Small,
    shard: ShardId,
    (piece, ids): (Piece, Ids),
    removed: Vec<ShardPayload>,
) -> Delivery {
    let kind = &small.kind;
    let own = ShardPayload {
        ids: Some(ids),
        shard,
        pieces: vec![piece],
        path_and_query: None,
        removals: Vec::new(),
        superseded: 0,
    };
    Delivery {
        index_uid: Some(kind.placement.uid.clone()),
        named: NamedOperation::of_index(kind.operation, kind.placement.uid.clone()),
        method: kind.method.clone(),
        path_and_query: kind.path_and_query.clone(),
        content_type: Some(HeaderValue::from_static(kind.format.content_type())),
        forwarded: small.forwarded.clone(),
        mode: kind.mode,
        loads: [own].into_iter().chain(removed).collect(),
    }
}

impl Coalescer {
    fn lines(&self) -> MutexGuard<'_, HashMap<Place, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room to keep more merged writes.
    pub(super) fn has_room(&self) -> bool {
        self.held().bytes < HELD_BYTES
    }

    /// Notes a write that isn't merged. The caller holds the shard's lock.
    pub(super) fn note_other(&self, index_uid: &str) {
        self.held().note(index_uid, None);
    }

    /// Notes that indexes are created, deleted or renamed. The caller holds the shards' locks.
    pub(super) fn note_all(&self) {
        self.held().note_all();
    }

    /// What waits at a place; if nothing does, its line is removed.
    fn next(&self, place: &Place) -> Option<Next> {
        let mut lines = self.lines();
        let next = lines.get(place)?.next();
        if next.is_none() {
            lines.remove(place);
        }
        next
    }

    /// The next writes that can be merged.
    fn next_group(&self, place: &Place) -> Vec<Waiting> {
        let mut lines = self.lines();
        lines
            .get_mut(place)
            .map(Line::next_group)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
