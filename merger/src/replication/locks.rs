//! One order of writes for each shard: the holder of a shard's lock sends to its replicas, all others wait in line.
//!
//! A lock is held only while a write is delivered, never while a client's body is read. Locks on several shards are granted all at
//! once, so that nobody holds one shard while waiting for another. The line is first come, first served, with one exception: a
//! writer that waits for a shard whose holder is slow lets those behind it pass on its other shards. So a shard that hangs
//! stops nobody who doesn't need it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use tokio::sync::oneshot;
use tokio::time::Instant;
use weft_routing::placement::ShardId;

/// A holder is slow after so long: those behind a writer that waits for it may pass on other shards.
const SLOW: Duration = Duration::from_millis(200);

/// The lines of writers before all shards.
#[derive(Default, Clone)]
pub struct ShardLocks {
    lines: Arc<Mutex<Lines>>,
}

/// The right to write to some shards; ends when dropped.
pub struct WriteGuard {
    lines: Arc<Mutex<Lines>>,
    ticket: u64,
}

#[derive(Default)]
struct Lines {
    next: u64,
    held: HashMap<ShardId, Holder>,
    /// By their tickets, so the first to come is the first.
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
            // From here on the place in the line, or the lock, goes with the guard.
            WriteGuard {
                lines: Arc::clone(&self.lines),
                ticket,
            }
        };
        // A holder becomes slow without anything else happening: it has to be looked at again.
        while tokio::time::timeout(SLOW, &mut grant).await.is_err() {
            lock(&self.lines).look_again();
        }
        guard
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

    /// Grants what can be granted, in the order of the line.
    fn grant(&mut self) {
        let now = Instant::now();
        self.looked = Some(now);
        // What those further ahead wait for, and nobody behind them may take.
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
                // A writer that is gone gives the lock back by its guard.
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
