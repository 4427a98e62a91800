//! Writes of which nobody can tell whether a replica took them: Envoy went away in their middle, or answers were lost.
//!
//! Where one replica at least said that it has a write, those that didn't are taken out. Where none did, the client is told that it
//! failed, but some replicas may have it and others not. Before the shard's next write, and as soon as a node answers, what
//! they have taken beyond what was acknowledged is compared. A replica that differs from the first, or doesn't say, is taken out:
//! after the next write nobody could tell any more.
//!
//! A node that gives a write a number that isn't the next one has tasks that nobody is known to have sent: a write that was cut off
//! and came after all, or one that was made by hand. If they change anything, the shard's replicas may differ by them.
//!
//! A shard may also be held: it has a change that other shards may not have yet. Nothing is written to it before they are one again.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

use super::NodeId;

/// Shards whose replicas may differ by a write that nobody was acknowledged.
#[derive(Default)]
pub struct InDoubt {
    shards: Mutex<HashMap<ShardId, Doubt>>,
    /// Who holds which shards, and whether reads go on there.
    held: Mutex<HashMap<String, (BTreeSet<ShardId>, ReadPolicy)>>,
}

/// What is to be looked into at a shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubt {
    /// A write was cut off.
    pub(crate) cut_off: bool,
    /// These replicas missed what others took, and the store failed when they were to be taken out.
    pub(crate) missed: Vec<(NodeId, String)>,
    /// Nodes have these tasks, and nobody is known to have sent them.
    pub(crate) unknown: Vec<(NodeId, Vec<u32>)>,
}

/// Reads from shards that are [held](InDoubt::hold).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPolicy {
    /// They go on.
    Serve,
    /// They leave: the shard is known to lack what others have.
    Refuse,
}

impl InDoubt {
    /// Whether a shard's replicas are yet to be compared, or the shard is held.
    pub(crate) fn contains(&self, shard: ShardId) -> bool {
        self.lock().contains_key(&shard) || self.blocks_writes(shard)
    }

    /// Whether the shard is held.
    pub fn blocks_writes(&self, shard: ShardId) -> bool {
        let held = self.held();
        held.values().any(|(shards, _)| shards.contains(&shard))
    }

    /// Whether the shard is held, and reads leave.
    pub(crate) fn blocks_reads(&self, shard: ShardId) -> bool {
        let held = self.held();
        let mut held = held
            .values()
            .filter(|(_, policy)| *policy == ReadPolicy::Refuse);
        held.any(|(shards, _)| shards.contains(&shard))
    }

    /// Lets nobody write to these shards, and to no others, in `holder`'s name.
    pub fn hold(&self, holder: &str, shards: BTreeSet<ShardId>, policy: ReadPolicy) {
        self.held().insert(holder.to_owned(), (shards, policy));
    }

    /// `holder` holds none any more.
    pub fn release(&self, holder: &str) {
        self.held().remove(holder);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, (BTreeSet<ShardId>, ReadPolicy)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<ShardId, Doubt>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
