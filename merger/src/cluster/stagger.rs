//! Which replicas of a shard apply a large write at the moment, and which are held back and answer searches.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

use super::NodeId;

/// Who writes and who reads, in the shards where that is not everybody.
#[derive(Default)]
pub struct Stagger {
    shards: Mutex<HashMap<ShardId, Groups>>,
}

pub(crate) struct Groups {
    pub(crate) writers: Vec<NodeId>,
    pub(crate) readers: Vec<NodeId>,
    /// Whether anything large is kept for the readers.
    pub(crate) large_kept: bool,
    /// It is over: the readers take what was kept, whenever that is.
    pub(crate) ends: bool,
}

impl Stagger {
    /// The replicas that get a write later than others.
    pub fn deferred(&self, shard: ShardId) -> Vec<NodeId> {
        let shards = self.lock();
        shards
            .get(&shard)
            .map(|groups| groups.readers.clone())
            .unwrap_or_default()
    }

    /// Whether the replica applies what others don't yet, so that reads do better elsewhere.
    pub fn writes(&self, shard: ShardId, node: &NodeId) -> bool {
        let shards = self.lock();
        shards
            .get(&shard)
            .is_some_and(|groups| !groups.ends && groups.writers.contains(node))
    }

    /// Whether the shard's replicas are apart.
    pub fn is_apart(&self, shard: ShardId) -> bool {
        self.lock().contains_key(&shard)
    }

    /// Lets those held back go on.
    pub fn end(&self, shard: ShardId) {
        if let Some(groups) = self.lock().get_mut(&shard) {
            groups.ends = true;
        }
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
