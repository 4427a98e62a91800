use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_routing::filters::Asked;
use weft_routing::{
    BadChange, Change, DocumentId, RoutingValue, SLOT_COUNT, ShardId, Slot, SlotMap, Strategy,
};

use super::{Random, test};

const STRATEGIES: [&str; 4] = [
    "hash",
    "range:500,1000,m",
    "range:100,500,1000,1500,f,m",
    "field:tenant",
];

fn map(strategy: &str, shards: &[u16]) -> Arc<SlotMap> {
    let strategy: Strategy = strategy.parse().unwrap();
    let shards: Vec<ShardId> = shards.iter().copied().map(ShardId).collect();
    Arc::new(SlotMap::deal_by(&strategy, &shards).unwrap())
}

fn change(old: &Arc<SlotMap>, new: &Arc<SlotMap>) -> Arc<Change> {
    Arc::new(Change::new(Arc::clone(old), Arc::clone(new)).unwrap())
}

fn random_id(random: &mut Random) -> String {
    match random.below(3) {
        0 => random.below(2_000).to_string(),
        1 => format!("{:x}", random.next()),
        _ => format!(
            "{}-{}",
            ["a", "g", "x"][random.below(3) as usize],
            random.below(90)
        ),
    }
}

/// Any two of the strategies, over a few shards that partly are the same.
fn pairs() -> Vec<(Arc<SlotMap>, Arc<SlotMap>)> {
    let sets: [&[u16]; 4] = [&[0, 1, 2], &[1, 2, 3, 9], &[2], &[0, 1, 2, 3, 4, 5, 6]];
    let mut pairs = Vec::new();
    for old in STRATEGIES {
        for new in STRATEGIES {
            for from in sets {
                for to in sets {
                    pairs.push((map(old, from), map(new, to)));
                }
            }
        }
    }
    pairs
}

#[test]
fn a_document_lies_where_it_lay_when_a_change_begins_and_where_it_is_to_lie_when_it_ends() {
    let mut random = Random(3);
    for (old, new) in pairs() {
        let change = change(&old, &new);
        let (begun, arrived) = (SlotMap::begun(&change), SlotMap::arrived(&change));
        assert_eq!(begun.shards(), old.shards());
        assert_eq!(arrived.shards(), new.shards());
        // Some slots are moved, whichever.
        let some: Vec<Slot> = (0..SLOT_COUNT)
            .filter(|_| random.below(3) == 0)
            .map(Slot)
            .collect();
        let moved = begun.with_owner_of_all(&some, ShardId(77));
        for _ in 0..40 {
            let (id, tenant) = (random_id(&mut random), random.below(30).to_string());
            let id = DocumentId::from_text(&id).unwrap();
            let value = RoutingValue::from_text(&tenant).unwrap();
            let owner = |map: &SlotMap| map.shard_of_document(&id, Some(&value)).unwrap();
            assert_eq!(owner(&begun), owner(&old));
            assert_eq!(owner(&arrived), owner(&new));
            let slot = |map: &SlotMap| map.strategy().slot_of_document(&id, Some(&value));
            assert_eq!(slot(&begun), slot(&arrived));
            assert_eq!(slot(&begun), slot(&moved));
            // Whoever goes by ids alone finds the same, or knows that ids don't tell.
            match begun.field() {
                None => assert_eq!(begun.slot_of(&id), slot(&begun)),
                Some(field) => {
                    assert_eq!(field.as_str(), "tenant");
                    assert_eq!(begun.slot_of(&id), None);
                }
            }
        }
    }
}

#[test]
fn each_pair_of_shards_has_slots_of_its_own_and_all_slots_are_some_pairs() {
    for (old, new) in pairs() {
        let change = change(&old, &new);
        let (begun, arrived) = (SlotMap::begun(&change), SlotMap::arrived(&change));
        let mut runs: Vec<(ShardId, ShardId, u16)> = Vec::new();
        for (from, to) in begun.owners().iter().zip(arrived.owners()) {
            match runs.last_mut() {
                Some((one, other, count)) if (&*one, &*other) == (from, to) => *count += 1,
                _ => runs.push((*from, *to, 1)),
            }
        }
        let seen: BTreeSet<_> = runs.iter().map(|(from, to, _)| (*from, *to)).collect();
        assert_eq!(seen.len(), runs.len(), "an interval each");
        assert_eq!(runs.len(), old.shards().len() * new.shards().len());
        let counts = || runs.iter().map(|(_, _, count)| *count);
        assert_eq!(counts().sum::<u16>(), SLOT_COUNT);
        assert!(counts().max().unwrap() - counts().min().unwrap() <= 1);
    }
}

#[test]
fn as_many_pairs_as_slots_are_possible_and_not_more_and_never_two_fields() {
    let shards: Vec<u16> = (0..65).collect();
    let (least, most) = (map("hash", &shards[..64]), map("field:a", &shards[..64]));
    let begun = SlotMap::begun(&change(&least, &most));
    assert_eq!(begun.shards().len(), 64);
    let more = map("hash", &shards);
    let refused = Change::new(Arc::clone(&more), Arc::clone(&most)).unwrap_err();
    assert_eq!(refused, BadChange::TooManyPairs { old: 65, new: 64 });
    let other = map("field:b", &[0, 1]);
    let refused = Change::new(Arc::clone(&most), Arc::clone(&other)).unwrap_err();
    assert_eq!(refused, BadChange::TwoFields);
    // A value tells nothing on one shard, but the index may go back.
    let one = map("field:a", &[0]);
    let begun = SlotMap::begun(&change(&one, &least));
    assert_eq!(begun.field().unwrap().as_str(), "a");
    let refused = Change::new(one, Arc::clone(&other)).unwrap_err();
    assert_eq!(refused, BadChange::TwoFields);
    let refused = Change::new(Arc::new(begun), other).unwrap_err();
    assert_eq!(refused, BadChange::UnderWay);
}

#[test]
fn a_document_without_the_field_has_no_slot_while_the_index_goes_to_that_field() {
    let change = change(&map("hash", &[0, 1, 2]), &map("field:tenant", &[0, 1, 2]));
    let begun = SlotMap::begun(&change);
    let id = DocumentId::from_text("7").unwrap();
    assert_eq!(begun.strategy().slot_of_document(&id, None), None);
    assert_eq!(begun.shard_of_document(&id, None), None);
    assert_eq!(begun.strategy().name(), "hash");
    assert_eq!(begun.change(), Some(&change));
    assert_eq!(change.old().change(), None);
}

#[test]
fn a_search_asks_all_shards_while_the_strategy_changes() {
    for (old, new) in [
        ("hash", "field:tenant"),
        ("field:tenant", "hash"),
        ("range:500", "range:500,1000"),
    ] {
        let (old, new) = (map(old, &[0, 1, 2]), map(new, &[0, 1, 2]));
        let begun = SlotMap::begun(&change(&old, &new));
        for filter in ["id = 7", "tenant = 7", "tenant = 7 AND id = 7"] {
            let body = format!(r#"{{"filter": "{filter}"}}"#);
            let asked = Asked::of_body(body.as_bytes()).unwrap();
            assert_eq!(asked.shards("films", None, &begun, Some("id")), None);
            assert_eq!(asked.only_shard("films", None, &begun), None);
        }
        let both = |map: &SlotMap| {
            let asked = Asked::of_body(br#"{"filter": ["tenant = 7", "id = 7"]}"#).unwrap();
            asked.shards("films", None, map, Some("id")).unwrap().len()
        };
        assert_eq!([both(&old), both(&new)], [1, 1]);
    }
}

fn loads(map: &SlotMap) -> BTreeMap<ShardId, usize> {
    let shards = map.shards().iter();
    shards
        .map(|shard| (*shard, map.slots_of(*shard).count()))
        .collect()
}

#[test]
fn from_ranges_to_other_ranges_only_what_evening_out_needs_changes_its_shard() {
    let mut random = Random(11);
    for round in 0..60 {
        let count = 1 + random.below(5) as u16;
        let shards: Vec<ShardId> = (0..count).map(ShardId).collect();
        let boundaries = |random: &mut Random| {
            let some: BTreeSet<u64> = (0..=random.below(9))
                .map(|_| random.below(40) * 50)
                .collect();
            let some: Vec<String> = some.iter().map(ToString::to_string).collect();
            format!("range:{}", some.join(","))
                .parse::<Strategy>()
                .unwrap()
        };
        let old = boundaries(&mut random);
        let old = SlotMap::deal_by(&old, &shards).unwrap();
        let strategy = boundaries(&mut random);
        let new = old.dealt_anew(&strategy, &shards).unwrap();
        assert_eq!(new.strategy(), &strategy);
        let (before, after) = (loads(&old), loads(&new));
        assert!(after.values().max().unwrap() - after.values().min().unwrap() <= 1);
        assert_eq!(before.len(), after.len());
        let ranges = |map: &SlotMap| match map.strategy() {
            Strategy::Range(ranges) => ranges.clone(),
            _ => panic!("not by range"),
        };
        let (olds, news) = (ranges(&old), ranges(&new));
        // What the shards would have had without evening out.
        let mut kept: BTreeMap<ShardId, u32> = BTreeMap::new();
        let only = |map: &SlotMap, first: Slot, slots: u16| {
            let owners: BTreeSet<ShardId> = (first.0..first.0 + slots)
                .map(|slot| map.shard_of_slot(Slot(slot)))
                .collect();
            (owners.len() == 1).then(|| *owners.first().unwrap())
        };
        for range in news.iter() {
            let holder = olds
                .iter()
                .take_while(|held| held.from <= range.from)
                .last()
                .unwrap();
            match only(&old, holder.first, holder.slots) {
                Some(owner) => *kept.entry(owner).or_default() += u32::from(range.slots),
                // It isn't known for sure how a range on several shards is split.
                None => old.shards().iter().for_each(|shard| {
                    *kept.entry(*shard).or_default() += u32::from(range.slots);
                }),
            }
        }
        let share = u32::from(SLOT_COUNT) / u32::from(count);
        for range in news.iter() {
            let same = olds
                .iter()
                .find(|held| (held.from, held.to) == (range.from, range.to));
            let owner = same.and_then(|same| only(&old, same.first, same.slots));
            let Some(owner) = owner.filter(|owner| kept[owner] <= share) else {
                continue;
            };
            let stays = only(&new, range.first, range.slots);
            assert_eq!(stays, Some(owner), "round {round}: {:?}", range.from);
        }
    }
}

#[test]
fn the_newest_range_is_split_and_the_others_stay() {
    let shards: Vec<ShardId> = (0..4).map(ShardId).collect();
    let old: Strategy = "range:1000,2000,3000".parse().unwrap();
    let old = SlotMap::deal_by(&old, &shards).unwrap();
    let new = "range:1000,2000,3000,4000".parse().unwrap();
    let new = old.dealt_anew(&new, &shards).unwrap();
    let at =
        |map: &SlotMap, id: u64| map.shard_of(&DocumentId::from_text(&id.to_string()).unwrap());
    assert!((0..3_000).all(|id| at(&new, id) == at(&old, id)));
    let moved = (3_000..6_000)
        .filter(|id| at(&new, *id) != at(&old, *id))
        .count();
    // The two halves have two fifths of the slots, and their shard keeps a quarter.
    assert!((900..1_300).contains(&moved), "{moved}");
    // From anything else, and to anything else, slots are dealt.
    let hash = new.dealt_anew(&Strategy::Hash, &shards).unwrap();
    assert_eq!(hash, SlotMap::deal(&shards).unwrap());
    assert_eq!(hash.dealt_anew(old.strategy(), &shards).unwrap(), old);
    assert!(old.dealt_anew(new.strategy(), &[]).is_err());
    let fewer = old.dealt_anew(new.strategy(), &shards[1..]).unwrap();
    assert_eq!(fewer.shards(), &shards[1..]);
}
