//! Small writes, which may go to their shard together with others.

use std::sync::Arc;

use http::StatusCode;
use http::header::AUTHORIZATION;
use weft_routing::placement::ShardId;

use super::Write;
use crate::answer::Answer;
use crate::write::coalesce::{self, Kind, SMALL_BYTES, SMALL_DOCUMENTS, Sent, Small};
use crate::write::layout::Layout;
use crate::write::{Context, WriteError};

impl Write {
    /// Sends a small write about which nothing has to be asked. It needn't be run to completion: once it waits for its turn, it is sent
    /// whether its client stays or not. `None` if it isn't such a write, or its index changed meanwhile; nothing was sent then.
    pub(super) async fn at_once(
        &mut self,
        ctx: &Arc<Context>,
    ) -> Result<Option<Answer>, WriteError> {
        let now = Layout::of(ctx, &self.uid).await?;
        let same_key = match &self.params.primary_key {
            Some(key) => now.key.as_ref() == Some(key),
            None => now.key.is_some(),
        };
        let doubtful = self.batch.suspicions.is_some() || self.batch.unplaced.is_some();
        if !same_key || doubtful || !now.is_alive() || !now.fits(&self.layout, &self.batch) {
            return Ok(None);
        }
        self.layout = now;
        match self.small(ctx) {
            Some((shard, small)) => self.send_small(ctx, shard, small).await,
            None => Ok(None),
        }
    }

    /// Sends a small write: it waits for its turn, and then goes with those that wait for the same shard.
    pub(super) async fn send_small(
        &self,
        ctx: &Arc<Context>,
        shard: ShardId,
        small: Small,
    ) -> Result<Option<Answer>, WriteError> {
        let delivering = self.forwarded.span().phase("deliver");
        let small = small.beneath(&delivering);
        Ok(match coalesce::send(ctx, shard, small).await? {
            Sent::Gone => None,
            Sent::Refused(answer) => Some(answer),
            Sent::Taken(enqueued) => Some(Answer::json(StatusCode::ACCEPTED, &enqueued)),
        })
    }

    /// The write as a small one, if it may be merged with others.
    pub(super) fn small(&self, ctx: &Context) -> Option<(ShardId, Small)> {
        let ([part], None) = (self.batch.parts.as_slice(), &self.batch.refused) else {
            return None;
        };
        let ([piece], Some(ids)) = (part.pieces.as_slice(), &part.ids) else {
            return None;
        };
        let documents = piece.in_memory()?;
        // The merger doesn't know what filters send straight to a node. A merged write that failed could not be repeated then
        // without overtaking such a write.
        let placement = self.layout.placement.as_ref()?;
        let may = ctx.options.coalesce
            && coalesce::may_merge(self.layout.slots.strategy())
            // An update that must look for its document goes alone.
            && !self.layout.looks_for(&self.method)
            && self.batch.unplaced.is_none()
            && !ctx.cluster.direct_writes()
            && self.layout.key.is_some()
            && documents.len() <= SMALL_BYTES
            && ids.len() <= SMALL_DOCUMENTS
            && ctx.writes.coalescer.has_room()
            && coalesce::is_harmless(self.format, &documents);
        may.then(|| {
            let forwarded = self.forwarded.detached();
            let kind = Kind {
                placement: Arc::clone(placement),
                operation: self.operation,
                method: self.method.clone(),
                path_and_query: self.path(self.batch.key.as_deref()),
                format: self.format,
                authority: forwarded.headers().get(AUTHORIZATION).cloned(),
                mode: self.mode,
            };
            let small = Small {
                kind,
                forwarded,
                documents,
                piece: piece.clone(),
                ids: ids.each_once(),
                custom_metadata: self.params.custom_metadata.clone(),
            };
            (part.shard, small)
        })
    }
}
