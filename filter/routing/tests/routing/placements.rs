use std::collections::BTreeMap;

use weft_routing::{DocumentId, NoShards, SLOT_COUNT, ShardId, Slot, SlotMap, choose_shards};

use super::{Random, test};

fn shards(count: u16) -> Vec<ShardId> {
    (0..count).map(ShardId).collect()
}

fn loads(map: &SlotMap) -> BTreeMap<ShardId, usize> {
    map.shards()
        .iter()
        .map(|shard| (*shard, map.slots_of(*shard).count()))
        .collect()
}

fn assert_even(map: &SlotMap, what: &str) {
    let loads = loads(map);
    let (least, most) = (loads.values().min().unwrap(), loads.values().max().unwrap());
    assert!(most - least <= 1, "{what}: {loads:?}");
    assert_eq!(
        loads.values().sum::<usize>(),
        usize::from(SLOT_COUNT),
        "{what}"
    );
}

fn moved(from: &SlotMap, to: &SlotMap) -> Vec<(ShardId, ShardId)> {
    from.owners()
        .iter()
        .copied()
        .zip(to.owners().iter().copied())
        .filter(|(a, b)| a != b)
        .collect()
}

#[test]
fn ten_thousand_documents_on_three_shards_are_even_disjoint_and_complete() {
    let map = SlotMap::deal(&shards(3)).unwrap();
    let mut random = Random(7);
    let kinds: [fn(u64, &mut Random) -> String; 4] = [
        |n, _| n.to_string(),
        |n, _| format!("package-{n}"),
        |_, random| format!("{:016x}", random.next()),
        |n, _| format!("tt{n:07}"),
    ];
    for (kind, make) in kinds.iter().enumerate() {
        let mut counts: BTreeMap<ShardId, u32> = BTreeMap::new();
        for n in 0..10_000 {
            let id = make(n, &mut random);
            let owner = map.shard_of(&DocumentId::from_text(&id).unwrap()).unwrap();
            *counts.entry(owner).or_default() += 1;
        }
        assert_eq!(counts.values().sum::<u32>(), 10_000);
        assert_eq!(counts.len(), 3);
        for count in counts.values() {
            let share = f64::from(*count) / (10_000.0 / 3.0);
            assert!((0.95..=1.05).contains(&share), "kind {kind}: {counts:?}");
        }
    }
}

#[test]
fn shares_differ_by_one_slot_at_most() {
    for count in [1, 2, 3, 5, 7, 16, 64, 65, 100, 1000, 4096] {
        let map = SlotMap::deal(&shards(count)).unwrap();
        assert_eq!(map.shards(), shards(count));
        assert_even(&map, &format!("{count} shards"));
    }
    let more_than_slots = SlotMap::deal(&shards(5000)).unwrap();
    assert_eq!(more_than_slots.shards().len(), 4096);
}

#[test]
fn a_new_shard_takes_its_share_and_nothing_else_moves() {
    let mut map = SlotMap::deal(&shards(1)).unwrap();
    for newcomer in 1..90 {
        let grown = map.levelled(&shards(newcomer + 1)).unwrap();
        assert_even(&grown, &format!("{newcomer} joined"));
        let moves = moved(&map, &grown);
        assert!(moves.iter().all(|(_, to)| *to == ShardId(newcomer)));
        assert!(moves.len() <= usize::from(SLOT_COUNT / (newcomer + 1)));
        map = grown;
    }
}

fn without(map: &SlotMap, leaver: ShardId) -> Vec<ShardId> {
    let left = map.shards().iter().copied();
    left.filter(|shard| *shard != leaver).collect()
}

#[test]
fn a_leaving_shards_slots_are_spread_and_nothing_else_moves() {
    let mut random = Random(3);
    let mut map = SlotMap::deal(&shards(23)).unwrap();
    while map.shards().len() > 1 {
        let leaver = map.shards()[random.below(map.shards().len() as u64) as usize];
        let left = without(&map, leaver);
        let shrunk = map.levelled(&left).unwrap();
        assert_even(&shrunk, &format!("{leaver} left"));
        assert!(moved(&map, &shrunk).iter().all(|(from, _)| *from == leaver));
        assert!(!shrunk.shards().contains(&leaver));
        map = shrunk;
    }
}

#[test]
fn shards_come_and_go_in_any_order_and_shares_stay_even() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut map = SlotMap::deal(&shards(4)).unwrap();
        for step in 0..30 {
            let shard = ShardId(random.below(12) as u16);
            let mut wanted = without(&map, shard);
            if wanted.len() == map.shards().len() || wanted.is_empty() {
                wanted.push(shard);
            }
            map = map.levelled(&wanted).unwrap();
            assert_even(&map, &format!("seed {seed} step {step}"));
        }
    }
}

#[test]
fn the_order_of_shards_and_repetitions_dont_matter() {
    let one = SlotMap::deal(&[ShardId(2), ShardId(0), ShardId(1), ShardId(2)]).unwrap();
    assert_eq!(one, SlotMap::deal(&shards(3)).unwrap());
    let again = [ShardId(1), ShardId(2), ShardId(0), ShardId(1)];
    assert_eq!(one.levelled(&again).unwrap(), one);
    assert_eq!(SlotMap::deal(&[]), Err(NoShards));
}

#[test]
fn slots_can_be_given_away() {
    let map = SlotMap::single(ShardId(4)).with_owner_of_all(&[Slot(17)], ShardId(9));
    assert_eq!(map.shard_of_slot(Slot(17)), ShardId(9));
    assert_eq!(map.shard_of_slot(Slot(18)), ShardId(4));
    assert_eq!(map.shards(), [ShardId(4), ShardId(9)]);
    assert_eq!(map.shard_of_slot(Slot(60_000)), ShardId(4));
}

#[test]
fn small_indexes_are_spread_evenly_and_keep_their_shards_when_others_join() {
    let (ten, eleven) = (shards(10), shards(11));
    let mut counts: BTreeMap<ShardId, u32> = BTreeMap::new();
    let mut moves = 0;
    for tenant in 0..10_000 {
        let uid = format!("tenant-{tenant}");
        let chosen = choose_shards(&uid, &ten, 1);
        *counts.entry(chosen[0]).or_default() += 1;
        let later = choose_shards(&uid, &eleven, 1);
        assert!(later == chosen || later == [ShardId(10)]);
        moves += u32::from(later != chosen);
        let two = choose_shards(&uid, &ten, 2);
        assert!(two.contains(&chosen[0]) && two.is_sorted() && two.len() == 2);
    }
    assert!(
        counts.values().all(|count| (880..=1120).contains(count)),
        "{counts:?}"
    );
    assert!((780..=1040).contains(&moves), "{moves}");
    assert_eq!(choose_shards("x", &ten, 99), ten);
    assert!(choose_shards("x", &ten, 0).is_empty());
}

#[test]
fn levelling_evens_any_map_out_and_moves_no_more_than_it_must() {
    let mut random = Random(11);
    for round in 0..60 {
        let before_count = 1 + random.next() % 6;
        let owners = (0..SLOT_COUNT)
            .map(|_| ShardId(u16::try_from(random.next() % before_count).unwrap()))
            .collect();
        let before = SlotMap::from_owners(owners).unwrap();
        let first = u16::try_from(random.next() % 4).unwrap();
        let wanted: Vec<ShardId> = (first..=first + u16::try_from(random.next() % 5).unwrap())
            .map(ShardId)
            .collect();
        let after = before.levelled(&wanted).unwrap();
        assert_even(&after, &format!("round {round}"));
        assert_eq!(after.shards(), wanted);
        // What a shard has beyond its share must go, and nothing else.
        let all = usize::from(SLOT_COUNT);
        let (base, extras) = (all / wanted.len(), all % wanted.len());
        let mut kept: Vec<usize> = wanted
            .iter()
            .map(|shard| before.slots_of(*shard).count())
            .collect();
        kept.sort_unstable_by(|a, b| b.cmp(a));
        let kept: usize = kept
            .iter()
            .enumerate()
            .map(|(place, count)| *count.min(&(base + usize::from(place < extras))))
            .sum();
        assert_eq!(moved(&before, &after).len(), all - kept, "round {round}");
        assert_eq!(after.levelled(&wanted).unwrap(), after);
        assert_eq!(before.levelled(&wanted).unwrap(), after, "the same again");
    }
    assert_eq!(SlotMap::single(ShardId(0)).levelled(&[]), Err(NoShards));
}

#[test]
fn a_new_shard_takes_the_same_share_from_each_of_the_others() {
    let three = SlotMap::deal(&shards(3)).unwrap();
    let four = three.levelled(&shards(4)).unwrap();
    let moves = moved(&three, &four);
    assert_eq!(moves.len(), usize::from(SLOT_COUNT) / 4);
    assert!(moves.iter().all(|(_, to)| *to == ShardId(3)));
    for shard in shards(3) {
        let given = moves.iter().filter(|(from, _)| *from == shard).count();
        assert!((340..=343).contains(&given), "{shard}: {given}");
    }
}
