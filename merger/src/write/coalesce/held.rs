//! Keeps merged writes until their node task has ended, so that a failed task's writes can be repeated one by one.
//!
//! A write may only be repeated if nothing newer was written to its documents; a clock orders the writes. The caller that notes
//! a write, or asks whether a newer one exists, holds the shard's lock.

use std::collections::BTreeMap;

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

#[derive(Debug)]
pub(super) struct Group {
    shard: ShardId,
    members: Vec<Option<Small>>,
    /// The clock when the group was sent.
    at: u64,
}

#[derive(Debug, Default)]
pub(super) struct Written {
    /// For each group with a held write: the clock when it was sent, and how many of its writes are held.
    groups: BTreeMap<u64, usize>,
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
            && let Some((oldest, _)) = self.groups.first_key_value()
        {
            self.ids.retain(|_, last| *last > *oldest);
            self.gone_through = self.ids.len();
        }
    }
}

/// A merged write whose task has ended. It counts as held until [`done`](Held::done) is called.
pub(super) struct Taken {
    pub(super) shard: ShardId,
    pub(super) small: Small,
    at: u64,
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
        written.groups.insert(at, smalls.len());
        written.note(smalls.iter().flat_map(|small| small.ids.iter()), at);
        self.groups.insert(
            task,
            Group {
                shard,
                members: smalls.into_iter().map(Some).collect(),
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

    /// Removes and returns the write at `place` in a task's group; `None` if it was taken before.
    pub(super) fn take(&mut self, task: &(NodeId, u32), place: u32) -> Option<Taken> {
        let group = self.groups.get_mut(task)?;
        let small = group.members.get_mut(place as usize)?.take()?;
        let (shard, at) = (group.shard, group.at);
        if group.members.iter().all(Option::is_none) {
            self.groups.remove(task);
        }
        Some(Taken { shard, small, at })
    }

    /// Whether something newer was written to the write's documents, or may have been.
    pub(super) fn is_overtaken(&self, taken: &Taken) -> bool {
        let Taken { small, at, .. } = taken;
        let written = self.indexes.get(&small.kind.placement.uid);
        written.is_some_and(|written| {
            let mut ids = small.ids.iter();
            written.other > *at || ids.any(|id| written.ids.get(id).is_some_and(|last| last > at))
        })
    }

    /// Stops counting the write as held: it was applied, sent again or given up.
    pub(super) fn done(&mut self, taken: &Taken) {
        let Taken { small, at, .. } = taken;
        self.bytes = self.bytes.saturating_sub(bytes(small));
        let index = &small.kind.placement.uid;
        let Some(written) = self.indexes.get_mut(index) else {
            return;
        };
        if let Some(left) = written.groups.get_mut(at) {
            *left -= 1;
            if *left == 0 {
                written.groups.remove(at);
            }
        }
        if written.groups.is_empty() {
            self.indexes.remove(index);
        }
    }
}
