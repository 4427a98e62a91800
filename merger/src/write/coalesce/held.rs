//! Merged writes, kept until their node task has ended: a failed one is taken apart again.
//!
//! A write may only be repeated if nothing newer was written to its documents; a clock tells what came after what.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

use super::Small;
use crate::cluster::NodeId;

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
    /// When each group was sent that is held, the oldest first.
    groups: BTreeSet<u64>,
    /// The last write that was not merged: its ids aren't known.
    other: u64,
    /// The last merged write of each id; those that came before all that is held are forgotten now and then.
    ids: HashMap<String, u64>,
    /// How many ids there were when they were gone through last.
    gone_through: usize,
}

impl Written {
    /// Forgets what can overtake nobody: under writes that never pause, the index is never without something held.
    fn forget(&mut self) {
        if self.ids.len() > 2 * self.gone_through + VAIN_IDS
            && let Some(oldest) = self.groups.first()
        {
            self.ids.retain(|_, last| *last > *oldest);
            self.gone_through = self.ids.len();
        }
    }
}

/// A merged write whose task has ended.
pub(super) struct Taken {
    pub(super) shard: ShardId,
    pub(super) small: Small,
    /// Whether something newer was written to its documents, or may have been.
    pub(super) overtaken: bool,
}

impl Held {
    /// Keeps what a node task was merged from.
    pub(super) fn keep(&mut self, task: (NodeId, u32), shard: ShardId, smalls: Vec<Small>) {
        self.clock += 1;
        let at = self.clock;
        self.bytes += smalls.iter().map(bytes).sum::<usize>();
        if let Some(first) = smalls.first() {
            let written = self
                .indexes
                .entry(first.kind.index_uid.clone())
                .or_default();
            written.groups.insert(at);
            written.forget();
            for id in smalls.iter().flat_map(|small| small.ids.iter()) {
                match written.ids.get_mut(id) {
                    Some(last) => *last = at,
                    None => drop(written.ids.insert(id.to_owned(), at)),
                }
            }
        }
        self.groups.insert(
            task,
            Group {
                shard,
                members: smalls.into_iter().map(Some).collect(),
                at,
            },
        );
    }

    /// Notes a write that isn't merged.
    pub(super) fn note_other(&mut self, index_uid: &str) {
        self.clock += 1;
        if let Some(written) = self.indexes.get_mut(index_uid) {
            written.other = self.clock;
        }
    }

    /// Gives one of them back, once.
    pub(super) fn take(&mut self, task: &(NodeId, u32), place: u32) -> Option<Taken> {
        let group = self.groups.get_mut(task)?;
        let small = group.members.get_mut(place as usize)?.take()?;
        let (shard, at) = (group.shard, group.at);
        let over = group.members.iter().all(Option::is_none);
        self.bytes = self.bytes.saturating_sub(bytes(&small));
        let index = &small.kind.index_uid;
        let overtaken = self.indexes.get(index).is_some_and(|written| {
            written.other > at
                || small
                    .ids
                    .iter()
                    .any(|id| written.ids.get(id).is_some_and(|last| *last > at))
        });
        if over {
            self.groups.remove(task);
            if let Some(written) = self.indexes.get_mut(index) {
                written.groups.remove(&at);
                if written.groups.is_empty() {
                    self.indexes.remove(index);
                }
            }
        }
        Some(Taken {
            shard,
            small,
            overtaken,
        })
    }

    #[cfg(test)]
    pub(super) fn noted_ids(&self, index_uid: &str) -> usize {
        let written = self.indexes.get(index_uid);
        written.map_or(0, |written| written.ids.len())
    }
}
