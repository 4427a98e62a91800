//! One move, from its beginning or from wherever an earlier attempt was cut off, until all of its slots have their new owner.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join;
use tokio::time::Instant;
use weft_routing::placement::ShardId;
use weft_routing::slot::Slot;

use super::applied::Applied;
use super::batch::{Batch, Copied};
use super::behind::Behind;
use super::ids::{IdsBySlot, Reading};
use super::phase::{Phase, timed};
use super::tail::Tail;
use super::{MoveError, Noting, batch_documents, join, primary_key, remote, source, sweep};
use crate::clock::now_utc;
use crate::cluster::{Move, MoveState, NodeId, NodeRef, Placement, Slotting, Told, until};
use crate::repair::Context;
use crate::repair::resync::SourceGuard;

/// Carries out a move until its slots have their new owner. Returns what is left of it. `before` is the move before it of the same
/// index, if old copies of that one are being deleted still.
///
/// # Errors
/// It can't go on now; what is moved stays moved.
pub(super) async fn run(
    ctx: &Arc<Context>,
    id: u64,
    before: Option<&Tail>,
) -> Result<Tail, MoveError> {
    let moves = &ctx.cluster.moves;
    let one = moves.get(id).ok_or(MoveError::Cancelled)?;
    let renamed = moves.logs.watch(&one.index);
    let placement = alive(ctx, &one.index)?;
    let behind = Behind::new(id);
    if before.is_none() {
        // What an earlier attempt has left would be counted twice.
        sweep::settle(ctx, &one.index).await?;
    }
    if one.cancelled {
        return Ok(Tail::new(&one, renamed, MoveState::Cancelled, behind));
    }
    let slots = left(&one, &placement);
    if slots.is_empty() {
        return Ok(Tail::new(&one, renamed, MoveState::Done, behind));
    }
    let first = |one: &mut Move| {
        one.state = MoveState::Preparing;
        one.started_at = one.started_at.or(Some(now_utc()));
        (one.copied, one.removed) = (one.moved, one.moved);
        one.error = None;
    };
    moves.change(id, first).await?;
    let run = Run {
        ctx,
        id,
        one,
        before: before.map(|before| &before.behind),
        behind,
        applied: Applied::default(),
    };
    let outcome = run.slots(slots).await;
    let settles = |one: &mut Move| one.state = MoveState::Settling;
    moves.show(id, settles).await;
    let state = outcome?;
    Ok(Tail::new(&run.one, renamed, state, run.behind))
}

/// The name under which filters leave an index to the merger.
const CHANGE: &str = "move";

/// Has every filter leave these indexes to the merger: one with an old routing table would ask the wrong shard.
pub(super) async fn leave_to_merger(ctx: &Context, indexes: &[String]) -> Result<(), MoveError> {
    let (moves, placements) = (&ctx.cluster.moves, &ctx.cluster.placements);
    placements.leave_to_merger(CHANGE, indexes, true).await?;
    ctx.cluster.filters_follow().await;
    moves.set_left_to_merger(indexes);
    Ok(())
}

/// Filters may use again what isn't moved any more.
pub(super) async fn give_back(ctx: &Context) -> Result<(), MoveError> {
    let (moves, placements) = (&ctx.cluster.moves, &ctx.cluster.placements);
    let live: BTreeSet<String> = moves
        .all()
        .into_iter()
        .filter(|one| !one.has_ended())
        .map(|one| one.index)
        .collect();
    let left = moves.left_to_merger();
    let back: Vec<String> = left.difference(&live).cloned().collect();
    if !back.is_empty() {
        placements.leave_to_merger(CHANGE, &back, false).await?;
        moves.give_back(&back);
    }
    Ok(())
}

/// The slots that the old shard still has.
fn left(one: &Move, placement: &Placement) -> Vec<Slot> {
    let is_left = |slot: &&Slot| placement.slots.shard_of_slot(**slot) == one.from;
    one.slots.iter().filter(is_left).copied().collect()
}

/// The placement of an index that isn't being deleted.
pub(super) fn alive(ctx: &Context, index: &str) -> Result<Arc<Placement>, MoveError> {
    match ctx.cluster.placement(index) {
        None => Err(MoveError::Gone),
        Some(placement) if placement.deleted_by.is_some() => Err(MoveError::Changed),
        Some(placement) => Ok(placement),
    }
}

/// Reads the ids of all documents in these slots on their shard. The caller has what is written noted. Returns which node was read,
/// and how often it had been away before.
pub(super) async fn read_all(
    ctx: &Context,
    index: &str,
    from: ShardId,
    slotting: Slotting<'_>,
    slots: &[Slot],
    ids: &mut IdsBySlot,
) -> Result<(NodeId, u64), MoveError> {
    let node = source(ctx, from)?;
    let doubts = ctx.cluster.health.doubts(&node.id);
    // A document that a replaced disk lacks would be left behind.
    let unbroken = SourceGuard::of(ctx, &node)?;
    let wanted = |slot: Slot| slots.binary_search(&slot).is_ok();
    let reading = Reading {
        remote: remote(ctx, &node),
        index,
        slotting,
    };
    let unplaced = |told: &Told| Err(MoveError::unplaced(index, &told.id, slotting));
    ids.read(&reading, wanted, unplaced).await?;
    unbroken.check().await?;
    Ok((node.id, doubts))
}

struct Run<'a> {
    ctx: &'a Arc<Context>,
    id: u64,
    one: Move,
    /// What the move before has left.
    before: Option<&'a Behind>,
    behind: Behind,
    applied: Applied,
}

impl Run<'_> {
    /// Waits until filters leave the index to the merger.
    async fn left_to_merger(&self) -> Result<(), MoveError> {
        let moves = &self.ctx.cluster.moves;
        let left = || match moves.left_to_merger().contains(&self.one.index) {
            true => Some(Ok(())),
            false => self.stopped().map(Err),
        };
        until([&moves.changes], left).await
    }

    /// Both shards get what they lack of the index, and filters leave it to the merger meanwhile.
    /// Returns also what the shards' part has taken.
    async fn prepare(&self) -> Result<(NodeRef, Arc<Placement>, Duration), MoveError> {
        let Move {
            index, from, to, ..
        } = &self.one;
        let placements = &self.ctx.cluster.placements;
        placements.set_unsettled(index, &[*from], true).await?;
        let node = source(self.ctx, *from)?;
        let placement = alive(self.ctx, index)?;
        let complete = async |shard: &ShardId| match placement.shards().contains(shard) {
            true => join::complete(self.ctx, &placement, *shard).await,
            false => Ok(()),
        };
        let joined = async {
            let begun = Instant::now();
            try_join(complete(from), complete(to)).await?;
            match placement.shards().contains(to) {
                true => placements.set_unsettled(index, &[*to], true).await?,
                false => join::join(self.ctx, &node, &placement, *to).await?,
            }
            Ok(begun.elapsed())
        };
        let ((), took) = try_join(self.left_to_merger(), joined).await?;
        // A merger that doesn't know yet that a shard is unsettled would take copies there for documents of the shard's own.
        self.ctx.cluster.mergers_follow().await;
        Ok((node, placement, took))
    }

    async fn slots(&self, mut slots: Vec<Slot>) -> Result<MoveState, MoveError> {
        let Move {
            index, from, to, ..
        } = &self.one;
        let (from, to) = (*from, *to);
        let moves = &self.ctx.cluster.moves;
        let (node, placement, took) = timed(self.ctx, Phase::Prepare, self.prepare()).await?;
        let begun = Instant::now();
        let primary_key = primary_key(self.ctx, &placement, &node).await?;
        // From here on, no write is on its way that isn't noted. Where an id doesn't tell the slot, a client's write may bring a
        // document to either shard.
        let strategy = placement.slots.strategy();
        let noted = match strategy.field() {
            Some(_) => vec![from, to],
            None => vec![from],
        };
        let begin = || moves.logs.begin(&noted, index, strategy, &slots);
        self.ctx.locks.between_writes(from, begin).await;
        let _noting = Noting {
            ctx: self.ctx,
            index,
        };
        let slotting = primary_key
            .as_deref()
            .map(|key| Slotting::new(strategy, key));
        let mut ids = IdsBySlot::default();
        if let Some(slotting) = slotting {
            let all = read_all(self.ctx, index, from, slotting, &slots, &mut ids);
            let node = timed(self.ctx, Phase::List, all).await?;
            self.applied.set([node]).await;
        }
        let counted = ids.len() as u64;
        let count = |one: &mut Move| one.documents = one.moved + counted;
        moves.change(self.id, count).await?;
        let took = (took + begun.elapsed()).as_secs_f64();
        moves.learn(|pace| pace.learn_around(took));
        self.batches((slotting, &mut ids), &mut slots).await
    }

    /// Moves the slots batch by batch.
    async fn batches(
        &self,
        (slotting, ids): (Option<Slotting<'_>>, &mut IdsBySlot),
        slots: &mut Vec<Slot>,
    ) -> Result<MoveState, MoveError> {
        let moves = &self.ctx.cluster.moves;
        let limit = moves.options().bytes_per_second;
        let copied = Copied::new(self.one.bytes, limit);
        let mut size = batch_documents(self.ctx);
        while !slots.is_empty() {
            let (some, rests) = self.next(ids, slots, size);
            let mut batch = Batch {
                ctx: self.ctx,
                id: self.id,
                index: &self.one.index,
                slotting,
                from: self.one.from,
                to: self.one.to,
                left: slots,
                slots: some,
                rests,
                copied: &copied,
                before: self.before,
                behind: &self.behind,
                applied: &self.applied,
                has_shrunk: false,
            };
            let begun = Instant::now();
            let outcome = match self.stopped() {
                None => batch.hand_over(ids).await,
                Some(stopped) => Err(stopped),
            };
            if let Err(error @ (MoveError::Cancelled | MoveError::Paused)) = outcome {
                batch.withdraw().await?;
                return Ok(match error {
                    MoveError::Cancelled => MoveState::Cancelled,
                    _ => MoveState::Waiting,
                });
            }
            let moved = outcome?;
            let (done, has_shrunk) = (batch.slots, batch.has_shrunk);
            slots.retain(|slot| done.binary_search(slot).is_err());
            // What was too much for a turn will be so the next time, and may not be later.
            size = match has_shrunk {
                true => moved.max(1),
                false => (size * 2).min(batch_documents(self.ctx)),
            };
            let pause = copied.pause(moves.options().bytes_per_second);
            timed(self.ctx, Phase::Throttle, tokio::time::sleep(pause)).await;
            let took = begun.elapsed().as_secs_f64();
            moves.learn(|pace| pace.learn(moved as u64, took));
        }
        Ok(MoveState::Done)
    }

    /// The slots of the next batch, and whether nothing was written to most of their documents since the notes began. Slots at rest
    /// come first. The others come with the last of them, so that a move ends in one go if it can.
    fn next(&self, ids: &IdsBySlot, slots: &[Slot], size: usize) -> (Vec<Slot>, bool) {
        let moves = &self.ctx.cluster.moves;
        let resting = moves.logs.look(&self.one.index, |noted| {
            match noted.all || noted.unknown || noted.broken {
                true => Vec::new(),
                false => ids.at_rest(slots, noted),
            }
        });
        // Without a limit, one half of what two shards may hold is copied while the old copies of the other half are deleted. That
        // keeps both shards busy, and searches there wait.
        let half = match moves.options().bytes_per_second {
            None => size.min(batch_documents(self.ctx).div_ceil(2)),
            Some(_) => size,
        };
        let resting = resting.unwrap_or_default();
        let (at_rest, all) = (ids.count(&resting), ids.count(slots));
        let some = ids.batch(&resting, half);
        match !some.is_empty() && 2 * ids.count(&some) >= half.min(all) {
            true if at_rest <= half && all <= size => (slots.to_vec(), true),
            true => (some, true),
            false => (ids.batch(slots, size), false),
        }
    }

    /// Whether the move must not go on.
    fn stopped(&self) -> Option<MoveError> {
        let moves = &self.ctx.cluster.moves;
        if moves.get(self.id).is_none_or(|one| one.cancelled) {
            return Some(MoveError::Cancelled);
        }
        moves.options().paused.then_some(MoveError::Paused)
    }
}
