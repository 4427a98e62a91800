//! Which replicas of a shard apply a large write now, and which are held back so that they answer searches.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

use super::{Changes, NodeId};

/// The writers and readers of each shard with a staggered write. In all other shards, every replica does both.
#[derive(Default)]
pub struct Stagger {
    shards: Mutex<HashMap<ShardId, Groups>>,
    /// Tells when a staggered write is to end.
    pub(crate) changes: Changes,
}

pub(crate) struct Groups {
    pub(crate) writers: Vec<NodeId>,
    pub(crate) readers: Vec<NodeId>,
    /// Whether a large write is kept for the readers.
    pub(crate) large_kept: bool,
    /// The staggered write is over: the readers may take what was kept for them.
    pub(crate) ends: bool,
}

impl Stagger {
    /// The replicas that are held back: they get writes later than the others.
    pub fn deferred(&self, shard: ShardId) -> Vec<NodeId> {
        let shards = self.lock();
        shards
            .get(&shard)
            .map(|groups| groups.readers.clone())
            .unwrap_or_default()
    }

    /// Whether the replica applies writes that others don't have yet, so that reads should prefer the others.
    pub fn writes(&self, shard: ShardId, node: &NodeId) -> bool {
        let shards = self.lock();
        shards
            .get(&shard)
            .is_some_and(|groups| !groups.ends && groups.writers.contains(node))
    }

    /// Whether the shard has a staggered write.
    pub fn is_apart(&self, shard: ShardId) -> bool {
        self.lock().contains_key(&shard)
    }

    /// Ends the staggered write: the replicas that are held back may go on.
    pub fn end(&self, shard: ShardId) {
        if let Some(groups) = self.lock().get_mut(&shard) {
            groups.ends = true;
        }
        self.changes.tell();
    }

    pub(crate) fn change<T>(
        &self,
        shard: ShardId,
        change: impl FnOnce(&mut Groups) -> T,
    ) -> Option<T> {
        self.lock().get_mut(&shard).map(change)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<ShardId, Groups>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
