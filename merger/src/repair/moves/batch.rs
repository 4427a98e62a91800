//! One batch of slots: copied, compared, and handed over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashSet;
use tokio::time::{Instant, timeout_at};
use weft_routing::document_id::DocumentId;
use weft_routing::placement::ShardId;
use weft_routing::slot::Slot;

use super::ids::IdsBySlot;
use super::phase::{Phase, timed};
use super::run::read_all;
use super::send::{Tasks, Write, send};
use super::{AGAIN, FEW, MoveError, TURN, join, remote, replicas, source, sweep};
use crate::cluster::{Move, MoveState, NodeRef, Noted, Slotting, owns, until};
use crate::repair::Context;
use crate::repair::resync::{Remote, SourceGuard};
use crate::replication::{WriteGuard, settle_doubt};

/// How often documents are copied before it is said that they can't be made equal.
const ATTEMPTS: usize = 20;
/// How many ids that may concern the batch are looked at while writers wait, if ids don't tell.
const LOOKED_AT: usize = 10 * FEW;

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
    /// Those of this batch.
    pub(super) slots: Vec<Slot>,
    /// The ids of the documents that were sent to the new shard: it may hold copies of them.
    pub(super) copied: Mutex<HashSet<String>>,
    /// The bytes copied so far.
    pub(super) bytes: &'a AtomicU64,
}

/// A turn: both shards' locks, and until when it may take.
pub(super) struct Locked<'a> {
    pub(super) guard: &'a WriteGuard,
    until: Instant,
}

impl Locked<'_> {
    /// Does something that may be cut off.
    async fn within<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, MoveError>
    where
        MoveError: From<E>,
    {
        match timeout_at(self.until, work).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(MoveError::TooSlow),
        }
    }
}

pub(super) async fn within<T, E>(
    locked: Option<&Locked<'_>>,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, MoveError>
where
    MoveError: From<E>,
{
    match locked {
        Some(turn) => turn.within(work).await,
        None => Ok(work.await?),
    }
}

/// What a turn under the locks came to.
enum Turn {
    /// The batch has its new owner, and the old copies are about to go.
    Over,
    /// Too much was written meanwhile, or a node was too slow.
    TooSoon,
}

impl Batch<'_> {
    /// Copies the documents, and gives the slots to the new owner.
    ///
    /// # Errors
    /// The batch isn't handed over, or it is and the old copies are still there.
    pub(super) async fn hand_over(&self, ids: &mut IdsBySlot) -> Result<(), MoveError> {
        self.say(MoveState::Copying).await;
        self.copy(ids).await?;
        self.say(MoveState::HandingOver).await;
        loop {
            if let Turn::Over = self.turn(ids).await? {
                return Ok(());
            }
            self.go_on()?;
            tokio::time::sleep(AGAIN).await;
            // What was too much for a turn is worked off while writers go on.
            self.copy_noted(ids).await?;
        }
    }

    /// Removes the copies that were not handed over.
    pub(super) async fn withdraw(&self) -> Result<(), MoveError> {
        let placement = self.ctx.cluster.placement(self.index);
        let placement = placement.filter(|index| owns(index, &self.slots, self.from));
        let placement = placement.ok_or(MoveError::Changed)?;
        let Some(slotting) = self.slotting else {
            return Ok(());
        };
        let copied: Vec<String> = self.copied().drain().collect();
        sweep::remove(self.ctx, &placement, slotting, self.to, copied).await
    }

    pub(super) fn copied(&self) -> MutexGuard<'_, HashSet<String>> {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn say(&self, state: MoveState) {
        let moves = &self.ctx.cluster.moves;
        let say = |one: &mut Move| {
            one.state = state;
            one.bytes = self.bytes.load(Ordering::Relaxed);
        };
        moves.show(self.id, say).await;
    }

    /// Whether the move may go on.
    fn go_on(&self) -> Result<(), MoveError> {
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
        locks.between_writes(self.from, || self.take()).await
    }

    /// Takes the notes. The caller has the old shard's lock.
    fn take(&self) -> Noted {
        let logs = &self.ctx.cluster.moves.logs;
        logs.take(self.index, &self.slots)
    }

    /// Notes of these ids, as if they had been written.
    fn noted_of(&self, ids: &[String]) -> Noted {
        let mut noted = Noted::default();
        for id in ids {
            let document = DocumentId::from_text(id).ok();
            let strategy = self.slotting.map(|slotting| slotting.strategy());
            let slot = document.and_then(|document| strategy?.slot_of(&document));
            match slot {
                Some(slot) => noted.ids.entry(slot).or_default().insert(id.clone()),
                None => noted.anywhere.insert(id.clone()),
            };
        }
        noted
    }

    fn put_back(&self, noted: Noted) {
        let logs = &self.ctx.cluster.moves.logs;
        logs.put_back(self.index, noted);
    }

    fn is_by_id(&self) -> bool {
        self.slotting.is_none_or(|slotting| slotting.is_by_id())
    }

    /// How much may have been written when a turn begins.
    fn most(&self) -> usize {
        if self.is_by_id() { FEW } else { LOOKED_AT }
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
            read_all(ctx, self.index, self.from, slotting, left, ids).await?;
        }
        ids.add(noted);
        Ok(())
    }

    /// Copies all documents of the batch until every replica of the new shard was seen to hold them as the old shard does, apart from
    /// a few, which the turn compares again.
    async fn copy(&self, ids: &mut IdsBySlot) -> Result<(), MoveError> {
        let mut differing = None::<Vec<String>>;
        for _ in 0..ATTEMPTS {
            let noted = self.take_between_writes().await;
            self.work_in(ids, &noted).await?;
            let mut doubtful = match differing {
                Some(differing) if !noted.all => differing,
                _ => {
                    let mut all = ids.of(&self.slots);
                    all.extend(self.copied().iter().cloned());
                    all
                }
            };
            doubtful.extend(noted.written());
            doubtful.sort_unstable();
            doubtful.dedup();
            let node = source(self.ctx, self.from)?;
            // If this fails, the move begins anew.
            let found = self.mend(ids, &node, &doubtful, None).await?;
            if found.len() <= FEW / 4 {
                self.put_back(self.noted_of(&found));
                return Ok(());
            }
            differing = Some(found);
            self.go_on()?;
        }
        Err(MoveError::StillDiffers(
            differing.map_or(0, |differing| differing.len()),
        ))
    }

    /// Mends what was written meanwhile, until it is little.
    async fn copy_noted(&self, ids: &mut IdsBySlot) -> Result<(), MoveError> {
        for _ in 0..ATTEMPTS {
            let noted = self.take_between_writes().await;
            if noted.all || noted.unknown {
                self.put_back(noted);
                return self.copy(ids).await;
            }
            self.work_in(ids, &noted).await?;
            let written = noted.written();
            let node = source(self.ctx, self.from)?;
            match self.mend(ids, &node, &written, None).await {
                // The turn compares them again.
                Ok(found) => self.put_back(self.noted_of(&found)),
                Err(error) => {
                    self.put_back(noted);
                    return Err(error);
                }
            }
            if written.len() <= self.most() / 4 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// With both shards' locks: mends the rest, and stores the new owner.
    async fn turn(&self, ids: &mut IdsBySlot) -> Result<Turn, MoveError> {
        let moves = &self.ctx.cluster.moves;
        if moves.is_held(self.index) {
            until([&moves.changes], || {
                (!moves.is_held(self.index)).then_some(())
            })
            .await;
        }
        let node = source(self.ctx, self.from)?;
        // Nodes that are busy for long are waited for while writers go on.
        let idle = async {
            self.old(&node).applied().await?;
            for other in replicas(self.ctx, self.to)? {
                remote(self.ctx, &other).applied().await?;
            }
            Ok::<_, MoveError>(())
        };
        timed(self.ctx, Phase::Idle, idle).await?;
        let placement = self.ctx.cluster.placement(self.index);
        let placement = placement.ok_or(MoveError::Gone)?;
        let mut shards: Vec<ShardId> = placement.shards().to_vec();
        // A change of settings must not pass between the last look at them and the moment from which the new shard gets it.
        match placement.shards().contains(&self.to) {
            true => shards = vec![self.from, self.to],
            false => shards.push(self.to),
        }
        let guard = timed(self.ctx, Phase::Lock, self.ctx.locks.lock(&shards)).await;
        let begun = Instant::now();
        if moves.is_held(self.index) {
            return Ok(Turn::TooSoon);
        }
        settle_doubt(self.ctx, self.from).await?;
        settle_doubt(self.ctx, self.to).await?;
        let now = self.ctx.cluster.placement(self.index);
        let now = now.filter(|now| owns(now, &self.slots, self.from));
        let now = now.ok_or(MoveError::Changed)?;
        if !now.unsettled.contains(&self.from) || !now.unsettled.contains(&self.to) {
            return Err(MoveError::Changed);
        }
        if self.slotting.is_none() && now.primary_key.is_some() {
            return Err(MoveError::Changed);
        }
        let joins = !now.shards().contains(&self.to);
        let noted = self.take();
        if noted.broken {
            return Err(MoveError::Changed);
        }
        let mut written = noted.written();
        if noted.all || noted.unknown || written.len() > self.most() {
            self.measure("too-soon", begun);
            self.put_back(noted);
            return Ok(Turn::TooSoon);
        }
        ids.add(&noted);
        let turn = Locked {
            guard: &guard,
            until: Instant::now() + TURN,
        };
        let mending = async {
            let unbroken = SourceGuard::of(self.ctx, &node)?;
            turn.within(self.old(&node).applied()).await?;
            turn.within(unbroken.check()).await?;
            if !self.is_by_id() {
                // Clients write to the new shard, too.
                for other in replicas(self.ctx, self.to)? {
                    turn.within(remote(self.ctx, &other).applied()).await?;
                }
            }
            if written.len() > FEW {
                written = self.concerned(ids, &node, &written, Some(&turn)).await?;
                if written.len() > FEW {
                    return Err(MoveError::TooSlow);
                }
            }
            if !written.is_empty() {
                while !self
                    .mend(ids, &node, &written, Some(&turn))
                    .await?
                    .is_empty()
                {}
            }
            let settings = join::has_settings(self.ctx, &node, self.index, self.to);
            if joins && !turn.within(settings).await? {
                return Ok(false);
            }
            Ok::<_, MoveError>(true)
        };
        match mending.await {
            Ok(true) => {}
            Ok(false) => {
                drop(guard);
                self.measure("too-soon", begun);
                self.put_back(noted);
                join::set_settings(self.ctx, &node, self.index, self.to).await?;
                return Ok(Turn::TooSoon);
            }
            Err(MoveError::TooSlow) => {
                self.measure("too-soon", begun);
                self.put_back(noted);
                return Ok(Turn::TooSoon);
            }
            Err(error) => {
                self.put_back(noted);
                return Err(error);
            }
        }
        let deletion = self.commit(&guard, ids).await?;
        drop(guard);
        self.measure("over", begun);
        timed(self.ctx, Phase::Delete, deletion.done(self.ctx)).await?;
        Ok(Turn::Over)
    }

    fn measure(&self, outcome: &'static str, begun: Instant) {
        let metrics = &self.ctx.metrics;
        metrics.move_turns.with_label_values(&[outcome]).inc();
        let took = begun.elapsed().as_secs_f64();
        let seconds = metrics.move_turn_seconds.with_label_values(&[outcome]);
        seconds.observe(took);
    }

    /// Stores the new owner, and has the old copies deleted. The caller has both shards' locks.
    async fn commit(&self, guard: &WriteGuard, ids: &IdsBySlot) -> Result<Tasks, MoveError> {
        let cluster = &self.ctx.cluster;
        let moved = ids.of(&self.slots);
        let (placements, slots) = (&cluster.placements, self.slots.as_slice());
        let count = |one: &mut Move| {
            one.moved += moved.len() as u64;
            one.documents = one.documents.max(one.moved);
            one.bytes = self.bytes.load(Ordering::Relaxed);
        };
        let hand_over = async |extra| {
            let shards = [self.from, self.to];
            placements.hand_over(self.index, slots, shards, extra).await
        };
        if !cluster.moves.change_with(self.id, count, hand_over).await? {
            return Err(MoveError::Changed);
        }
        cluster.moves.logs.moved(self.index, slots);
        self.ctx.metrics.moved_documents.inc_by(moved.len() as u64);
        // A merger that reads by the old owner would miss these documents from here on.
        let epoch = placements.epoch().0;
        timed(
            self.ctx,
            Phase::Heard,
            cluster.mergers.until_all_serve(epoch),
        )
        .await;
        if moved.is_empty() {
            return Ok(Tasks::default());
        }
        // Enqueued within this turn: a deletion by filter that comes next must not find them on both shards.
        let delete = Write::deletion(self.index, &moved);
        send(self.ctx, guard, self.from, delete).await
    }

    pub(super) fn old<'a>(&'a self, node: &'a NodeRef) -> Remote<'a> {
        remote(self.ctx, node)
    }
}
