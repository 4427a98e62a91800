//! Plans move as little as what they reach needs: compared with every other way, on cases that are small enough to try many.

use proptest::prelude::*;
use weft_routing::slot::SLOT_COUNT;

use super::*;

fn slots_of(map: &SlotMap, shard: ShardId) -> usize {
    map.slots_of(shard).count()
}

/// All ways to choose so many of these.
fn choices<T: Copy>(of: &[T], count: usize) -> Vec<Vec<T>> {
    match (count, of.split_first()) {
        (0, _) => vec![Vec::new()],
        (_, None) => Vec::new(),
        (_, Some((first, rest))) => {
            let with = choices(rest, count - 1).into_iter();
            let with = with.map(|mut chosen| {
                chosen.push(*first);
                chosen
            });
            with.chain(choices(rest, count)).collect()
        }
    }
}

/// The fewest slots that must change their owner so that exactly these shards own them, with shares that differ by one at the most:
/// over all choices of the shards that have one more.
fn fewest_onto(map: &SlotMap, shards: &[ShardId]) -> usize {
    let all = usize::from(SLOT_COUNT);
    let (base, more) = (all / shards.len(), all % shards.len());
    let kept = |larger: &Vec<ShardId>| -> usize {
        let share = |shard: &ShardId| base + usize::from(larger.contains(shard));
        let kept = shards
            .iter()
            .map(|shard| share(shard).min(slots_of(map, *shard)));
        kept.sum()
    };
    all - choices(shards, more).iter().map(kept).max().unwrap_or(0)
}

fn moved(steps: &[Step]) -> usize {
    steps.iter().map(|step| step.slots.len()).sum()
}

/// A map in which runs of slots have these owners, one after the other.
fn map_of(runs: &[(u16, u16)]) -> SlotMap {
    let mut map = SlotMap::single(ShardId(runs[0].0));
    let mut next = 0;
    for (owner, length) in runs {
        let run: Vec<Slot> = (next..(next + length).min(SLOT_COUNT)).map(Slot).collect();
        next += length;
        map = map.with_owner_of_all(&run, ShardId(*owner));
    }
    map
}

fn wanted_shards() -> impl Strategy<Value = Vec<ShardId>> {
    prop::collection::btree_set(0_u16..6, 1..6)
        .prop_map(|wanted| wanted.into_iter().map(ShardId).collect())
}

/// How full the shards are, the fullest first, if each index lies on one shard.
fn fill(sizes: &[u64], on: &[usize], shards: usize) -> Vec<u64> {
    let load = |shard| -> u64 {
        let here = sizes.iter().zip(on).filter(|(_, on)| **on == shard);
        here.map(|(size, _)| size).sum()
    };
    let mut loads: Vec<u64> = (0..shards).map(load).collect();
    loads.sort_unstable_by_key(|load| std::cmp::Reverse(*load));
    loads
}

proptest! {
    /// An index on all shards, or on some: no other way to level it moves fewer slots, and none moves twice.
    #[test]
    fn no_other_way_to_level_an_index_moves_fewer_slots(
        runs in prop::collection::vec((0_u16..6, 1_u16..1_500), 1..12),
        wanted in wanted_shards(),
        count in prop::option::of(1_u16..6),
    ) {
        let map = map_of(&runs);
        let index = Planned { shard_count: count, ..Planned::new("films", &map) };
        let steps = plan(std::slice::from_ref(&index), &wanted);
        prop_assert_eq!(&steps, &plan(&[index], &wanted), "not deterministic");
        let mut seen = BTreeSet::new();
        for slot in steps.iter().flat_map(|step| &step.slots) {
            prop_assert!(seen.insert(*slot), "{:?} moves twice", slot);
        }
        let count = count.map_or(wanted.len(), |count| usize::from(count).min(wanted.len()));
        let ways = choices(&wanted, count);
        let fewest = ways.iter().map(|shards| fewest_onto(&map, shards)).min();
        prop_assert_eq!(Some(moved(&steps)), fewest);
        let mut after = map.clone();
        for step in &steps {
            after = after.with_owner_of_all(&step.slots, step.to);
        }
        let shares: Vec<usize> = after.shards().iter().map(|shard| slots_of(&after, *shard)).collect();
        prop_assert_eq!(shares.len(), count);
        prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
    }

    /// Indexes on one shard each: none of those that move could have stayed, or changed places with one that stays and is smaller,
    /// without making some shard fuller than it needs to be.
    #[test]
    fn no_index_moves_that_could_as_well_have_stayed(
        indexes in prop::collection::vec((1_u64..100, 0_usize..3), 1..7),
        count in 2_usize..4,
    ) {
        let before: Vec<usize> = indexes.iter().map(|(_, on)| on % count).collect();
        let sizes: Vec<u64> = indexes.iter().map(|(size, _)| *size).collect();
        let shard = |place: usize| ShardId(u16::try_from(place).unwrap());
        let maps: Vec<SlotMap> = before.iter().map(|on| SlotMap::single(shard(*on))).collect();
        let names: Vec<String> = (0..sizes.len()).map(|n| n.to_string()).collect();
        let planned: Vec<Planned<'_>> = (0..sizes.len()).map(|n| Planned {
            uid: &names[n],
            slots: &maps[n],
            shard_count: Some(1),
            bytes: [(shard(before[n]), sizes[n])].into(),
        }).collect();
        let shards: Vec<ShardId> = (0..count).map(shard).collect();
        let steps = plan(&planned, &shards);
        let mut after = before.clone();
        for step in &steps {
            let place: usize = step.index.parse().unwrap();
            prop_assert_eq!(after[place], before[place], "it moves twice");
            prop_assert_eq!(step.slots.len(), usize::from(SLOT_COUNT));
            after[place] = usize::from(step.to.0);
        }
        let reached = fill(&sizes, &after, count);
        for moved in (0..sizes.len()).filter(|n| after[*n] != before[*n]) {
            let mut stays = after.clone();
            stays[moved] = before[moved];
            let case = format!("{sizes:?} on {before:?}, then on {after:?}");
            prop_assert!(fill(&sizes, &stays, count) > reached, "{}", case);
            let beside = |n: &usize| [before[*n], after[*n]] == [before[moved]; 2];
            for other in (0..sizes.len()).filter(beside).filter(|n| sizes[*n] < sizes[moved]) {
                let mut swapped = stays.clone();
                swapped[other] = after[moved];
                let is_worse = fill(&sizes, &swapped, count) > reached;
                prop_assert!(is_worse, "{}: {} instead of {}", case, other, moved);
            }
        }
    }
}
