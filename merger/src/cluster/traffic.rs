//! How many reads and writes went to each shard through this merger, and how long they took.
//!
//! Place in the flow: the scatter of reads and the sending of writes note each request; `GET /_cluster/traffic` shows the sums since
//! the merger started. Whoever asks twice has rates, and the latencies of the time between. What a filter sends straight to a
//! shard is not counted here: Envoy counts that. Noting takes a read lock and four additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::HashMap;
use serde_json::{Value, json};
use tokio::time::Instant;
use weft_routing::placement::ShardId;

/// The upper limit of the first bucket, in microseconds. Each limit is twice the one before it.
const FIRST_US: u128 = 500;
/// How many buckets have an upper limit: the last one is 32.8 s.
const LIMITS: usize = 17;

/// What a request to a shard did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// A search, or a read of documents.
    Reads,
    /// Anything that its replicas are sent in order.
    Writes,
}

impl Flow {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
        }
    }
}

/// The sums of all shards.
#[derive(Debug)]
pub struct Traffic {
    began: Instant,
    shards: RwLock<HashMap<ShardId, Arc<Sums>>>,
}

#[derive(Debug, Default)]
struct Sums {
    reads: Sum,
    writes: Sum,
}

#[derive(Debug, Default)]
struct Sum {
    failed: AtomicU64,
    nanos: AtomicU64,
    /// How many took no longer than each limit and longer than the one before; at last those that took longer than any.
    buckets: [AtomicU64; LIMITS + 1],
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            shards: RwLock::default(),
        }
    }
}

impl Traffic {
    /// Notes a request to a shard: how long it took, and whether it went well.
    pub fn note(&self, shard: ShardId, flow: Flow, took: Duration, well: bool) {
        let known = self
            .shards
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&shard)
            .map(Arc::clone);
        let sums = known.unwrap_or_else(|| {
            let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(shards.entry(shard).or_default())
        });
        let sum = match flow {
            Flow::Reads => &sums.reads,
            Flow::Writes => &sums.writes,
        };
        sum.note(took, well);
    }

    /// The sums of these shards, as `GET /_cluster/traffic` shows them.
    pub fn view(&self, shards: &[ShardId]) -> Value {
        let known = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let nothing = Arc::<Sums>::default();
        let view = |shard: &ShardId| {
            let sums = known.get(shard).unwrap_or(&nothing);
            json!({"shardId": shard, "reads": sums.reads.view(), "writes": sums.writes.view()})
        };
        let limits: Vec<f64> = (0..LIMITS).map(limit_ms).collect();
        json!({
            "uptimeMs": u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "bucketsMs": limits,
            "shards": shards.iter().map(view).collect::<Vec<_>>(),
        })
    }
}

impl Sum {
    fn note(&self, took: Duration, well: bool) {
        if !well {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        if let Some(bucket) = self.buckets.get(bucket_of(took)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "a time to show needs no more than 52 bits"
    )]
    fn view(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let buckets: Vec<u64> = self.buckets.iter().map(read).collect();
        json!({
            "count": buckets.iter().sum::<u64>(),
            "failed": read(&self.failed),
            "sumMs": read(&self.nanos) as f64 / 1e6,
            "buckets": buckets,
        })
    }
}

/// The bucket that a time belongs to.
fn bucket_of(took: Duration) -> usize {
    let halves = took.as_micros().div_ceil(FIRST_US);
    let power = halves
        .checked_next_power_of_two()
        .map_or(u128::BITS, u128::trailing_zeros);
    usize::try_from(power).unwrap_or(LIMITS).min(LIMITS)
}

/// A bucket's upper limit in milliseconds.
#[allow(clippy::cast_precision_loss, reason = "the largest limit has 26 bits")]
fn limit_ms(bucket: usize) -> f64 {
    (FIRST_US << bucket) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_between_the_limits_of_its_bucket() {
        for (micros, bucket) in [
            (0, 0),
            (500, 0),
            (501, 1),
            (1_000, 1),
            (1_001, 2),
            (32_768_000, 16),
            (32_768_001, 17),
            (u64::MAX, 17),
        ] {
            let took = Duration::from_micros(micros);
            assert_eq!(bucket_of(took), bucket, "{micros}");
            let ms = took.as_secs_f64() * 1e3;
            assert!(bucket == LIMITS || ms <= limit_ms(bucket), "{micros}");
            assert!(bucket == 0 || ms > limit_ms(bucket - 1), "{micros}");
        }
    }

    #[test]
    fn reads_and_writes_of_each_shard_are_summed_apart() {
        let traffic = Traffic::default();
        let ms = Duration::from_millis;
        traffic.note(ShardId(0), Flow::Reads, ms(1), true);
        traffic.note(ShardId(0), Flow::Reads, ms(3), false);
        traffic.note(ShardId(1), Flow::Writes, ms(60_000), true);
        let view = traffic.view(&[ShardId(0), ShardId(1), ShardId(2)]);
        let shard = |at: usize| &view["shards"][at];
        assert_eq!(shard(0)["reads"]["count"], 2);
        assert_eq!(shard(0)["reads"]["failed"], 1);
        assert_eq!(shard(0)["reads"]["sumMs"], 4.0);
        assert_eq!(shard(0)["reads"]["buckets"][1], 1);
        assert_eq!(shard(0)["reads"]["buckets"][3], 1);
        assert_eq!(shard(0)["writes"]["count"], 0);
        assert_eq!(shard(1)["writes"]["buckets"][17], 1);
        assert_eq!(shard(2)["reads"]["count"], 0);
        assert_eq!(view["bucketsMs"].as_array().unwrap().len(), 17);
    }
}
