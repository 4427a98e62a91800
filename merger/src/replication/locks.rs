//! One order of writes for each shard: the holder of a shard's lock sends to its replicas, and all others wait in a queue.
//!
//! A lock is held only while a write is delivered, never while a client's body is read. Locks on several shards are granted all
//! at once, so that no writer holds one shard while it waits for another. The queue is first come, first served, with one
//! exception: if a writer waits for a shard whose holder is slow, those behind it may pass on its other shards. So a shard that
//! hangs delays only the writers that need it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use tokio::sync::oneshot;
use tokio::time::Instant;
use weft_routing::placement::ShardId;

/// A holder is slow after this time: writers behind one that waits for it may pass on other shards.
const SLOW: Duration = Duration::from_millis(200);

/// The locks of all shards, with the writers that wait for them.
#[derive(Default, Clone)]
pub struct ShardLocks {
    lines: Arc<Mutex<Lines>>,
}

/// The right to write to some shards. Dropping it releases the shards' locks.
pub struct WriteGuard {
    lines: Arc<Mutex<Lines>>,
    ticket: u64,
}

#[derive(Default)]
struct Lines {
    next: u64,
    held: HashMap<ShardId, Holder>,
    /// The waiting writers by ticket, in the order of coming.
    waiting: BTreeMap<u64, Waiting>,
    looked: Option<Instant>,
}

struct Holder {
    ticket: u64,
    since: Instant,
}

struct Waiting {
    shards: BTreeSet<ShardId>,
    granted: oneshot::Sender<()>,
}

impl ShardLocks {
    /// Waits for the locks of all of `shards`.
    pub async fn lock(&self, shards: &[ShardId]) -> WriteGuard {
        let (granted, mut grant) = oneshot::channel();
        let guard = {
            let mut lines = lock(&self.lines);
            let ticket = lines.next;
            lines.next += 1;
            let shards = shards.iter().copied().collect();
            lines.waiting.insert(ticket, Waiting { shards, granted });
            lines.grant();
            // From here on, dropping the guard gives up the place in the queue, or the lock.
            WriteGuard {
                lines: Arc::clone(&self.lines),
                ticket,
            }
        };
        // No event tells that a holder has become slow, so the queue is looked at again.
        while tokio::time::timeout(SLOW, &mut grant).await.is_err() {
            lock(&self.lines).look_again();
        }
        guard
    }
}

impl ShardLocks {
    /// Looks at what writers have noted, while none of the shard is on its way. A writer notes a write before it sends it: if somebody
    /// else saw the note in between and then read a node, the node might not have the write yet.
    pub async fn between_writes<T>(&self, shard: ShardId, look: impl FnOnce() -> T) -> T {
        let _guard = self.lock(&[shard]).await;
        look()
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        let mut lines = lock(&self.lines);
        lines.waiting.remove(&self.ticket);
        lines.held.retain(|_, holder| holder.ticket != self.ticket);
        lines.grant();
    }
}

impl Lines {
    fn look_again(&mut self) {
        let lately = |at: Instant| at.elapsed() < SLOW / 2;
        if !self.looked.is_some_and(lately) {
            self.grant();
        }
    }

    /// Grants the locks that can be granted, in the order of the queue.
    fn grant(&mut self) {
        let now = Instant::now();
        self.looked = Some(now);
        // The shards that writers further ahead wait for. Writers behind them may not take these.
        let mut claimed: HashSet<ShardId> = HashSet::new();
        let mut granted = Vec::new();
        for (ticket, waiting) in &self.waiting {
            let holders = waiting
                .shards
                .iter()
                .filter_map(|shard| self.held.get(shard));
            let (mut held, mut slow) = (false, false);
            for holder in holders {
                held = true;
                slow |= now.duration_since(holder.since) >= SLOW;
            }
            let is_claimed = waiting.shards.iter().any(|shard| claimed.contains(shard));
            if held || is_claimed {
                if !slow {
                    claimed.extend(&waiting.shards);
                }
                continue;
            }
            for shard in &waiting.shards {
                let holder = Holder {
                    ticket: *ticket,
                    since: now,
                };
                self.held.insert(*shard, holder);
            }
            granted.push(*ticket);
        }
        for ticket in granted {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                // If the writer is gone, its dropped guard has released the lock, or will.
                let _ = waiting.granted.send(());
            }
        }
    }
}

fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
