//! One batch of slots: copied, compared, and handed over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{try_join, try_join_all};
use hashbrown::HashSet;
use weft_routing::document_id::DocumentId;
use weft_routing::placement::ShardId;
use weft_routing::slot::Slot;

use super::applied::Applied;
use super::behind::Behind;
use super::ids::IdsBySlot;
use super::phase::{Phase, timed};
use super::rate::Rate;
use super::run::read_all;
use super::turn::Turn;
use super::{AGAIN, FEW, MoveError, remote, replicas, source, sweep};
use crate::cluster::{Move, MoveState, NodeRef, Noted, Slotting, owns};
use crate::repair::Context;
use crate::repair::resync::Remote;

/// How often documents are copied before it is said that they can't be made equal.
const ATTEMPTS: usize = 20;
/// How many ids that may concern the batch are looked at while writers wait, if ids don't tell.
const LOOKED_AT: usize = 10 * FEW;

/// What a move has copied, over all of its batches.
pub(super) struct Copied {
    /// The ids of documents that were sent to the new shard, and were not handed over since: it may hold copies of them.
    ids: Mutex<HashSet<String>>,
    /// The bytes that were sent.
    pub(super) bytes: AtomicU64,
    /// Whether the new shard may have yet to apply some of it: a turn was cut off.
    pub(super) is_open: AtomicBool,
    rate: Mutex<Rate>,
}

impl Copied {
    /// Of a move that had copied so many bytes before.
    pub(super) fn new(bytes: u64, limit: Option<u64>) -> Self {
        Self {
            ids: Mutex::default(),
            rate: Mutex::new(Rate::new(bytes, limit)),
            bytes: bytes.into(),
            is_open: false.into(),
        }
    }

    /// How long to wait before more is sent, so that no more than `limit` bytes a second are.
    pub(super) fn pause(&self, limit: Option<u64>) -> Duration {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.after(self.bytes.load(Ordering::Relaxed), limit)
    }

    pub(super) fn ids(&self) -> MutexGuard<'_, HashSet<String>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch of slots.
pub(super) struct Batch<'a> {
    pub(super) ctx: &'a Arc<Context>,
    pub(super) id: u64,
    pub(super) index: &'a str,
    /// Tells the slots of the index's documents; `None` if the index has no primary key yet, and so no documents.
    pub(super) slotting: Option<Slotting<'a>>,
    pub(super) from: ShardId,
    pub(super) to: ShardId,
    /// All slots that are still to be moved, ascending.
    pub(super) left: &'a [Slot],
    /// Those of this batch, ascending.
    pub(super) slots: Vec<Slot>,
    /// Whether nothing was written to most of their documents since the notes began, when the batch was chosen.
    pub(super) rests: bool,
    pub(super) copied: &'a Copied,
    /// What the move before has left on its old shard.
    pub(super) before: Option<&'a Behind>,
    /// What earlier batches have left on the old shard.
    pub(super) behind: &'a Behind,
    pub(super) applied: &'a Applied,
    /// Whether it was too much for a turn.
    pub(super) has_shrunk: bool,
}

impl Batch<'_> {
    /// Copies the documents, and gives the slots to the new owner. Returns how many documents that were. Slots that are being written
    /// to are left to the next batch, which finds them copied. If all are, and writers can't be kept waiting for as long as it takes to
    /// mend them, the batch shrinks.
    ///
    /// # Errors
    /// The batch isn't handed over, or it is and the old copies are still there.
    pub(super) async fn hand_over(&mut self, ids: &mut IdsBySlot) -> Result<usize, MoveError> {
        self.say(MoveState::Copying).await;
        match self.rests && !self.copied.is_open.load(Ordering::Relaxed) {
            true => self.copy_resting(ids).await?,
            false => self.copy(ids).await?,
        }
        self.say(MoveState::HandingOver).await;
        loop {
            match self.turn(ids).await? {
                Turn::Over(moved) => return Ok(moved),
                Turn::TooSlow(written) => self.shrink(ids, &written),
                Turn::Held => {}
            }
            self.go_on()?;
            tokio::time::sleep(AGAIN).await;
            // What was too much for a turn is worked off while writers go on.
            self.copy_noted(ids).await?;
        }
    }

    /// Leaves half of the documents to the next batch, which finds them copied: those to which more is written. Less is written to
    /// fewer slots, and a turn is over sooner.
    fn shrink(&mut self, ids: &IdsBySlot, written: &BTreeMap<Slot, usize>) {
        let half = ids.colder_half(&self.slots, written);
        tracing::debug!(id = self.id, slots = half.len(), "a turn took too long");
        self.slots = half;
        self.has_shrunk = true;
    }

    /// Removes the copies that were not handed over.
    pub(super) async fn withdraw(&self) -> Result<(), MoveError> {
        let placement = self.ctx.cluster.placement(self.index);
        let placement = placement.filter(|index| owns(index, &self.slots, self.from));
        let placement = placement.ok_or(MoveError::Changed)?;
        let Some(slotting) = self.slotting else {
            return Ok(());
        };
        let copied: Vec<String> = self.copied.ids().drain().collect();
        sweep::remove(self.ctx, &placement, slotting, self.to, copied).await
    }

    /// Says where the move stands.
    async fn say(&self, state: MoveState) {
        let moves = &self.ctx.cluster.moves;
        let say = |one: &mut Move| {
            one.state = state;
            one.copied = one.moved + self.copied.ids().len() as u64;
            one.bytes = self.copied.bytes.load(Ordering::Relaxed);
        };
        moves.show(self.id, say).await;
    }

    /// Whether the move may go on.
    pub(super) fn go_on(&self) -> Result<(), MoveError> {
        let moves = &self.ctx.cluster.moves;
        match moves.get(self.id) {
            Some(one) if one.cancelled => Err(MoveError::Cancelled),
            Some(_) if moves.options().paused => Err(MoveError::Paused),
            Some(_) => Ok(()),
            None => Err(MoveError::Cancelled),
        }
    }

    /// Takes the notes while no write is on its way.
    async fn take_between_writes(&self) -> Noted {
        let locks = &self.ctx.locks;
        let take = locks.between_writes(self.from, || self.take());
        timed(self.ctx, Phase::Lock, take).await
    }

    /// Takes the notes. The caller has the old shard's lock.
    pub(super) fn take(&self) -> Noted {
        let logs = &self.ctx.cluster.moves.logs;
        logs.take(self.index, &self.slots)
    }

    /// The slot of the document with this id, if the id tells it.
    fn slot_of(&self, id: &str) -> Option<Slot> {
        let document = DocumentId::from_text(id).ok()?;
        self.slotting?.strategy().slot_of(&document)
    }

    /// Notes of these ids, as if they had been written.
    fn noted_of(&self, ids: &[String]) -> Noted {
        let mut noted = Noted::default();
        for id in ids {
            match self.slot_of(id) {
                Some(slot) => noted.ids.entry(slot).or_default().insert(id.clone()),
                None => noted.anywhere.insert(id.clone()),
            };
        }
        noted
    }

    pub(super) fn put_back(&self, noted: Noted) {
        let logs = &self.ctx.cluster.moves.logs;
        logs.put_back(self.index, noted);
    }

    pub(super) fn is_by_id(&self) -> bool {
        self.slotting.is_none_or(|slotting| slotting.is_by_id())
    }

    /// How much may have been written when a turn begins.
    pub(super) fn most(&self) -> usize {
        if self.is_by_id() { FEW } else { LOOKED_AT }
    }

    /// The ids of what was copied and may concern this batch: a part of an earlier batch that shrank may lie in other slots.
    fn copied_here(&self) -> Vec<String> {
        let copied = self.copied.ids();
        let is_here = |id: &&String| match self.slot_of(id) {
            Some(slot) => self.slots.binary_search(&slot).is_ok(),
            None => true,
        };
        copied.iter().filter(is_here).cloned().collect()
    }

    /// Waits until the nodes have applied what clients have written to them, and old copies that are about to go are gone.
    async fn idle(&self, node: &NodeRef) -> Result<(), MoveError> {
        // Where ids tell slots, clients write none of the moving documents to the new shard.
        let written = match self.is_by_id() && !self.copied.is_open.load(Ordering::Relaxed) {
            true => Vec::new(),
            false => replicas(self.ctx, self.to)?,
        };
        let health = &self.ctx.cluster.health;
        let waited = written.iter().chain([node]);
        let waited = waited.map(|node| (node.id.clone(), health.doubts(&node.id)));
        let waited: Vec<_> = waited.collect();
        let new = written.iter().map(async |replica| {
            let new = remote(self.ctx, replica);
            new.applied().await
        });
        let old = self.old(node);
        let applied = async {
            let both = try_join(old.applied(), try_join_all(new));
            timed(self.ctx, Phase::Idle, both).await?;
            Ok(())
        };
        // The node deletes old copies before it applies what was written after that, and the batch may need their room.
        try_join(applied, self.behind.gone(self.ctx)).await?;
        self.applied.set(waited).await;
        Ok(())
    }

    pub(super) fn old<'a>(&'a self, node: &'a NodeRef) -> Remote<'a> {
        remote(self.ctx, node)
    }

    /// Works in what was noted: `ids` are then those of the batch again, apart from those that were written.
    async fn work_in(&self, ids: &mut IdsBySlot, noted: &Noted) -> Result<(), MoveError> {
        if noted.broken {
            return Err(MoveError::Changed);
        }
        if noted.unknown {
            // The first documents came meanwhile.
            let slotting = self.slotting.ok_or(MoveError::Changed)?;
            let (ctx, left) = (self.ctx, self.left);
            let all = read_all(ctx, self.index, self.from, slotting, left, ids);
            let _node = timed(ctx, Phase::List, all).await?;
        }
        ids.add(noted);
        Ok(())
    }

    /// Copies documents to which nothing was written since the notes began, and then what was written, if that is little. What is
    /// written meanwhile, or of which it wasn't seen that the new shard holds it, is noted.
    async fn copy_resting(&self, ids: &mut IdsBySlot) -> Result<(), MoveError> {
        let node = source(self.ctx, self.from)?;
        // Where an id doesn't tell the slot, clients may have written the same document to the new shard before.
        let new = match self.is_by_id() {
            true => Vec::new(),
            false => replicas(self.ctx, self.to)?,
        };
        let nodes: Vec<&NodeRef> = new.iter().chain([&node]).collect();
        let applied = self.applied.on(self.ctx, &nodes);
        timed(self.ctx, Phase::Idle, applied).await?;
        let mut all = ids.of(&self.slots);
        all.extend(self.copied_here());
        all.sort_unstable();
        all.dedup();
        let logs = &self.ctx.cluster.moves.logs;
        let written = logs.look(self.index, |noted| noted.among(&self.slots));
        let written = written.ok_or(MoveError::Changed)?;
        all.retain(|id| !written.contains(id));
        let unseen = self.mend(ids, &node, &all, None).await?;
        self.put_back(self.noted_of(&unseen));
        match written.is_empty() {
            true => Ok(()),
            false => self.copy_noted(ids).await,
        }
    }

    /// Copies all documents of the batch until every replica of the new shard was seen to hold them as the old shard did, apart from
    /// what was written since, which is noted.
    async fn copy(&self, ids: &mut IdsBySlot) -> Result<(), MoveError> {
        let mut unseen = None::<Vec<String>>;
        for _ in 0..ATTEMPTS {
            let noted = self.take_between_writes().await;
            self.work_in(ids, &noted).await?;
            let mut doubtful = match unseen {
                Some(unseen) if !noted.all => unseen,
                _ => {
                    let mut all = ids.of(&self.slots);
                    all.extend(self.copied_here());
                    all
                }
            };
            doubtful.extend(noted.written());
            doubtful.sort_unstable();
            doubtful.dedup();
            // If this fails, the move begins anew.
            let left = self.mend_applied(ids, &doubtful).await?;
            if left.is_empty() {
                return Ok(());
            }
            unseen = Some(left);
            self.go_on()?;
        }
        Err(MoveError::StillDiffers(
            unseen.map_or(0, |unseen| unseen.len()),
        ))
    }

    /// Mends what was written meanwhile.
    async fn copy_noted(&self, ids: &mut IdsBySlot) -> Result<(), MoveError> {
        let noted = self.take_between_writes().await;
        if noted.all || noted.unknown {
            self.put_back(noted);
            return self.copy(ids).await;
        }
        self.work_in(ids, &noted).await?;
        match self.mend_applied(ids, &noted.written()).await {
            // The turn looks at them again.
            Ok(unseen) => self.put_back(self.noted_of(&unseen)),
            Err(error) => {
                self.put_back(noted);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Mends these documents once the nodes have applied what was written up to now. Nodes that are busy for long are waited for
    /// while writers go on.
    async fn mend_applied(
        &self,
        ids: &mut IdsBySlot,
        doubtful: &[String],
    ) -> Result<Vec<String>, MoveError> {
        let node = source(self.ctx, self.from)?;
        self.idle(&node).await?;
        self.mend(ids, &node, doubtful, None).await
    }

    /// What was handed over is no copy any more: the new shard has it by right.
    pub(super) fn handed_over(&self, moved: &[String]) {
        let mut copied = self.copied.ids();
        for id in moved {
            copied.remove(id);
        }
        copied.retain(|id| {
            let slot = self.slot_of(id);
            slot.is_none_or(|slot| self.slots.binary_search(&slot).is_err())
        });
    }
}
