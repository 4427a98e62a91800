//! Merged writes, kept until their node task has ended: a failed one is taken apart again.
//!
//! A write may only be repeated if nothing newer was written to its documents; a clock tells what came after what. Whoever
//! notes a write, and whoever asks what is newer, has the shard's turn.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

use super::Small;
use crate::cluster::NodeId;
use crate::ids::Ids;

/// How many bytes of merged writes are kept until their tasks end; beyond that, writes go alone.
pub(super) const HELD_BYTES: usize = 64 << 20;
/// What keeping a write takes beside its documents: its headers, its path, its ids twice.
const OVERHEAD_BYTES: usize = 1 << 10;
/// So many ids of an index may be noted in vain before they are gone through.
const VAIN_IDS: usize = 1 << 10;

fn bytes(small: &Small) -> usize {
    small.documents.len() + OVERHEAD_BYTES
}

/// Merged writes whose tasks haven't ended.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) groups: HashMap<(NodeId, u32), Group>,
    pub(super) bytes: usize,
    /// Counts writes, to tell what came after what.
    clock: u64,
    /// What was written to an index of which something is held.
    pub(super) indexes: HashMap<String, Written>,
}

#[derive(Debug)]
pub(super) struct Group {
    shard: ShardId,
    members: Vec<Option<Small>>,
    /// The clock when it was sent.
    at: u64,
}

#[derive(Debug, Default)]
pub(super) struct Written {
    /// When each group was sent of which something is held, and of how many writes.
    groups: BTreeMap<u64, usize>,
    /// The last write whose ids aren't known.
    other: u64,
    /// The last write of each id; those that came before all that is held are forgotten now and then.
    pub(super) ids: HashMap<String, u64>,
    /// How many ids there were when they were gone through last.
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
        // Under writes that never pause, the index is never without something held.
        if self.ids.len() > 2 * self.gone_through + VAIN_IDS
            && let Some((oldest, _)) = self.groups.first_key_value()
        {
            self.ids.retain(|_, last| *last > *oldest);
            self.gone_through = self.ids.len();
        }
    }
}

/// A merged write whose task has ended. It is held until it is [`done`](Held::done) with.
pub(super) struct Taken {
    pub(super) shard: ShardId,
    pub(super) small: Small,
    at: u64,
}

impl Held {
    /// Keeps what a node task was merged from.
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

    /// Notes a write of these documents that isn't kept; of documents that aren't known, without ids.
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

    /// Notes that indexes come, go or change their names.
    pub(super) fn note_all(&mut self) {
        self.clock += 1;
        for written in self.indexes.values_mut() {
            written.other = self.clock;
        }
    }

    /// Gives one of them back, once.
    pub(super) fn take(&mut self, task: &(NodeId, u32), place: u32) -> Option<Taken> {
        let group = self.groups.get_mut(task)?;
        let small = group.members.get_mut(place as usize)?.take()?;
        let (shard, at) = (group.shard, group.at);
        if group.members.iter().all(Option::is_none) {
            self.groups.remove(task);
        }
        Some(Taken { shard, small, at })
    }

    /// Whether something newer was written to its documents, or may have been.
    pub(super) fn is_overtaken(&self, taken: &Taken) -> bool {
        let Taken { small, at, .. } = taken;
        let written = self.indexes.get(&small.kind.placement.uid);
        written.is_some_and(|written| {
            let mut ids = small.ids.iter();
            written.other > *at || ids.any(|id| written.ids.get(id).is_some_and(|last| last > at))
        })
    }

    /// Holds it no longer: it was applied, sent again or given up.
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
