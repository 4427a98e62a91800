//! Keeps merged writes until their node task has ended, so that a failed task's writes can be repeated one by one.
//!
//! A write may only be repeated if nothing newer was written to its documents; a clock orders the writes. The caller that notes
//! a write, or asks whether a newer one exists, holds the shard's lock.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

use super::Small;
use crate::cluster::NodeId;
use crate::ids::Ids;

/// How many bytes of merged writes are kept until their tasks end; beyond that, writes aren't merged.
pub(super) const HELD_BYTES: usize = 64 << 20;
/// The cost of keeping a write besides its documents: its headers, its path, its ids twice.
const OVERHEAD_BYTES: usize = 1 << 10;
/// How many ids of an index may be noted, beyond twice those that were left last time, before the outdated ones are dropped.
const OUTDATED_IDS: usize = 1 << 10;

fn bytes(small: &Small) -> usize {
    small.documents.len() + OVERHEAD_BYTES
}

/// Merged writes whose tasks haven't ended.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) groups: HashMap<(NodeId, u32), Group>,
    pub(super) bytes: usize,
    /// Counts writes, so that they can be ordered.
    clock: u64,
    /// By index, the writes since the oldest one held; only for indexes of which a write is held.
    pub(super) indexes: HashMap<String, Written>,
}

/// Writes that went together. They count as held until [`done`](Held::done) is called.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) shard: ShardId,
    /// The writes, in the order in which they were sent.
    pub(super) members: Vec<Small>,
    /// The clock when the group was sent.
    at: u64,
}

#[derive(Debug, Default)]
pub(super) struct Written {
    /// For each held group: the clock when it was sent.
    groups: BTreeSet<u64>,
    /// The clock of the last write whose ids aren't known.
    other: u64,
    /// The clock of each id's last write; entries older than all held writes are dropped now and then.
    pub(super) ids: HashMap<String, u64>,
    /// How many ids were left when outdated ones were last dropped.
    gone_through: usize,
}

impl Written {
    fn note<'a>(&mut self, ids: impl Iterator<Item = &'a str>, at: u64) {
        for id in ids {
            match self.ids.get_mut(id) {
                Some(last) => *last = at,
                None => drop(self.ids.insert(id.to_owned(), at)),
            }
        }
        // If writes never pause, some write of the index is always held, so its entry is never removed as a whole.
        if self.ids.len() > 2 * self.gone_through + OUTDATED_IDS
            && let Some(oldest) = self.groups.first()
        {
            self.ids.retain(|_, last| *last > *oldest);
            self.gone_through = self.ids.len();
        }
    }
}

impl Held {
    /// Keeps the writes that a node task was merged from.
    pub(super) fn keep(&mut self, task: (NodeId, u32), shard: ShardId, smalls: Vec<Small>) {
        let Some(first) = smalls.first() else { return };
        self.clock += 1;
        let at = self.clock;
        self.bytes += smalls.iter().map(bytes).sum::<usize>();
        let index = first.kind.placement.uid.clone();
        let written = self.indexes.entry(index).or_default();
        written.groups.insert(at);
        written.note(smalls.iter().flat_map(|small| small.ids.iter()), at);
        self.groups.insert(
            task,
            Group {
                shard,
                members: smalls,
                at,
            },
        );
    }

    /// Notes a write that isn't kept: with its documents' ids, or with `None` if they aren't known.
    pub(super) fn note(&mut self, index_uid: &str, ids: Option<&Ids>) {
        self.clock += 1;
        let Some(written) = self.indexes.get_mut(index_uid) else {
            return;
        };
        match ids {
            Some(ids) => written.note(ids.iter(), self.clock),
            None => written.other = self.clock,
        }
    }

    /// Notes that indexes are created, deleted or renamed.
    pub(super) fn note_all(&mut self) {
        self.clock += 1;
        for written in self.indexes.values_mut() {
            written.other = self.clock;
        }
    }

    /// Removes and returns the writes of a task that has ended; `None` if they were taken before.
    pub(super) fn take(&mut self, task: &(NodeId, u32)) -> Option<Group> {
        self.groups.remove(task)
    }

    /// Whether something newer was written to the documents of a write of the group, or may have been.
    pub(super) fn is_overtaken(&self, group: &Group, small: &Small) -> bool {
        let at = group.at;
        let written = self.indexes.get(&small.kind.placement.uid);
        written.is_some_and(|written| {
            let mut ids = small.ids.iter();
            written.other > at || ids.any(|id| written.ids.get(id).is_some_and(|last| *last > at))
        })
    }

    /// Stops counting the writes as held: they were applied, sent again or given up.
    pub(super) fn done(&mut self, group: &Group) {
        let Group { members, at, .. } = group;
        let held: usize = members.iter().map(bytes).sum();
        self.bytes = self.bytes.saturating_sub(held);
        let Some(first) = members.first() else { return };
        let index = &first.kind.placement.uid;
        let Some(written) = self.indexes.get_mut(index) else {
            return;
        };
        written.groups.remove(at);
        if written.groups.is_empty() {
            self.indexes.remove(index);
        }
    }
}
