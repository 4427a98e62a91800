//! `POST` and `PUT …/documents`: adds documents, or updates them field by field.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use weft_routing::document_id::DocumentId;
use weft_routing::is_index_uid;
use weft_routing::operation::{NamedOperation, Operation};
use weft_routing::placement::ShardId;

mod by_field;
mod small;

use super::decode::Plain;
use super::deliver::{Delivered, Delivery, ShardPayload, deliver_now, layout_unchanged};
use super::judge::Verdict;
use super::layout::Layout;
use super::locate::Located;
use super::params::Params;
use super::split::{Batch, Splitter};
use super::spool::Piece;
use super::{ATTEMPTS, Format, HOLDS_FROM, SplitError, WriteError, details, refused_by_node};
use crate::answer::Answer;
use crate::bounds::{NoRoom, Share, Slot};
use crate::call::{Call, ForwardedHeaders, empty};
use crate::cluster::{Before, WriteMode};
use crate::ids::Ids;
use crate::replication::WriteGuard;
use crate::tasks::{NewTask, ShardTask};
use crate::write::Context;

/// Answers the call.
pub(super) async fn documents(
    ctx: &Arc<Context>,
    mut call: Call,
    reading: Option<Slot>,
) -> Result<Answer, WriteError> {
    let uid = call.index.clone().unwrap_or_default();
    let params = match Params::read(&call) {
        Ok(params) if is_index_uid(&uid) => params,
        _ => return refused_by_node(ctx, &call).await,
    };
    let mode = ctx.cluster.write_mode(Some(&uid), &call.headers)?;
    let content_type = call.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let format = Format::of(content_type, params.csv_delimiter)?;
    let idle = ctx.pace.idle;
    let encoding = call
        .headers
        .get(CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok());
    let body = std::mem::replace(&mut call.body, empty());
    let plain = Plain::new(body, encoding, ctx.options.max_import_bytes, idle);
    let layout = Layout::of(ctx, &uid).await?;
    if layout.cannot_skip(&params, &call.method) {
        return Err(WriteError::NoSkipping(uid));
    }
    let splitter = layout.splitter(ctx, format, &params, &call.method);
    let share = ctx.bounds.bodies.share();
    let splitting = call.forwarded.span().phase("split");
    let batch = read(plain, splitter, format, share).await?;
    drop((reading, splitting));
    let slot = ctx.bounds.begin()?;
    let mut write = Write {
        uid,
        operation: call.operation,
        params,
        format,
        method: call.method,
        forwarded: call.forwarded,
        mode,
        layout,
        batch,
    };
    if let Some(answer) = write.at_once(ctx).await? {
        return Ok(answer);
    }
    let begun = Arc::clone(ctx);
    ctx.run_to_completion(async move {
        let _slot = slot;
        write.run(&begun).await
    })
    .await?
}

/// Reads the body and splits it as it arrives. `share` is the unfinished document's share of the memory for all bodies.
async fn read(
    mut body: Plain,
    mut splitter: Splitter,
    format: Format,
    mut share: Share,
) -> Result<Batch, WriteError> {
    loop {
        let chunk = match body.next().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => return Err(error.into()),
        };
        let pushed = match splitter.push(&chunk) {
            Ok(()) => splitter.spill().await,
            Err(error) => Err(error),
        };
        share.resize(splitter.unfinished_bytes())?;
        if let Err(error) = pushed {
            body.drain().await;
            return Err(of_split(error, format));
        }
    }
    splitter
        .finish()
        .await
        .map_err(|error| of_split(error, format))
}

pub(super) fn of_split(error: SplitError, format: Format) -> WriteError {
    match error {
        SplitError::Fault(fault) => WriteError::Fault { format, fault },
        SplitError::Empty => WriteError::Missing(format),
        SplitError::DocumentTooLarge { limit } => WriteError::DocumentTooLarge { limit },
        SplitError::Spool(error) => match error.downcast::<NoRoom>() {
            Ok(full) => WriteError::NoRoom(full),
            Err(error) => WriteError::Spool(error),
        },
    }
}

/// A write whose body has been read completely and is valid.
struct Write {
    uid: String,
    operation: Operation,
    params: Params,
    format: Format,
    method: Method,
    forwarded: ForwardedHeaders,
    mode: WriteMode,
    layout: Layout,
    batch: Batch,
}

impl Write {
    async fn run(mut self, ctx: &Arc<Context>) -> Result<Answer, WriteError> {
        let mut held = None;
        let patience = by_field::patience();
        for attempt in 0..ATTEMPTS {
            if attempt == HOLDS_FROM {
                held = Some(ctx.cluster.moves.hold(&self.uid));
            }
            let mut now = Layout::of(ctx, &self.uid).await?;
            if now.key.is_some() && now.fits(&self.layout, &self.batch) {
                self.layout = now;
                self.send_refused_alone();
                if let Some(answer) = self.attempt(ctx, patience).await? {
                    return Ok(answer);
                }
                continue;
            }
            // The first documents of an index decide its primary key, so such writes run one at a time.
            let _first = ctx.writes.first_write(&self.uid).await;
            now = Layout::of(ctx, &self.uid).await?;
            now.find_key(ctx, &self.uid).await?;
            if !now.fits(&self.layout, &self.batch) {
                self.batch = self.split_again(ctx, &now).await?;
            }
            self.layout = now;
            self.send_refused_alone();
            if self.layout.key.is_none()
                && let Some(answer) = self.attempt(ctx, patience).await?
            {
                return Ok(answer);
            }
        }
        drop(held);
        Err(WriteError::Unsettled(self.uid))
    }

    /// Splits the documents of the batch again, by another layout.
    async fn split_again(&self, ctx: &Context, layout: &Layout) -> Result<Batch, WriteError> {
        let owners = self.batch.owners.as_ref();
        if owners.is_some_and(|owners| owners.are_superseded()) {
            // The order of its documents is lost, and it counts.
            return Err(WriteError::Unsettled(self.uid.clone()));
        }
        let splitter = layout.splitter(ctx, self.format, &self.params, &self.method);
        self.split_by(splitter).await
    }

    async fn split_by(&self, mut splitter: Splitter) -> Result<Batch, WriteError> {
        let failed = |error| of_split(error, self.format);
        self.batch.feed(&mut splitter).await.map_err(failed)?;
        splitter.finish().await.map_err(failed)
    }

    /// Sends the write. `None` if the index changed before the write got the shards' locks, or since its documents were `found`.
    /// The caller may hold the locks of all of the index's shards.
    async fn write(
        &self,
        ctx: &Arc<Context>,
        found: Option<&Located>,
        guard: Option<WriteGuard>,
    ) -> Result<Option<Answer>, WriteError> {
        let received = self.batch.received;
        if let (Some(key), Some(other)) = (&self.layout.key, &self.params.primary_key)
            && key != other
            && received > 0
        {
            return self.refuse_other_key(ctx, key).await.map(Some);
        }
        // A document that went to another shard just before it was looked for isn't new. Nothing may be refused because of that.
        if found.is_some_and(|found| !found.holds(ctx, &self.uid) || !self.is_laid_out_so(ctx)) {
            return Ok(None);
        }
        if let Some(unplaced) = &self.batch.unplaced {
            return self.refuse(ctx, unplaced.error()).await.map(Some);
        }
        if let Some(error) = self.unfit(ctx).await {
            return self.refuse(ctx, error).await.map(Some);
        }
        if let Some((shard, small)) = self.small(ctx) {
            return self.send_small(ctx, shard, small).await;
        }
        let fresh = self.layout.key.is_none();
        let sequencing = self.forwarded.span().phase("sequence");
        let looked_up = self.look_up(ctx).await;
        let mut delivery = self.delivery(fresh);
        let held = looked_up.as_ref().or(found);
        self.add_removals(ctx, &mut delivery, held).await?;
        // Whether the index exists changes only under the locks of all its shards: from here on it stays as it is.
        let guard = match guard {
            Some(guard) => guard,
            None => ctx.locks.lock(&self.concerned(&delivery)).await,
        };
        if found.is_some_and(|found| !found.holds(ctx, &self.uid)) {
            return Ok(None);
        }
        if looked_up.is_some_and(|found| !found.holds(ctx, &self.uid)) {
            self.add_removals(ctx, &mut delivery, None).await?;
        }
        let before = match self.layout.placement.as_deref() {
            Some(placement) if !fresh => layout_unchanged(ctx, placement).then_some(Before::Alive),
            _ => {
                let wanted = ctx.cluster.wanted_shards(None);
                let placed = ctx.cluster.place(&self.uid, &self.layout.slots, wanted);
                let placed = placed.await?;
                // If the index has got a key meanwhile, the documents must be split again by that key.
                let placed = placed.filter(|placed| placed.placement.primary_key.is_none());
                placed.map(|placed| placed.before)
            }
        };
        let Some(before) = before else {
            return Ok(None);
        };
        ctx.writes.coalescer.note_other(&self.uid);
        drop(sequencing);
        let delivering = self.forwarded.span().phase("deliver");
        delivery.forwarded = delivery.forwarded.beneath(&delivering);
        match deliver_now(ctx, &guard, &delivery).await {
            Ok(Delivered::Taken(parts)) => self.register(ctx, guard, parts, fresh).await.map(Some),
            Ok(Delivered::Refused(answer)) => {
                self.forget(ctx, before).await?;
                Ok(Some(answer))
            }
            Err(error) => {
                // If a replica may have the write, the index may exist there.
                if !error.may_be_written() {
                    self.forget(ctx, before).await?;
                }
                Err(error)
            }
        }
    }

    /// A new index may begin with a batch that the engine refuses: a node gets the refused document, so that it creates the
    /// index and words the error.
    fn send_refused_alone(&mut self) {
        if self.layout.is_alive() || self.batch.refused.is_some() {
            return;
        }
        let suspicions = self.batch.suspicions.as_ref();
        let verdict = suspicions.map(|suspicions| suspicions.verdict(None));
        if let Some(Verdict::Refused { raw: Some(raw), .. }) = verdict {
            let framing = self.batch.nothing.framing().clone();
            self.batch.refused = Some(Piece::of(framing, &[raw]));
        }
    }

    /// The error with which the engine will refuse the batch when it indexes it, if that can be known.
    async fn unfit(&self, ctx: &Context) -> Option<Value> {
        let suspicions = self.batch.suspicions.as_ref()?;
        if self.batch.refused.is_some() || !self.layout.is_alive() {
            return None;
        }
        let key = self.layout.key.as_deref().or(self.batch.key.as_deref())?;
        let (uid, slots) = (&self.uid, &self.layout.slots);
        let home = |id: &str| match &self.batch.owners {
            Some(owners) => owners.get(id).map(|home| home.shard),
            None => slots.shard_of(&DocumentId::from_text(id).ok()?),
        };
        let finding = match (suspicions.verdict(None), self.batch.parts.as_slice()) {
            // A single node gets the whole batch, and knows best which documents it has.
            (Verdict::Ask(_), [part]) if part.pieces.len() == 1 => return None,
            _ => suspicions.settle(ctx, uid, home, key).await?,
        };
        // The settings that the batch was judged by may have changed meanwhile.
        let now = ctx.writes.judged_by.now(ctx, uid).await;
        (now == *suspicions.rules()).then(|| finding.error(uid))
    }

    fn path(&self, key: Option<&str>) -> String {
        let query = self.params.for_node(key);
        let path = format!("/indexes/{}/documents", self.uid);
        if query.is_empty() {
            path
        } else {
            format!("{path}?{query}")
        }
    }

    /// The pieces that each shard gets.
    fn delivery(&self, fresh: bool) -> Delivery {
        let batch = &self.batch;
        let shards = self.layout.slots.shards();
        let first = shards.first().copied().unwrap_or(ShardId(0));
        let key = batch
            .key
            .as_ref()
            .or(self.params.primary_key.as_ref())
            .or(self.layout.key.as_ref());
        let loads = shards.iter().filter_map(|shard| {
            let own = batch.parts.iter().find(|part| part.shard == *shard);
            let nothing = || (vec![batch.nothing.clone()], Some(Ids::default()));
            let (pieces, ids) = match (own, &batch.refused) {
                (_, Some(refused)) if *shard == first => (vec![refused.clone()], None),
                (Some(part), None) => (part.pieces.clone(), part.ids.clone()),
                (None, None) if batch.parts.is_empty() && *shard == first => nothing(),
                // All shards get a request, so that the index exists on each of them with the same primary key.
                _ if fresh => nothing(),
                _ => return None,
            };
            // A batch that fails must not set a primary key.
            let path_and_query =
                (batch.refused.is_some() && *shard != first).then(|| self.path(None));
            Some(ShardPayload {
                ids,
                shard: *shard,
                pieces,
                path_and_query,
                removals: Vec::new(),
                superseded: 0,
            })
        });
        Delivery {
            index_uid: Some(self.uid.clone()),
            named: NamedOperation::of_index(self.operation, self.uid.clone()),
            method: self.method.clone(),
            path_and_query: self.path(key.map(String::as_str)),
            content_type: Some(HeaderValue::from_static(self.format.content_type())),
            forwarded: self.forwarded.clone(),
            mode: self.mode,
            loads: loads.collect(),
        }
    }

    /// Records the primary key and the task.
    async fn register(
        &self,
        ctx: &Context,
        guard: WriteGuard,
        parts: Vec<ShardTask>,
        fresh: bool,
    ) -> Result<Answer, WriteError> {
        let key = self.batch.key.as_ref().or(self.params.primary_key.as_ref());
        if fresh && self.batch.refused.is_none() && key.is_some() {
            ctx.cluster
                .placements
                .set_primary_key(&self.uid, key.map(String::as_str))
                .await?;
        }
        let task = NewTask {
            parts,
            ..self.task(Value::Null)
        };
        // Uids are assigned in the order of writes. The next writer needn't wait until this task is stored.
        let uid = ctx.tasks.reserve();
        drop(guard);
        let enqueued = ctx.tasks.create_as(uid, task, Vec::new()).await?;
        Ok(Answer::json(StatusCode::ACCEPTED, &enqueued))
    }

    /// Refuses a write whose primary key isn't the index's: its task fails as on a node, and nothing is written.
    async fn refuse_other_key(&self, ctx: &Context, key: &str) -> Result<Answer, WriteError> {
        let error = json!({
            "message": format!("Index already has a primary key: `{key}`."),
            "code": "index_primary_key_already_exists",
            "type": "invalid_request",
            "link": "https://docs.meilisearch.com/errors#index_primary_key_already_exists",
        });
        self.refuse(ctx, error).await
    }

    /// Registers a failed task with this error; nothing is written.
    async fn refuse(&self, ctx: &Context, error: Value) -> Result<Answer, WriteError> {
        let task = NewTask {
            error: Some(error),
            ..self.task(0.into())
        };
        Ok(Answer::json(
            StatusCode::ACCEPTED,
            &ctx.tasks.create(task).await?,
        ))
    }

    /// The task, without its parts.
    fn task(&self, indexed: Value) -> NewTask {
        NewTask {
            custom_metadata: self.params.custom_metadata.clone(),
            ..task(&self.uid, self.batch.received, indexed)
        }
    }

    /// Whether the index still lies as the batch was laid out.
    fn is_laid_out_so(&self, ctx: &Context) -> bool {
        let placement = self.layout.placement.as_deref();
        placement.is_some_and(|placement| layout_unchanged(ctx, placement))
    }

    /// Removes the placement again if this write had created it, since nothing was written.
    async fn forget(&self, ctx: &Context, before: Before) -> Result<(), WriteError> {
        if before == Before::Absent {
            ctx.cluster.placements.remove(&self.uid).await?;
        }
        Ok(())
    }
}

/// The task of a write of so many documents, without its parts.
pub(super) fn task(uid: &str, received: u64, indexed: Value) -> NewTask {
    NewTask {
        kind: "documentAdditionOrUpdate".to_owned(),
        index_uid: Some(uid.to_owned()),
        details: details([
            ("receivedDocuments", received.into()),
            ("indexedDocuments", indexed),
        ]),
        ..NewTask::default()
    }
}
