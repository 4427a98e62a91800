//! Which slots of which indexes should lie elsewhere. Pure: a function of values.
//!
//! An index that is to lie on all shards is levelled over them, slot by slot. An index that is to lie on some shards stays where it
//! is, unless a shard must be left or is much fuller than others: then it moves as a whole, or a part of it does.

mod exchange;

use std::collections::{BTreeMap, BTreeSet};

use weft_routing::placement::{ShardId, SlotMap};
use weft_routing::slot::Slot;

use self::exchange::{Part, exchange};

/// An index, as far as a plan depends on it.
#[derive(Debug, Clone)]
pub(crate) struct Planned<'a> {
    /// Its uid.
    pub(crate) uid: &'a str,
    /// Where its slots lie.
    pub(crate) slots: &'a SlotMap,
    /// On how many shards it is to lie; `None` for all.
    pub(crate) shard_count: Option<u16>,
    /// How many bytes it has on each shard.
    pub(crate) bytes: BTreeMap<ShardId, u64>,
}

impl<'a> Planned<'a> {
    /// An index of unknown size on all shards.
    pub(crate) fn new(uid: &'a str, slots: &'a SlotMap) -> Self {
        Self {
            uid,
            slots,
            shard_count: None,
            bytes: BTreeMap::new(),
        }
    }
}

/// Slots of an index that one shard is to give to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The index's uid.
    pub(crate) index: String,
    /// The shard that has them.
    pub(crate) from: ShardId,
    /// The shard that is to have them.
    pub(crate) to: ShardId,
    /// The slots, ascending.
    pub(crate) slots: Vec<Slot>,
}

/// How much fuller than the mean a shard may be before small indexes are taken from it.
const TOLERANCE: f64 = 1.05;

/// What to move, so that only `shards` hold anything, and all hold about as much. No slot is named twice.
pub(crate) fn plan(indexes: &[Planned<'_>], shards: &[ShardId]) -> Vec<Step> {
    let shards: BTreeSet<ShardId> = shards.iter().copied().collect();
    if shards.is_empty() {
        return Vec::new();
    }
    let mut loads: BTreeMap<ShardId, u64> = shards.iter().map(|shard| (*shard, 0)).collect();
    let mut steps = Vec::new();
    let mut fixed = Vec::new();
    for index in indexes {
        let all = index
            .shard_count
            .is_none_or(|count| usize::from(count) >= shards.len());
        if all {
            let shards: Vec<ShardId> = shards.iter().copied().collect();
            let total: u64 = index.bytes.values().sum();
            for load in loads.values_mut() {
                *load += total / shards.len().max(1) as u64;
            }
            if let Ok(target) = index.slots.levelled(&shards) {
                steps.extend(steps_between(index.uid, index.slots, &target));
            }
        } else {
            fixed.push(index);
        }
    }
    // Where each of the others will lie: first what must change, then what evens the shards out.
    let mut targets: Vec<BTreeSet<ShardId>> = Vec::with_capacity(fixed.len());
    for index in &fixed {
        let count = usize::from(index.shard_count.unwrap_or(1)).max(1);
        let owners = index.slots.shards().iter().copied();
        let mut on: Vec<ShardId> = owners.filter(|shard| shards.contains(shard)).collect();
        // The largest parts stay.
        on.sort_by_key(|shard| {
            (
                std::cmp::Reverse(index.slots.slots_of(*shard).count()),
                *shard,
            )
        });
        on.truncate(count);
        let mut on: BTreeSet<ShardId> = on.into_iter().collect();
        while on.len() < count {
            let free = loads.iter().filter(|(shard, _)| !on.contains(*shard));
            match free.min_by_key(|(shard, load)| (**load, **shard)) {
                Some((shard, _)) => on.insert(*shard),
                None => break,
            };
        }
        let each = index.bytes.values().sum::<u64>() / on.len().max(1) as u64;
        for shard in &on {
            *loads.entry(*shard).or_default() += each;
        }
        targets.push(on);
    }
    even_out(&fixed, &mut targets, &mut loads);
    for (index, on) in fixed.iter().zip(&targets) {
        let on: Vec<ShardId> = on.iter().copied().collect();
        let target = match *on.as_slice() {
            [only] => Ok(SlotMap::single(only)),
            _ => index.slots.levelled(&on),
        };
        if let Ok(target) = target {
            steps.extend(steps_between(index.uid, index.slots, &target));
        }
    }
    steps
}

/// Moves parts of indexes from the fullest shard to the emptiest one, as long as that makes the fullest less full by something.
fn even_out(
    fixed: &[&Planned<'_>],
    targets: &mut [BTreeSet<ShardId>],
    loads: &mut BTreeMap<ShardId, u64>,
) {
    let part = |index: &Planned<'_>, on: &BTreeSet<ShardId>| {
        index.bytes.values().sum::<u64>() / on.len().max(1) as u64
    };
    // By shard, the parts that lie there: size and index, so that the largest that fits is found at once.
    let mut parts: BTreeMap<ShardId, BTreeSet<(u64, usize)>> = BTreeMap::new();
    for (place, (index, on)) in fixed.iter().zip(targets.iter()).enumerate() {
        for shard in on {
            parts
                .entry(*shard)
                .or_default()
                .insert((part(index, on), place));
        }
    }
    // By index and new shard, the shards that parts leave.
    let mut moved: BTreeMap<(usize, ShardId), ShardId> = BTreeMap::new();
    let total: u64 = loads.values().sum();
    #[allow(
        clippy::cast_precision_loss,
        reason = "a share needs no more than 52 bits"
    )]
    let limit = total as f64 / loads.len().max(1) as f64 * TOLERANCE;
    for _ in 0..fixed.len() {
        let fullest = loads.iter().max_by_key(|(shard, load)| (**load, **shard));
        let emptiest = loads.iter().min_by_key(|(shard, load)| (**load, **shard));
        let (Some((&from, &most)), Some((&to, &least))) = (fullest, emptiest) else {
            break;
        };
        #[allow(
            clippy::cast_precision_loss,
            reason = "a share needs no more than 52 bits"
        )]
        if most as f64 <= limit || from == to {
            break;
        }
        // The largest part that leaves the new shard no fuller than the old one becomes.
        let fits = (most - least) / 2;
        let here = parts.get(&from).into_iter().flatten().rev();
        let found = here
            .filter(|(size, _)| *size > 0 && *size <= fits)
            .find(|(_, place)| targets.get(*place).is_some_and(|on| !on.contains(&to)))
            .copied();
        let Some((size, place)) = found else { break };
        let first = moved.remove(&(place, from)).unwrap_or(from);
        if first != to {
            moved.insert((place, to), first);
        }
        if let Some(on) = targets.get_mut(place) {
            on.remove(&from);
            on.insert(to);
        }
        if let Some(here) = parts.get_mut(&from) {
            here.remove(&(size, place));
        }
        parts.entry(to).or_default().insert((size, place));
        if let Some(load) = loads.get_mut(&from) {
            *load = load.saturating_sub(size);
        }
        *loads.entry(to).or_default() += size;
    }
    let moved = moved.into_iter().filter_map(|((place, to), from)| {
        let (index, on) = (fixed.get(place)?, targets.get(place)?);
        let size = part(index, on);
        // One that must move anyhow may as well go there.
        let lies_there = index.slots.shards().contains(&from);
        lies_there.then_some(Part {
            index: place,
            size,
            from,
            to,
        })
    });
    exchange(moved.collect(), &parts, targets, loads);
}

/// The slots that change their owner, by old and new owner.
pub(crate) fn steps_between(uid: &str, before: &SlotMap, after: &SlotMap) -> Vec<Step> {
    let mut moves: BTreeMap<(ShardId, ShardId), Vec<Slot>> = BTreeMap::new();
    let owners = before.owners().iter().zip(after.owners());
    for (slot, (from, to)) in (0..).map(Slot).zip(owners) {
        if from != to {
            moves.entry((*from, *to)).or_default().push(slot);
        }
    }
    let step = |((from, to), slots)| Step {
        index: uid.to_owned(),
        from,
        to,
        slots,
    };
    moves.into_iter().map(step).collect()
}

#[cfg(test)]
mod minimal;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shards(list: &[u16]) -> Vec<ShardId> {
        list.iter().copied().map(ShardId).collect()
    }

    fn index<'a>(uid: &'a str, slots: &'a SlotMap, count: Option<u16>, bytes: u64) -> Planned<'a> {
        let on = slots.shards();
        let each = bytes / on.len() as u64;
        Planned {
            uid,
            slots,
            shard_count: count,
            bytes: on.iter().map(|shard| (*shard, each)).collect(),
        }
    }

    /// The maps after a plan.
    fn after(indexes: &[Planned<'_>], steps: &[Step]) -> Vec<SlotMap> {
        let mut maps: Vec<SlotMap> = indexes.iter().map(|index| index.slots.clone()).collect();
        for step in steps {
            let place = indexes.iter().position(|index| index.uid == step.index);
            let map = &mut maps[place.unwrap()];
            for slot in &step.slots {
                assert_eq!(map.shard_of_slot(*slot), step.from, "no slot moves twice");
            }
            *map = map.with_owner_of_all(&step.slots, step.to);
        }
        maps
    }

    #[test]
    fn a_fourth_shard_takes_a_quarter_of_an_index_on_all_shards_and_no_small_index_is_split() {
        let three = SlotMap::deal(&shards(&[0, 1, 2])).unwrap();
        let small: Vec<SlotMap> = (0..30_u16)
            .map(|n| SlotMap::single(ShardId(n % 3)))
            .collect();
        let names: Vec<String> = (0..30).map(|n| format!("tenant-{n}")).collect();
        let mut indexes = vec![index("all", &three, None, 3_000)];
        indexes.extend(
            names
                .iter()
                .zip(&small)
                .map(|(name, map)| index(name, map, Some(1), 1_000)),
        );
        let steps = plan(&indexes, &shards(&[0, 1, 2, 3]));
        let maps = after(&indexes, &steps);
        assert_eq!(maps[0].shards(), shards(&[0, 1, 2, 3]));
        assert!(maps[1..].iter().all(|map| map.shards().len() == 1));
        let on_new = maps[1..]
            .iter()
            .filter(|map| map.shards() == shards(&[3]))
            .count();
        assert!((6..=8).contains(&on_new), "{on_new}");
        assert!(plan(&by(&indexes, &maps), &shards(&[0, 1, 2, 3])).is_empty());
    }

    /// The same indexes as they lie after a plan.
    fn by<'a>(indexes: &[Planned<'a>], maps: &'a [SlotMap]) -> Vec<Planned<'a>> {
        let pairs = indexes.iter().zip(maps);
        pairs
            .map(|(before, map)| {
                let bytes = before.bytes.values().sum();
                index(before.uid, map, before.shard_count, bytes)
            })
            .collect()
    }

    #[test]
    fn a_shard_that_is_left_out_is_emptied() {
        let all = SlotMap::deal(&shards(&[0, 1, 2, 3])).unwrap();
        let (one, two) = (
            SlotMap::single(ShardId(3)),
            SlotMap::deal(&shards(&[1, 3])).unwrap(),
        );
        let indexes = [
            index("all", &all, None, 100),
            index("one", &one, Some(1), 10),
            index("two", &two, Some(2), 10),
        ];
        let maps = after(&indexes, &plan(&indexes, &shards(&[0, 1, 2])));
        assert!(maps.iter().all(|map| !map.shards().contains(&ShardId(3))));
        assert_eq!(maps[1].shards().len(), 1);
        assert_eq!(maps[2].shards().len(), 2);
        assert!(maps[2].shards().contains(&ShardId(1)));
        assert!(plan(&indexes, &[]).is_empty());
    }

    #[test]
    fn the_only_index_stays_where_it_is_however_small_it_is() {
        let map = SlotMap::single(ShardId(0));
        for bytes in [0, 1, 2, 1_000] {
            let steps = plan(&[index("films", &map, Some(1), bytes)], &shards(&[0, 1]));
            assert_eq!(steps, Vec::new(), "{bytes} bytes");
        }
    }

    #[test]
    fn an_index_gets_more_shards_or_fewer() {
        let two = SlotMap::deal(&shards(&[0, 1])).unwrap();
        for count in [1, 3] {
            let indexes = [index("films", &two, Some(count), 100)];
            let maps = after(&indexes, &plan(&indexes, &shards(&[0, 1, 2, 3])));
            assert_eq!(maps[0].shards().len(), usize::from(count));
        }
    }

    proptest! {
        /// Whatever lies where: a plan is the same each time, leaves nothing to plan, keeps to the shards, and evens out.
        #[test]
        fn plans_are_balanced_stable_and_keep_to_the_shards(
            sizes in prop::collection::vec((1_u64..10_000, 1_u16..4, 0_u16..5), 1..60),
            wanted in prop::collection::btree_set(0_u16..6, 1..6),
        ) {
            let wanted = shards(&wanted.into_iter().collect::<Vec<_>>());
            let maps: Vec<SlotMap> = sizes.iter().map(|(_, count, first)| {
                let on: Vec<ShardId> = (0..*count).map(|n| ShardId((first + n) % 5)).collect();
                SlotMap::deal(&on).unwrap()
            }).collect();
            let names: Vec<String> = (0..sizes.len()).map(|n| n.to_string()).collect();
            let indexes: Vec<Planned<'_>> = names.iter().zip(&maps).zip(&sizes)
                .map(|((name, map), (bytes, count, _))| index(name, map, Some(*count), *bytes * 60))
                .collect();
            let steps = plan(&indexes, &wanted);
            prop_assert_eq!(&steps, &plan(&indexes, &wanted));
            let maps = after(&indexes, &steps);
            for (index, map) in indexes.iter().zip(&maps) {
                let count = usize::from(index.shard_count.unwrap()).min(wanted.len());
                prop_assert_eq!(map.shards().len(), count);
                prop_assert!(map.shards().iter().all(|shard| wanted.contains(shard)));
            }
            let load = |shard: &ShardId| -> u64 {
                let parts = indexes.iter().zip(&maps).filter(|(_, map)| map.shards().contains(shard));
                parts.map(|(index, map)| index.bytes.values().sum::<u64>() / map.shards().len() as u64).sum()
            };
            let loads: Vec<u64> = wanted.iter().map(load).collect();
            let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
            let mean = loads.iter().sum::<u64>() / loads.len() as u64;
            let largest = indexes.iter().map(|one| one.bytes.values().sum::<u64>()).max().unwrap();
            prop_assert!(*most as f64 <= mean as f64 * TOLERANCE + 1.0 || most - least <= 2 * largest);
        }
    }
}
