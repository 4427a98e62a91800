//! Shards whose replicas may differ, because nobody knows which of them took a write: Envoy went away in the middle of it, or
//! answers were lost.
//!
//! If at least one replica confirmed a write, the replicas that didn't are removed from the in-sync set. If none did, the client
//! is told that the write failed, but some replicas may have it. Before the shard's next write, and as soon as a node answers,
//! the merger compares what the replicas have taken beyond the acknowledged writes. A replica that differs from the first, or
//! doesn't answer, is removed: after the next write the difference could no longer be seen.
//!
//! If a node gives a write a number that isn't the next one, it has tasks that the merger doesn't know: a write that was cut off
//! but arrived after all, or one made by hand. If they change anything, the shard's replicas may differ by them.
//!
//! A shard may also have a write fence: it has a change that other shards may not have yet. Nothing is written to it until all
//! shards have the change.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

use super::{Changes, NodeId};

/// Shards whose replicas may differ by a write that was not acknowledged, and shards with a write fence.
#[derive(Default)]
pub struct InDoubt {
    shards: Mutex<HashMap<ShardId, Doubt>>,
    /// For each holder, the shards that it fences and whether reads continue there.
    held: Mutex<HashMap<String, (BTreeSet<ShardId>, ReadPolicy)>>,
    /// Tells of changes of write fences.
    pub(crate) changes: Changes,
}

/// What has to be checked at a shard in doubt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubt {
    /// A write was cut off, and no replica confirmed it.
    pub(crate) cut_off: bool,
    /// These replicas missed a write that others took, with the reason, and the store failed when they were to be removed from
    /// the in-sync set.
    pub(crate) missed: Vec<(NodeId, String)>,
    /// These nodes have these tasks (their own uids), and the merger doesn't know who sent them.
    pub(crate) unknown: Vec<(NodeId, Vec<u32>)>,
}

/// What happens to reads of shards with a [write fence](InDoubt::hold).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPolicy {
    /// Reads continue.
    Serve,
    /// Reads are refused: the shard is known to lack a change that others have.
    Refuse,
}

impl InDoubt {
    /// Whether the shard's replicas still have to be compared, or the shard has a write fence.
    pub(crate) fn contains(&self, shard: ShardId) -> bool {
        self.lock().contains_key(&shard) || self.blocks_writes(shard)
    }

    /// Whether the shard has a write fence.
    pub fn blocks_writes(&self, shard: ShardId) -> bool {
        let held = self.held();
        held.values().any(|(shards, _)| shards.contains(&shard))
    }

    /// Whether the shard has a write fence that also refuses reads.
    pub(crate) fn blocks_reads(&self, shard: ShardId) -> bool {
        let held = self.held();
        let mut held = held
            .values()
            .filter(|(_, policy)| *policy == ReadPolicy::Refuse);
        held.any(|(shards, _)| shards.contains(&shard))
    }

    /// Fences these shards against writes in the name of `holder`, and no others: an earlier set of the same holder is replaced.
    pub fn hold(&self, holder: &str, shards: BTreeSet<ShardId>, policy: ReadPolicy) {
        self.held().insert(holder.to_owned(), (shards, policy));
        self.changes.tell();
    }

    /// Removes all write fences of `holder`.
    pub fn release(&self, holder: &str) {
        self.held().remove(holder);
        self.changes.tell();
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, (BTreeSet<ShardId>, ReadPolicy)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<ShardId, Doubt>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
