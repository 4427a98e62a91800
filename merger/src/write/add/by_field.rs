//! Additions and updates of an index that lies by a field, where an id alone doesn't tell where its document is.
//!
//! *Whole documents* go to the shards that their values tell. All other shards remove the same ids in the same turn, or only those
//! shards that hold them, if the index rests and can be asked. *Updates* need not name the field: they wait until the index rests,
//! its shards are asked for the documents, and each update goes to the shard that holds its document. If another write comes
//! first, the shards are asked again, and other writers are held off meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use weft_routing::placement::ShardId;

use super::Write;
use crate::answer::Answer;
use crate::ids::Ids;
use crate::replication::WriteGuard;
use crate::tasks::{Unknown, ask_until};
use crate::write::deliver::{Delivery, ShardPayload};
use crate::write::layout::Layout;
use crate::write::locate::{Located, locate};
use crate::write::removals::removals;
use crate::write::split::Owners;
use crate::write::{Context, WriteError, of_split};

/// How long an update waits until its index rests, and how often it looks.
const LOCATED_WITHIN: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(25);
/// How long it waits before other writers are held off, and then how long they are, in turn.
const CALM_WITHIN: Duration = Duration::from_secs(1);
const HELD_WITHIN: Duration = Duration::from_millis(300);
/// The most documents that a write of whole documents looks for, so that only those shards remove some that hold them.
const MOST_LOOKED_UP: usize = 1_000;

/// Until when an update that begins now waits for its index to rest.
pub(super) fn patience() -> Instant {
    Instant::now() + LOCATED_WITHIN
}

impl Write {
    /// Tries to send the write, until `patience` ends. `None` if the index was laid out anew meanwhile.
    pub(super) async fn attempt(
        &mut self,
        ctx: &Arc<Context>,
        patience: Instant,
    ) -> Result<Option<Answer>, WriteError> {
        if self.layout.cannot_skip(&self.params, &self.method) {
            return Err(WriteError::NoSkipping(self.uid.clone()));
        }
        let is_refused = self.batch.refused.is_some() || self.batch.unplaced.is_some();
        if !self.layout.looks_for(&self.method) || is_refused {
            return self.write(ctx, None, None).await;
        }
        if self.layout.key.is_none() {
            // Without a primary key there are no documents.
            return self.update(ctx, None, None).await;
        }
        loop {
            if let found @ Some(_) = self.locate(ctx, CALM_WITHIN).await?
                && let Some(answer) = self.update(ctx, found, None).await?
            {
                return Ok(Some(answer));
            }
            let guard = ctx.locks.lock(self.layout.slots.shards()).await;
            let found = timeout(HELD_WITHIN, self.locate(ctx, HELD_WITHIN)).await;
            if let Ok(found) = found
                && let found @ Some(_) = found?
            {
                return self.update(ctx, found, Some(guard)).await;
            }
            drop(guard);
            if Instant::now() > patience {
                return Err(WriteError::NotLocated(self.uid.clone()));
            }
        }
    }

    /// Looks for the documents of the batch until the index rests; `None` if that takes too long.
    async fn locate(&self, ctx: &Context, within: Duration) -> Result<Option<Located>, WriteError> {
        let (Some(placement), Some(key)) = (&self.layout.placement, &self.layout.key) else {
            return Ok(None);
        };
        let owners = self.batch.owners.as_deref();
        let ids: Vec<&str> = owners
            .into_iter()
            .flat_map(Owners::iter)
            .map(|(id, _)| id)
            .collect();
        let found = ask_until(within, AGAIN, || locate(ctx, placement, key, &ids)).await;
        found.map_err(|error| match error {
            Unknown::Cluster(error) => error.into(),
            Unknown::Upstream(error) => error.into(),
        })
    }

    /// Sends the updates to the shards where their documents were found.
    async fn update(
        &mut self,
        ctx: &Arc<Context>,
        found: Option<Located>,
        guard: Option<WriteGuard>,
    ) -> Result<Option<Answer>, WriteError> {
        let owners = found.as_ref().map(|found| Arc::clone(found.owners()));
        let owners = owners.unwrap_or_default();
        let skips_creation = self.params.skip_creation == Some(true);
        let splitter = self
            .layout
            .splitter(ctx, self.format, &self.params, &self.method);
        let laid_out = self
            .split_by(splitter.updating(owners, skips_creation))
            .await?;
        let gathered = std::mem::replace(&mut self.batch, laid_out);
        let answer = self.write(ctx, found.as_ref(), guard).await;
        if let Ok(None) = answer {
            self.batch = gathered;
        }
        answer
    }

    /// Where the old versions of whole documents lie, if that can be told at once. `None` means that any shard may hold them.
    pub(super) async fn look_up(&self, ctx: &Context) -> Option<Located> {
        let placement = self.layout.placement.as_ref()?;
        let (owners, key) = (self.batch.owners.as_ref()?, self.layout.key.as_ref()?);
        // What a batch itself brings to a shard in vain isn't there yet.
        let is_few = owners.len() <= MOST_LOOKED_UP && !owners.are_superseded();
        let is_of_use = self.moves_documents() && is_few;
        if !is_of_use || !self.layout.is_alive() {
            return None;
        }
        let ids: Vec<&str> = owners.iter().map(|(id, _)| id).collect();
        let found = locate(ctx, placement, key, &ids).await;
        // If a shard gives no answer, all are told to remove the ids, and it is seen then whether that can be done.
        found.ok().flatten()
    }

    /// Whether the write may bring a document to another shard than the one that holds it.
    fn moves_documents(&self) -> bool {
        let slots = &self.layout.slots;
        let is_refused = self.batch.refused.is_some() || self.batch.unplaced.is_some();
        slots.field().is_some()
            && slots.shards().len() > 1
            && !self.layout.looks_for(&self.method)
            && !is_refused
    }

    /// Adds what each shard must remove to a delivery, in place of what was added before.
    pub(super) async fn add_removals(
        &self,
        ctx: &Context,
        delivery: &mut Delivery,
        held: Option<&Located>,
    ) -> Result<(), WriteError> {
        let held = held.map(|found| &**found.owners());
        // Two versions of a document: a merger died while the document was replaced under another value.
        let are_double = held.is_some_and(Owners::are_superseded);
        let owners = self.batch.owners.as_ref();
        let owners = owners.filter(|_| are_double || self.moves_documents());
        let Some(owners) = owners else {
            return Ok(());
        };
        let shards = self.layout.slots.shards();
        let removals = removals(owners, shards, held, &Layout::limits(ctx)).await;
        let removals = removals.map_err(|error| of_split(error.into(), self.format))?;
        let own: Vec<ShardPayload> = std::mem::take(&mut delivery.loads);
        for shard in shards {
            let own = own
                .iter()
                .find(|load| load.shard == *shard && !load.pieces.is_empty());
            let removal = removals.iter().find(|removal| removal.shard == *shard);
            if own.is_none() && removal.is_none() {
                continue;
            }
            let mut load = own.cloned().unwrap_or_else(|| ShardPayload {
                shard: *shard,
                pieces: Vec::new(),
                ids: Some(Ids::placed()),
                path_and_query: None,
                removals: Vec::new(),
                superseded: 0,
            });
            let part = self.batch.parts.iter().find(|part| part.shard == *shard);
            let written = part.map_or_else(|| Some(Ids::placed()), |part| part.ids.clone());
            let removed = removal.map_or_else(|| Some(Ids::placed()), |one| one.ids.clone());
            load.ids = written.zip(removed).map(|(mut written, removed)| {
                written.extend(removed.iter());
                written
            });
            load.superseded = owners.superseded_on(*shard);
            load.removals = removal.map_or_else(Vec::new, |removal| removal.pieces.clone());
            delivery.loads.push(load);
        }
        Ok(())
    }

    /// The shards whose turns the write needs: all of an index that lies by a field, since a document may lie on any.
    pub(super) fn concerned(&self, delivery: &Delivery) -> Vec<ShardId> {
        match self.layout.slots.field() {
            Some(_) => self.layout.slots.shards().to_vec(),
            None => delivery.loads.iter().map(|load| load.shard).collect(),
        }
    }
}
