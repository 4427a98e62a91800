//! How full each shard is, so that a new index on some shards goes where the fewest bytes lie.
//!
//! Shards are measured now and then. Between two measurements, what is written counts as it comes: more than it will be for
//! documents that are replaced, and less for deletions, until the next measurement.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use weft_routing::placement::{ShardId, choose_shards};

/// How much fuller than the mean a shard may be before others are preferred, as a share of it: a twentieth.
const TOLERATED: u64 = 20;
/// The same in bytes, where little is stored at all.
const LITTLE: u64 = 1 << 20;

/// How many bytes each shard holds, as far as is known.
#[derive(Debug, Default)]
pub struct Fullness(Mutex<BTreeMap<ShardId, u64>>);

impl Fullness {
    /// Notes how much each shard holds, in place of all that was known.
    pub(crate) fn measured(&self, bytes: BTreeMap<ShardId, u64>) {
        *self.lock() = bytes;
    }

    /// Notes that so many bytes of documents were sent to a shard.
    pub(crate) fn wrote(&self, shard: ShardId, bytes: u64) {
        let mut held = self.lock();
        let held = held.entry(shard).or_default();
        *held = held.saturating_add(bytes);
    }

    /// The shards for an index that is to lie on `count` of these: chosen by its uid among those that are about equally full, and
    /// the emptiest others. Ascending.
    pub(crate) fn choose(&self, uid: &str, all: &[ShardId], count: usize) -> Vec<ShardId> {
        if count >= all.len() {
            return choose_shards(uid, all, count);
        }
        let held = self.lock();
        let load = |shard: &ShardId| held.get(shard).copied().unwrap_or(0);
        let total: u64 = all.iter().map(load).sum();
        let mean = total / u64::try_from(all.len()).unwrap_or(u64::MAX).max(1);
        let most = mean + (mean / TOLERATED).max(LITTLE);
        let (level, mut full): (Vec<ShardId>, Vec<ShardId>) =
            all.iter().copied().partition(|shard| load(shard) <= most);
        let mut chosen = choose_shards(uid, &level, count);
        full.sort_by_key(|shard| (load(shard), *shard));
        chosen.extend(full.into_iter().take(count - chosen.len()));
        chosen.sort_unstable();
        chosen
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: [ShardId; 4] = [ShardId(0), ShardId(1), ShardId(2), ShardId(3)];
    const MIB: u64 = 1 << 20;

    fn uids() -> impl Iterator<Item = String> {
        (0..200).map(|number| format!("tenant-{number}"))
    }

    #[test]
    fn while_shards_are_about_equally_full_the_uid_chooses() {
        let fullness = Fullness::default();
        let about = [100, 104, 98, 103].map(|mib| mib * MIB);
        fullness.measured(FOUR.into_iter().zip(about).collect());
        for uid in uids() {
            for count in 1..5 {
                let chosen = fullness.choose(&uid, &FOUR, count);
                assert_eq!(chosen, choose_shards(&uid, &FOUR, count), "{uid}");
            }
        }
    }

    #[test]
    fn fuller_shards_come_last_and_the_emptiest_of_them_first() {
        let fullness = Fullness::default();
        let bytes = [300, 10, 290, 20].map(|mib| mib * MIB);
        fullness.measured(FOUR.into_iter().zip(bytes).collect());
        for uid in uids() {
            let one = fullness.choose(&uid, &FOUR, 1);
            assert_eq!(one, choose_shards(&uid, &[ShardId(1), ShardId(3)], 1));
            let three = [ShardId(1), ShardId(2), ShardId(3)];
            assert_eq!(fullness.choose(&uid, &FOUR, 3), three);
            assert_eq!(fullness.choose(&uid, &FOUR, 4), FOUR);
        }
        // What is written since counts, and a measurement replaces it.
        fullness.wrote(ShardId(1), 900 * MIB);
        for uid in uids() {
            let others = [ShardId(0), ShardId(2), ShardId(3)];
            let one = fullness.choose(&uid, &FOUR, 1);
            assert_eq!(one, choose_shards(&uid, &others, 1));
        }
        fullness.measured(BTreeMap::new());
        assert_eq!(fullness.choose("x", &FOUR, 1), choose_shards("x", &FOUR, 1));
    }

    #[test]
    fn indexes_of_very_different_sizes_spread_evenly() {
        let fullness = Fullness::default();
        let mut held = BTreeMap::new();
        for number in 1..2000_u64 {
            let uid = format!("tenant-{number}");
            let shard = fullness.choose(&uid, &FOUR, 1)[0];
            // The largest has a sixth of a shard's share.
            let bytes = 400 * MIB / (1 + number * 7919 % 2000);
            fullness.wrote(shard, bytes);
            *held.entry(shard).or_insert(0) += bytes;
        }
        let most = held.values().max().copied().unwrap() as f64;
        let mean = held.values().sum::<u64>() as f64 / 4.0;
        assert!(most <= mean * 1.2, "{held:?}");
    }
}
