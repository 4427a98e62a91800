//! One order of writes a shard: whoever holds a shard's turn sends to its replicas, all others wait in line.
//!
//! Held only while a write is delivered, never while a client's body is read. Turns on several shards are taken in the
//! order of their numbers, so that no two writers can wait for each other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use tokio::sync::OwnedMutexGuard;
use weft_routing::placement::ShardId;

/// The line of writers before each shard, first come, first served.
#[derive(Default)]
pub struct Sequencer {
    lines: Mutex<HashMap<ShardId, Arc<tokio::sync::Mutex<()>>>>,
}

/// The right to write to some shards; ends when dropped.
pub struct Turn {
    _held: Vec<OwnedMutexGuard<()>>,
}

impl Sequencer {
    /// Waits for the turn on all of `shards`.
    pub async fn turn(&self, shards: &[ShardId]) -> Turn {
        let mut held = Vec::with_capacity(shards.len());
        for shard in shards.iter().copied().collect::<BTreeSet<_>>() {
            held.push(self.line(shard).lock_owned().await);
        }
        Turn { _held: held }
    }

    fn line(&self, shard: ShardId) -> Arc<tokio::sync::Mutex<()>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lines.entry(shard).or_default())
    }
}
