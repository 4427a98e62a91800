//! One batch of slots: copied, compared, and handed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use tokio::time::{Instant, timeout_at};
use weft_routing::document_id::DocumentId;
use weft_routing::placement::ShardId;
use weft_routing::slot::Slot;
use weft_routing::strategy::Strategy;

use super::ids::IdsBySlot;
use super::send::{Tasks, Write, send};
use super::{AGAIN, FEW, MoveError, TURN, join, remote, replicas, source};
use crate::cluster::{Move, MoveState, NodeRef, Noted, owns, until};
use crate::ids::Ids;
use crate::repair::Context;
use crate::repair::resync::{Print, Remote, SourceGuard};
use crate::replication::{WriteGuard, settle_doubt};

/// How often documents are copied before it is said that they can't be made equal.
const ATTEMPTS: usize = 20;
/// The largest body of one write, in bytes.
const BATCH_BYTES: usize = 4 << 20;

/// A batch of slots.
pub(super) struct Batch<'a> {
    pub(super) ctx: &'a Arc<Context>,
    pub(super) id: u64,
    pub(super) index: &'a str,
    /// How the index's documents get their slots.
    pub(super) strategy: &'a Strategy,
    /// The primary key; `None` if the index has no documents yet.
    pub(super) primary_key: Option<&'a str>,
    pub(super) from: ShardId,
    pub(super) to: ShardId,
    pub(super) slots: Vec<Slot>,
    /// The bytes copied so far.
    pub(super) bytes: &'a AtomicU64,
}

/// A turn: both shards' locks, and until when it may take.
struct Locked<'a> {
    guard: &'a WriteGuard,
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

async fn within<T, E>(
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
    pub(super) async fn withdraw(&self, ids: &IdsBySlot) -> Result<(), MoveError> {
        let guard = self.ctx.locks.lock(&[self.to]).await;
        let placement = self.ctx.cluster.placement(self.index);
        let is_stranger = placement.is_some_and(|index| owns(&index, &self.slots, self.from));
        if !is_stranger {
            return Err(MoveError::Changed);
        }
        let ids = ids.of(&self.slots);
        let tasks = send(self.ctx, &guard, self.to, Write::deletion(self.index, &ids)).await?;
        drop(guard);
        tasks.done(self.ctx).await
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
        logs.take(self.from, self.index, &self.slots)
    }

    /// Notes of these ids, as if they had been written.
    fn noted_of(&self, ids: &[String]) -> Noted {
        let mut noted = Noted::default();
        for id in ids {
            let document = DocumentId::from_text(id).ok();
            let slot = document.and_then(|document| self.strategy.slot_of(&document));
            if let Some(slot) = slot {
                noted.ids.entry(slot).or_default().insert(id.clone());
            }
        }
        noted
    }

    fn put_back(&self, noted: Noted) {
        let logs = &self.ctx.cluster.moves.logs;
        logs.put_back(self.from, self.index, noted);
    }

    /// Copies all documents of the batch until every replica of the new shard was seen to hold them as the old shard does, apart from
    /// a few, which the turn compares again.
    async fn copy(&self, ids: &mut IdsBySlot) -> Result<(), MoveError> {
        let mut differing = None::<Vec<String>>;
        for _ in 0..ATTEMPTS {
            let noted = self.take_between_writes().await;
            if noted.broken {
                return Err(MoveError::Changed);
            }
            ids.add(&noted);
            let mut doubtful = match differing {
                Some(mut differing) if !noted.all => {
                    differing.extend(written(&noted));
                    differing
                }
                _ => ids.of(&self.slots),
            };
            doubtful.sort_unstable();
            doubtful.dedup();
            let node = source(self.ctx, self.from)?;
            // If this fails, the move begins anew.
            let found = self.mend(&node, &doubtful, None).await?;
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
            if noted.broken {
                return Err(MoveError::Changed);
            }
            ids.add(&noted);
            if noted.all {
                return self.copy(ids).await;
            }
            let written = written(&noted);
            let node = source(self.ctx, self.from)?;
            match self.mend(&node, &written, None).await {
                // The turn compares them again.
                Ok(found) => self.put_back(self.noted_of(&found)),
                Err(error) => {
                    self.put_back(noted);
                    return Err(error);
                }
            }
            if written.len() <= FEW / 4 {
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
        self.old(&node).applied().await?;
        for other in replicas(self.ctx, self.to)? {
            remote(self.ctx, &other).applied().await?;
        }
        let placement = self.ctx.cluster.placement(self.index);
        let placement = placement.ok_or(MoveError::Gone)?;
        let mut shards: Vec<ShardId> = placement.shards().to_vec();
        // A change of settings must not pass between the last look at them and the moment from which the new shard gets it.
        match placement.shards().contains(&self.to) {
            true => shards = vec![self.from, self.to],
            false => shards.push(self.to),
        }
        let guard = self.ctx.locks.lock(&shards).await;
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
        if self.primary_key.is_none() && now.primary_key.is_some() {
            return Err(MoveError::Changed);
        }
        let joins = !now.shards().contains(&self.to);
        let noted = self.take();
        if noted.broken {
            return Err(MoveError::Changed);
        }
        ids.add(&noted);
        let written = written(&noted);
        if noted.all || written.len() > FEW {
            self.measure("too-soon", begun);
            self.put_back(noted);
            return Ok(Turn::TooSoon);
        }
        let turn = Locked {
            guard: &guard,
            until: Instant::now() + TURN,
        };
        let mending = async {
            let unbroken = SourceGuard::of(self.ctx, &node)?;
            turn.within(self.old(&node).applied()).await?;
            turn.within(unbroken.check()).await?;
            if !written.is_empty() {
                while !self.mend(&node, &written, Some(&turn)).await?.is_empty() {}
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
        deletion.done(self.ctx).await?;
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
        cluster.moves.logs.moved(self.from, self.index, slots);
        self.ctx.metrics.moved_documents.inc_by(moved.len() as u64);
        // A merger that reads by the old owner would miss these documents from here on.
        let epoch = placements.epoch().0;
        cluster.mergers.until_all_serve(epoch).await;
        if moved.is_empty() {
            return Ok(Tasks::default());
        }
        // Enqueued within this turn: a deletion by filter that comes next must not find them on both shards.
        let delete = Write::deletion(self.index, &moved);
        send(self.ctx, guard, self.from, delete).await
    }

    fn old<'a>(&'a self, node: &'a NodeRef) -> Remote<'a> {
        remote(self.ctx, node)
    }

    /// Makes these documents on every replica of the new shard as they are on a node of the old one. Returns those that differed
    /// before that. `locked` is the turn, if the caller has the locks.
    async fn mend(
        &self,
        node: &NodeRef,
        ids: &[String],
        locked: Option<&Locked<'_>>,
    ) -> Result<Vec<String>, MoveError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // The first documents came meanwhile.
        let primary_key = self.primary_key.ok_or(MoveError::Changed)?;
        let old = self.old(node);
        let unbroken = SourceGuard::of(self.ctx, node)?;
        if locked.is_none() {
            old.applied().await?;
        }
        let wanted = within(locked, old.documents_of(self.index, ids)).await?;
        // What a replaced disk lacks must not be taken for deleted.
        within(locked, unbroken.check()).await?;
        let mut prints = HashMap::with_capacity(wanted.len());
        for (place, document) in wanted.iter().enumerate() {
            if let Some(print) = Print::of(document, primary_key) {
                prints.insert(print.id, (print.content, place));
            }
        }
        // Which differ on any replica, and which are surplus on any.
        let (mut differing, mut surplus) = (vec![false; wanted.len()], Vec::new());
        for replica in replicas(self.ctx, self.to)? {
            let new = remote(self.ctx, &replica);
            if locked.is_none() {
                new.applied().await?;
            }
            let held = within(locked, new.documents_of(self.index, ids)).await?;
            let held = held
                .iter()
                .filter_map(|document| Print::of(document, primary_key));
            let held: HashMap<String, u64> = held.map(|print| (print.id, print.content)).collect();
            for (id, (content, place)) in &prints {
                if held.get(id) != Some(content)
                    && let Some(flag) = differing.get_mut(*place)
                {
                    *flag = true;
                }
            }
            let gone = held.into_keys().filter(|id| !prints.contains_key(id));
            surplus.extend(gone);
        }
        surplus.sort_unstable();
        surplus.dedup();
        let mut writes = Vec::new();
        let (mut lines, mut named) = (Vec::new(), Ids::default());
        let mut of_place: HashMap<usize, &str> = HashMap::with_capacity(prints.len());
        of_place.extend(prints.iter().map(|(id, (_, place))| (*place, id.as_str())));
        for (place, document) in wanted.iter().enumerate() {
            if differing.get(place) != Some(&true) {
                continue;
            }
            // Line ends can only be between the fields, as JSON strings escape them.
            let text = document.get().bytes();
            lines.extend(text.filter(|byte| *byte != b'\n' && *byte != b'\r'));
            lines.push(b'\n');
            if let Some(id) = of_place.get(&place) {
                named.push(id);
            }
            if lines.len() >= BATCH_BYTES {
                writes.push((std::mem::take(&mut lines), std::mem::take(&mut named)));
            }
        }
        if !lines.is_empty() {
            writes.push((lines, named));
        }
        let changed = of_place
            .iter()
            .filter(|(place, _)| differing.get(**place) == Some(&true));
        let mut found: Vec<String> = changed.map(|(_, id)| (*id).to_owned()).collect();
        found.extend(surplus.iter().cloned());
        for (lines, named) in writes {
            let bytes = lines.len() as u64;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.ctx.metrics.moved_bytes.inc_by(bytes);
            let write = Write::documents(self.index, primary_key, lines, named);
            self.write(write, locked).await?;
        }
        if !surplus.is_empty() {
            let deletion = Write::deletion(self.index, &surplus);
            self.write(deletion, locked).await?;
        }
        Ok(found)
    }

    async fn write(&self, write: Write, locked: Option<&Locked<'_>>) -> Result<(), MoveError> {
        // Never cut off: some replicas would have it and others not.
        let tasks = match locked {
            Some(turn) => send(self.ctx, turn.guard, self.to, write).await?,
            None => {
                let guard = self.ctx.locks.lock(&[self.to]).await;
                // By now, the name may be that of another index: a swap has the lock of this shard, too.
                let logs = &self.ctx.cluster.moves.logs;
                let now = self.ctx.cluster.placement(self.index);
                let is_owned = now.is_some_and(|now| owns(&now, &self.slots, self.from));
                if !is_owned || logs.is_broken(self.from, self.index) {
                    return Err(MoveError::Changed);
                }
                send(self.ctx, &guard, self.to, write).await?
            }
        };
        within(locked, tasks.done(self.ctx)).await
    }
}

fn written(noted: &Noted) -> Vec<String> {
    noted.ids.values().flatten().cloned().collect()
}
