//! The turn in which a batch changes its owner: both shards' locks are held, so that no writer is under way.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, timeout_at};
use weft_routing::placement::ShardId;
use weft_routing::slot::Slot;

use super::batch::Batch;
use super::ids::IdsBySlot;
use super::phase::{Phase, timed};
use super::send::{Tasks, Write, send};
use super::{FEW, MoveError, TURN, join, remote, replicas, source};
use crate::cluster::{Move, NodeRef, Noted, owns, until};
use crate::repair::resync::SourceGuard;
use crate::replication::{WriteGuard, settle_doubt};

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
pub(super) enum Turn {
    /// The batch, so many documents, has its new owner, and the old copies are about to go.
    Over(usize),
    /// Too much was written meanwhile, or a node was too slow. How many documents were written, by slot, as far as ids tell it.
    TooSlow(BTreeMap<Slot, usize>),
    /// A writer holds the slots where they are, a node was busy with what it had taken before, or the new shard lacked settings.
    Held,
}

/// What a turn can give to the new owner.
enum Ready {
    /// All slots of the batch: what was noted is mended.
    All,
    /// These slots, which what was noted doesn't concern.
    Rests(Vec<Slot>),
    /// None: nodes are busy with what they had taken before.
    Busy,
    /// None: the new shard lacks settings.
    LacksSettings,
}

impl Batch<'_> {
    /// With both shards' locks: gives those slots to the new owner that rest, or, if they are few, mends what was written and gives it
    /// all. What remains of the batch are the slots that have their new owner.
    pub(super) async fn turn(&mut self, ids: &mut IdsBySlot) -> Result<Turn, MoveError> {
        let moves = &self.ctx.cluster.moves;
        if moves.is_held(self.index) {
            until([&moves.changes], || {
                (!moves.is_held(self.index)).then_some(())
            })
            .await;
        }
        let node = source(self.ctx, self.from)?;
        let shards = self.shards()?;
        let guard = timed(self.ctx, Phase::Lock, self.ctx.locks.lock(&shards)).await;
        let begun = Instant::now();
        if moves.is_held(self.index) {
            return Ok(Turn::Held);
        }
        let joins = self.may_begin().await?;
        let noted = self.take();
        if noted.broken {
            return Err(MoveError::Changed);
        }
        if noted.all || noted.unknown {
            self.measure("too-soon", begun);
            return Ok(self.too_slow(noted));
        }
        ids.add(&noted);
        let turn = Locked {
            guard: &guard,
            until: Instant::now() + TURN,
        };
        match self.prepare(ids, &node, (&noted, joins), &turn).await {
            Ok(Ready::All) => {}
            Ok(Ready::Rests(slots)) => {
                self.put_back(noted);
                self.slots = slots;
            }
            Ok(Ready::Busy) => {
                self.measure("too-soon", begun);
                self.put_back(noted);
                return Ok(Turn::Held);
            }
            Ok(Ready::LacksSettings) => {
                drop(guard);
                self.measure("too-soon", begun);
                self.put_back(noted);
                join::set_settings(self.ctx, &node, self.index, self.to).await?;
                return Ok(Turn::Held);
            }
            Err(MoveError::TooSlow) => {
                self.measure("too-soon", begun);
                return Ok(self.too_slow(noted));
            }
            Err(error) => {
                self.put_back(noted);
                return Err(error);
            }
        }
        let moved = self.commit(&guard, ids).await?;
        drop(guard);
        self.measure("over", begun);
        Ok(Turn::Over(moved))
    }

    /// Makes as much of the batch ready as writers can wait for. `joins` says whether the new shard gets its first slots: then it must
    /// have the index's settings.
    async fn prepare(
        &self,
        ids: &mut IdsBySlot,
        node: &NodeRef,
        (noted, joins): (&Noted, bool),
        turn: &Locked<'_>,
    ) -> Result<Ready, MoveError> {
        if joins {
            let settings = join::has_settings(self.ctx, node, self.index, self.to);
            match turn.within(settings).await {
                Ok(true) => {}
                Ok(false) => return Ok(Ready::LacksSettings),
                Err(MoveError::TooSlow) => return Ok(Ready::Busy),
                Err(error) => return Err(error),
            }
        }
        // A node may need long to apply what was written. Nobody waits for that if most of the batch can go without it, unless the
        // move is over then.
        let rests = ids.at_rest(&self.slots, noted);
        let is_last = self.slots.len() == self.left.len();
        let may_end = is_last && rests.len() < self.slots.len() && noted.written().len() <= FEW;
        if !may_end && !rests.is_empty() && 2 * ids.count(&rests) >= ids.count(&self.slots) {
            return Ok(Ready::Rests(rests));
        }
        let ready = self.ready(node, turn).await;
        let is_busy = matches!(ready, Err(MoveError::TooSlow));
        let mended = match ready {
            Ok(()) => self.mend_rest(ids, node, noted, turn).await,
            Err(error) => Err(error),
        };
        match mended {
            Ok(()) => Ok(Ready::All),
            Err(MoveError::TooSlow) if !rests.is_empty() => Ok(Ready::Rests(rests)),
            // A smaller batch would have waited as long.
            Err(MoveError::TooSlow) if is_busy => Ok(Ready::Busy),
            Err(error) => Err(error),
        }
    }

    fn too_slow(&self, noted: Noted) -> Turn {
        let counts = noted.ids.iter().map(|(slot, ids)| (*slot, ids.len()));
        let written = counts.collect();
        self.put_back(noted);
        Turn::TooSlow(written)
    }

    /// The shards whose writers must wait.
    fn shards(&self) -> Result<Vec<ShardId>, MoveError> {
        let placement = self.ctx.cluster.placement(self.index);
        let placement = placement.ok_or(MoveError::Gone)?;
        let mut shards: Vec<ShardId> = placement.shards().to_vec();
        // A change of settings must not pass between the last look at them and the moment from which the new shard gets it.
        match placement.shards().contains(&self.to) {
            true => shards = vec![self.from, self.to],
            false => shards.push(self.to),
        }
        Ok(shards)
    }

    /// Looks whether everything is as it was when the locks were asked for. Returns whether the new shard gets its first slots.
    async fn may_begin(&self) -> Result<bool, MoveError> {
        settle_doubt(self.ctx, self.from).await?;
        settle_doubt(self.ctx, self.to).await?;
        let now = self.ctx.cluster.placement(self.index);
        let now = now.filter(|now| owns(now, &self.slots, self.from));
        let now = now.ok_or(MoveError::Changed)?;
        let is_unsettled = [self.from, self.to].map(|shard| now.unsettled.contains(&shard));
        if is_unsettled != [true, true] || self.slotting.is_none() && now.primary_key.is_some() {
            return Err(MoveError::Changed);
        }
        Ok(!now.shards().contains(&self.to))
    }

    /// Waits until the nodes have applied what writers have sent before.
    async fn ready(&self, node: &NodeRef, turn: &Locked<'_>) -> Result<(), MoveError> {
        let unbroken = SourceGuard::of(self.ctx, node)?;
        turn.within(self.old(node).applied()).await?;
        turn.within(unbroken.check()).await?;
        if !self.is_by_id() {
            // Clients write to the new shard, too.
            for other in replicas(self.ctx, self.to)? {
                turn.within(remote(self.ctx, &other).applied()).await?;
            }
        }
        Ok(())
    }

    /// Mends what was written since it was compared, until all replicas were seen to hold it.
    async fn mend_rest(
        &self,
        ids: &mut IdsBySlot,
        node: &NodeRef,
        noted: &Noted,
        turn: &Locked<'_>,
    ) -> Result<(), MoveError> {
        let mut written = noted.written();
        if written.len() > self.most() {
            return Err(MoveError::TooSlow);
        }
        if written.len() > FEW {
            written = self.concerned(ids, node, &written, Some(turn)).await?;
            if written.len() > FEW {
                return Err(MoveError::TooSlow);
            }
        }
        while !written.is_empty() {
            written = self.mend(ids, node, &written, Some(turn)).await?;
        }
        Ok(())
    }

    fn measure(&self, outcome: &'static str, begun: Instant) {
        let metrics = &self.ctx.metrics;
        metrics.move_turns.with_label_values(&[outcome]).inc();
        let took = begun.elapsed().as_secs_f64();
        let seconds = metrics.move_turn_seconds.with_label_values(&[outcome]);
        seconds.observe(took);
    }

    /// Stores the new owner, and has the old copies deleted. The caller has both shards' locks.
    async fn commit(&self, guard: &WriteGuard, ids: &mut IdsBySlot) -> Result<usize, MoveError> {
        let moved = ids.of(&self.slots);
        let count = |one: &mut Move| {
            one.moved += moved.len() as u64;
            one.copied = one.copied.max(one.moved);
            one.documents = one.moved + (ids.len() - moved.len()) as u64;
            one.bytes = self.copied.bytes.load(Ordering::Relaxed);
        };
        timed(self.ctx, Phase::Heard, self.store(count)).await?;
        ids.forget(&self.slots);
        self.handed_over(&moved);
        self.ctx.metrics.moved_documents.inc_by(moved.len() as u64);
        if moved.is_empty() {
            return Ok(0);
        }
        // Enqueued within this turn: a deletion by filter that comes next must not find them on both shards.
        let delete = Write::deletion(self.index, &moved);
        let deletion: Tasks = send(self.ctx, guard, self.from, delete).await?;
        self.behind.add(moved.len() as u64, deletion);
        Ok(moved.len())
    }

    /// Stores the new owner, and waits until every merger reads by it.
    async fn store(&self, count: impl FnOnce(&mut Move)) -> Result<(), MoveError> {
        let cluster = &self.ctx.cluster;
        let (placements, slots) = (&cluster.placements, self.slots.as_slice());
        let hand_over = async |extra| {
            let shards = [self.from, self.to];
            placements.hand_over(self.index, slots, shards, extra).await
        };
        if !cluster.moves.change_with(self.id, count, hand_over).await? {
            return Err(MoveError::Changed);
        }
        cluster.moves.logs.moved(self.index, slots);
        // A merger that reads by the old owner would miss these documents from here on.
        cluster.mergers_follow().await;
        Ok(())
    }
}
