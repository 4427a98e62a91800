//! How long recent reads of each shard took, which decides when another replica is asked too.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

/// How many reads of a shard are remembered.
const SAMPLES: usize = 256;
/// The percentile is computed again after this many reads.
const ENOUGH: usize = 32;
/// The limits of the time after which a second request is sent.
const SOONEST: Duration = Duration::from_millis(10);
const LATEST: Duration = Duration::from_secs(2);
/// The time used while there are too few samples.
const UNTIL_KNOWN: Duration = Duration::from_millis(500);

/// The times of the latest reads of all shards.
#[derive(Debug, Default)]
pub struct Latencies {
    shards: Mutex<HashMap<ShardId, Recent>>,
}

#[derive(Debug)]
struct Recent {
    times: Vec<Duration>,
    next: usize,
    p95: Duration,
}

impl Latencies {
    /// Notes how long a read of a shard took.
    pub fn note(&self, shard: ShardId, took: Duration) {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.entry(shard).or_default().note(took);
    }

    /// The time after which a read of a shard is late: the 95th percentile of its latest reads.
    pub fn hedge_after(&self, shard: ShardId) -> Duration {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.get(&shard).map_or(UNTIL_KNOWN, |recent| recent.p95)
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            times: Vec::with_capacity(SAMPLES),
            next: 0,
            p95: UNTIL_KNOWN,
        }
    }
}

impl Recent {
    fn note(&mut self, took: Duration) {
        match self.times.get_mut(self.next) {
            Some(oldest) => *oldest = took,
            None => self.times.push(took),
        }
        self.next = (self.next + 1) % SAMPLES;
        // Sorting a few hundred numbers is cheap, but not for every read.
        if self.next.is_multiple_of(ENOUGH) {
            let mut sorted = self.times.clone();
            sorted.sort_unstable();
            let place = sorted.len() * 95 / 100;
            let p95 = sorted.get(place).copied().unwrap_or(UNTIL_KNOWN);
            self.p95 = p95.clamp(SOONEST, LATEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_late_when_it_takes_longer_than_nineteen_of_twenty() {
        let (latencies, shard) = (Latencies::default(), ShardId(0));
        assert_eq!(latencies.hedge_after(shard), UNTIL_KNOWN);
        for n in 0..320_u64 {
            latencies.note(
                shard,
                Duration::from_millis(if n % 10 == 0 { 400 } else { 20 }),
            );
        }
        assert_eq!(latencies.hedge_after(shard), Duration::from_millis(400));
        for _ in 0..256 {
            latencies.note(shard, Duration::from_millis(20));
        }
        assert_eq!(latencies.hedge_after(shard), Duration::from_millis(20));
        for _ in 0..256 {
            latencies.note(shard, Duration::from_micros(300));
        }
        assert_eq!(latencies.hedge_after(shard), SOONEST);
    }
}
