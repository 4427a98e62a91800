//! Makes the copies of a batch on the new shard as the documents are on the old one.
//!
//! Where an id doesn't tell the slot, clients may give a document to either shard at any moment. So the documents themselves say
//! what belongs to the batch, what the new shard holds by right is left alone, and without both shards' locks nothing is written
//! that was written by somebody else since it was read.

use std::sync::atomic::Ordering;

use futures_util::future::{try_join, try_join_all};
use hashbrown::{HashMap, HashSet};
use serde_json::value::RawValue;

use super::batch::Batch;
use super::behind::Behind;
use super::ids::IdsBySlot;
use super::phase::{Phase, timed};
use super::send::{Tasks, Write, send};
use super::turn::{Locked, within};
use super::{MoveError, remote, replicas};
use crate::cluster::{NodeRef, Slotting, owns};
use crate::ids::Ids;
use crate::repair::resync::{Print, SourceGuard};

/// The largest body of one write, in bytes.
const BATCH_BYTES: usize = 4 << 20;

/// How many documents are read at once: a batch may have more than should be in memory.
const READ_AT_ONCE: usize = 2_000;

/// A document that is to be written: its id and its text on one line.
type Line = (String, Vec<u8>);

/// How many of these make up one write: as many as have [`BATCH_BYTES`], and one at least.
fn first_few(lines: &[Line]) -> usize {
    let mut bytes = 0;
    let full = lines.iter().position(|(_, text)| {
        bytes += text.len();
        bytes >= BATCH_BYTES
    });
    full.map_or(lines.len(), |last| last + 1)
}

impl Batch<'_> {
    fn slotting(&self) -> Result<Slotting<'_>, MoveError> {
        // The first documents came meanwhile.
        self.slotting.ok_or(MoveError::Changed)
    }

    /// Those of these ids that concern the batch: their documents are in its slots now, or the new shard may hold copies of them.
    /// Where an id doesn't tell its slot, the old shard is asked; `ids` learn what it says.
    pub(super) async fn concerned(
        &self,
        ids: &mut IdsBySlot,
        node: &NodeRef,
        written: &[String],
        locked: Option<&Locked<'_>>,
    ) -> Result<Vec<String>, MoveError> {
        let slotting = self.slotting()?;
        if slotting.is_by_id() {
            return Ok(written.to_vec());
        }
        let (old, fields) = (self.old(node), slotting.fields());
        let found = within(locked, old.fields_of(self.index, &fields, written)).await?;
        let mut here = HashMap::with_capacity(found.len());
        for told in found.iter().filter_map(|document| slotting.of(document)) {
            let unplaced = || MoveError::unplaced(self.index, &told.id, slotting);
            let slot = told.slot.ok_or_else(unplaced)?;
            here.insert(told.id, slot);
        }
        let copied = self.copied.ids();
        let mut concerned = Vec::new();
        for id in written {
            let slot = here.get(id.as_str()).copied();
            let is_left = |slot: &weft_routing::slot::Slot| self.left.binary_search(slot).is_ok();
            ids.put(id, slot.filter(is_left));
            let is_in_batch = slot.is_some_and(|slot| self.slots.binary_search(&slot).is_ok());
            if is_in_batch || copied.contains(id) {
                concerned.push(id.clone());
            }
        }
        Ok(concerned)
    }

    /// Makes these documents on every replica of the new shard as they are on a node of the old one, as far as they concern the
    /// batch, and looks whether they are. Returns those of which it wasn't seen. `locked` is the turn, if the caller has the locks;
    /// otherwise the caller sees to it that the nodes have applied what is to be found there.
    pub(super) async fn mend(
        &self,
        ids: &mut IdsBySlot,
        node: &NodeRef,
        doubtful: &[String],
        locked: Option<&Locked<'_>>,
    ) -> Result<Vec<String>, MoveError> {
        if doubtful.is_empty() {
            return Ok(Vec::new());
        }
        let slotting = self.slotting()?;
        let primary_key = slotting.key();
        let old = self.old(node);
        let unbroken = SourceGuard::of(self.ctx, node)?;
        let doubtful = self.concerned(ids, node, doubtful, locked).await?;
        // A cut from here on leaves writes that the new shard has yet to apply.
        self.copied.is_open.store(true, Ordering::Relaxed);
        let (mut prints, mut surplus) = (HashMap::new(), Vec::new());
        let (mut sent, mut tasks) = (Vec::new(), Vec::new());
        for (place, some) in doubtful.chunks(READ_AT_ONCE).enumerate() {
            if place > 0 && locked.is_none() {
                self.go_on()?;
                let limit = self.ctx.cluster.moves.options().bytes_per_second;
                let pause = tokio::time::sleep(self.copied.pause(limit));
                timed(self.ctx, Phase::Throttle, pause).await;
            }
            let copied = self.maybe_there(some);
            let read = async {
                let read = old.documents_of(self.index, some);
                timed(self.ctx, Phase::Read, within(locked, read)).await
            };
            let held = timed(self.ctx, Phase::Compare, self.held(&copied, locked));
            let (mut found, held) = try_join(read, held).await?;
            // What a replaced disk lacks must not be taken for deleted.
            within(locked, unbroken.check()).await?;
            found.retain(|document| {
                let told = slotting.of(document);
                let slot = told.and_then(|told| told.slot);
                let is_here = slot.is_some_and(|slot| self.slots.binary_search(&slot).is_ok());
                let print = Print::of(document, primary_key).filter(|_| is_here);
                // What clients have given to the new shard is there by right.
                let print = print.filter(|print| !held.by_right.contains(&print.id));
                let Some(print) = print else {
                    return false;
                };
                let differs = |replica: &HashMap<String, u64>| {
                    replica.get(&print.id).copied() != Some(print.content)
                };
                let differs = held.copies.iter().any(differs);
                if differs {
                    sent.push(print.id.clone());
                }
                prints.insert(print.id, print.content);
                differs
            });
            for replica in &held.copies {
                let gone = replica.keys().filter(|id| !prints.contains_key(*id));
                surplus.extend(gone.filter(|id| !held.by_right.contains(*id)).cloned());
            }
            let lines = self.lines(found.iter().map(AsRef::as_ref))?;
            tasks.extend(self.put(lines, locked).await?);
        }
        self.done(tasks, locked).await?;
        surplus.sort_unstable();
        surplus.dedup();
        sent.extend(surplus.iter().cloned());
        let deletion = |ids: &[String]| Write::deletion(self.index, ids);
        if let Some(tasks) = self.write(surplus, deletion, locked).await? {
            self.done(vec![tasks], locked).await?;
        }
        self.copied.is_open.store(false, Ordering::Relaxed);
        let held = timed(self.ctx, Phase::Compare, self.held(&sent, locked)).await?;
        sent.retain(|id| {
            let wanted = prints.get(id);
            held.by_right.contains(id) || held.copies.iter().any(|copy| copy.get(id) != wanted)
        });
        Ok(sent)
    }

    /// Those of these ids that the new shard may hold copies of. Where ids don't tell slots, clients may have given it any of them.
    fn maybe_there(&self, ids: &[String]) -> Vec<String> {
        if !self.is_by_id() {
            return ids.to_vec();
        }
        let copied = self.copied.ids();
        let ids = ids.iter().filter(|id| copied.contains(*id));
        ids.cloned().collect()
    }

    /// These documents as they are written: each with its id, on one line.
    fn lines<'a>(
        &self,
        documents: impl IntoIterator<Item = &'a RawValue>,
    ) -> Result<Vec<Line>, MoveError> {
        let slotting = self.slotting()?;
        let line = |document: &RawValue| {
            let id = slotting.of(document)?.id;
            // Line ends can only be between the fields, as JSON strings escape them.
            let text = document.get().bytes();
            let text = text.filter(|byte| *byte != b'\n' && *byte != b'\r');
            Some((id, text.collect()))
        };
        Ok(documents.into_iter().filter_map(line).collect())
    }

    /// What the replicas of the new shard hold of these documents.
    async fn held(&self, ids: &[String], locked: Option<&Locked<'_>>) -> Result<Held, MoveError> {
        let slotting = self.slotting()?;
        let placement = self.ctx.cluster.placement(self.index);
        let placement = placement.ok_or(MoveError::Gone)?;
        let replicas = replicas(self.ctx, self.to)?;
        let read = replicas.iter().map(async |replica| {
            let new = remote(self.ctx, replica);
            within(locked, new.documents_of(self.index, ids)).await
        });
        let mut held = Held::default();
        for documents in try_join_all(read).await? {
            let mut copies = HashMap::new();
            for document in documents {
                let Some(print) = Print::of(&document, slotting.key()) else {
                    continue;
                };
                let slot = slotting.of(&document).and_then(|told| told.slot);
                match slot.is_some_and(|slot| placement.slots.shard_of_slot(slot) == self.to) {
                    true => drop(held.by_right.insert(print.id)),
                    false => drop(copies.insert(print.id, print.content)),
                }
            }
            held.copies.push(copies);
        }
        Ok(held)
    }

    /// Sends documents to the new shard.
    async fn put(
        &self,
        lines: Vec<Line>,
        locked: Option<&Locked<'_>>,
    ) -> Result<Vec<Tasks>, MoveError> {
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        within(locked, self.make_room(lines.len())).await?;
        let primary_key = self.slotting()?.key();
        let ids = lines.iter().map(|(id, _)| id.clone());
        self.copied.ids().extend(ids);
        let (mut tasks, mut lines) = (Vec::new(), lines.as_slice());
        while !lines.is_empty() {
            let (some, rest) = lines.split_at(first_few(lines));
            lines = rest;
            let ids = some.iter().map(|(id, _)| id.clone()).collect();
            let texts: HashMap<&String, &Vec<u8>> =
                some.iter().map(|(id, text)| (id, text)).collect();
            let put = |ids: &[String]| {
                let (mut body, mut named) = (Vec::new(), Ids::default());
                for id in ids {
                    if let Some(text) = texts.get(id) {
                        body.extend_from_slice(text);
                        body.push(b'\n');
                        named.push(id);
                    }
                }
                let bytes = body.len() as u64;
                self.copied.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.ctx.metrics.moved_bytes.inc_by(bytes);
                Write::documents(self.index, primary_key, body, named)
            };
            tasks.extend(self.write(ids, put, locked).await?);
        }
        Ok(tasks)
    }

    /// Waits until so many old copies of earlier batches are gone that two shards don't hold too many documents.
    async fn make_room(&self, more: usize) -> Result<(), MoveError> {
        let most = super::batch_documents(self.ctx);
        // Those of the move before are older.
        for behind in self.before.iter().chain([&self.behind]) {
            while behind.documents() > 0 && self.surplus() + more > most {
                behind.oldest_gone(self.ctx).await?;
            }
        }
        Ok(())
    }

    /// How many documents two shards hold.
    fn surplus(&self) -> usize {
        let before = self.before.map_or(0, Behind::documents);
        self.copied.ids().len() + self.behind.documents() + before
    }

    async fn done(&self, tasks: Vec<Tasks>, locked: Option<&Locked<'_>>) -> Result<(), MoveError> {
        let done = tasks.iter().map(|tasks| tasks.done(self.ctx));
        let done = within(locked, try_join_all(done));
        timed(self.ctx, Phase::Write, done).await?;
        Ok(())
    }

    /// Sends a write of these documents to the new shard, without those that a client may have written meanwhile: they are noted,
    /// and come later.
    async fn write(
        &self,
        mut ids: Vec<String>,
        write: impl FnOnce(&[String]) -> Write,
        locked: Option<&Locked<'_>>,
    ) -> Result<Option<Tasks>, MoveError> {
        if ids.is_empty() {
            return Ok(None);
        }
        // Never cut off: some replicas would have it and others not.
        let tasks = match locked {
            Some(turn) => send(self.ctx, turn.guard, self.to, write(&ids)).await?,
            None => {
                let guard = self.ctx.locks.lock(&[self.to]).await;
                // By now, the name may be that of another index: a swap has the lock of this shard, too.
                let logs = &self.ctx.cluster.moves.logs;
                let now = self.ctx.cluster.placement(self.index);
                let is_owned = now.is_some_and(|now| owns(&now, &self.slots, self.from));
                if !is_owned || logs.is_broken(self.index) {
                    return Err(MoveError::Changed);
                }
                let touched = logs.touched(self.index, &ids);
                ids.retain(|id| !touched.contains(id));
                if ids.is_empty() {
                    return Ok(None);
                }
                send(self.ctx, &guard, self.to, write(&ids)).await?
            }
        };
        Ok(Some(tasks))
    }
}

/// What the replicas of the new shard hold.
#[derive(Default)]
struct Held {
    /// What each replica holds although the shard doesn't own its slot: ids and contents.
    copies: Vec<HashMap<String, u64>>,
    /// The ids of documents whose slots the shard owns.
    by_right: HashSet<String>,
}
