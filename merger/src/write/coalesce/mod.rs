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

mod alone;
mod batchable;
mod held;
mod line;

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

use self::held::{HELD_BYTES, Held};
use self::line::{Line, Waiting};
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

/// Small writes that wait or are held.
#[derive(Debug, Default)]
pub(super) struct Coalescer {
    lines: Mutex<HashMap<ShardId, Line>>,
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
    let (sent, outcome) = oneshot::channel();
    let served = {
        let mut lines = ctx.writes.coalescer.lines();
        let line = lines.entry(shard).or_default();
        line.waiting.push_back(Waiting { small, sent });
        std::mem::replace(&mut line.served, true)
    };
    if !served {
        // The merger doesn't stop before they are sent, whoever still waits for them.
        ctx.begun.spawn(serve(Arc::clone(ctx), shard));
    }
    let outcome = outcome.await.map_err(|_| Stopping)?;
    outcome.map_err(WriteError::Together)
}

/// Sends the writes that wait for a shard until none is left. A panic loses the group being sent, whose clients are told so;
/// the writes behind it are still sent.
async fn serve(ctx: Arc<Context>, shard: ShardId) {
    while let Err(error) = tokio::spawn(serve_line(Arc::clone(&ctx), shard)).await {
        if !note_panic(&ctx.metrics.panics, "send-small-writes", error) {
            return;
        }
        // After the panic, some replicas may have the group and others not.
        put_in_doubt(&ctx.replication, shard);
    }
}

/// Sends one group after the other.
async fn serve_line(ctx: Arc<Context>, shard: ShardId) {
    let wait = ctx.options.coalesce_wait;
    loop {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let guard = ctx.locks.lock(&[shard]).await;
        let group = ctx.writes.coalescer.next_group(shard);
        if group.is_empty() {
            return;
        }
        send_group(&ctx, &guard, shard, group).await;
    }
}

async fn send_group(ctx: &Arc<Context>, guard: &WriteGuard, shard: ShardId, group: Vec<Waiting>) {
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
    let documents: Vec<&[u8]> = smalls.iter().map(|small| &*small.documents).collect();
    let piece = Piece::of(first.piece.framing().clone(), &documents);
    let ids: Ids = smalls.iter().flat_map(|small| small.ids.iter()).collect();
    // Noted whatever the result, and even if the write is sent alone and not kept.
    let index_uid = &first.kind.placement.uid;
    ctx.writes.coalescer.held().note(index_uid, Some(&ids));
    // Of the traces of a group, the first gets the requests to the nodes.
    let traced = smalls
        .iter()
        .find(|small| small.forwarded.span().is_traced());
    let delivery = delivery(traced.unwrap_or(first), shard, piece, ids);
    let parts = match deliver_now(ctx, guard, &delivery).await {
        Ok(Delivered::Taken(parts)) => parts,
        Ok(Delivered::Refused(answer)) => {
            for client in clients {
                let _ = client.send(Ok(Sent::Refused(answer.clone())));
            }
            return;
        }
        Err(error) => return fail(clients, error),
    };
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
    // The next group needn't wait until these tasks are durable.
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

fn delivery(small: &Small, shard: ShardId, piece: Piece, ids: Ids) -> Delivery {
    let kind = &small.kind;
    Delivery {
        index_uid: None,
        named: NamedOperation::of_index(kind.operation, kind.placement.uid.clone()),
        method: kind.method.clone(),
        path_and_query: kind.path_and_query.clone(),
        content_type: Some(HeaderValue::from_static(kind.format.content_type())),
        forwarded: small.forwarded.clone(),
        mode: kind.mode,
        loads: vec![ShardPayload {
            ids: Some(ids),
            shard,
            pieces: vec![piece],
            path_and_query: None,
            removals: Vec::new(),
            superseded: 0,
        }],
    }
}

impl Coalescer {
    fn lines(&self) -> MutexGuard<'_, HashMap<ShardId, Line>> {
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

    /// The next writes that can be merged; if there are none, the shard's queue is removed.
    fn next_group(&self, shard: ShardId) -> Vec<Waiting> {
        let mut lines = self.lines();
        let Some(line) = lines.get_mut(&shard) else {
            return Vec::new();
        };
        let group = line.next_group();
        if group.is_empty() {
            lines.remove(&shard);
        }
        group
    }
}

#[cfg(test)]
mod tests;
