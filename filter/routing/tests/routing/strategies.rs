use std::sync::Arc;

use weft_routing::{
    BadRanges, DocumentId, IdKey, IndexRoute, MAX_BOUNDARIES, Ranges, RoutingTable, SLOT_COUNT,
    ShardId, Slot, SlotMap, Strategy, slot_of,
};

use super::{Random, test};

fn id(text: &str) -> DocumentId<'_> {
    DocumentId::from_text(text).unwrap()
}

fn key(text: &str) -> IdKey {
    IdKey::of(&id(text))
}

fn ranges(boundaries: &[&str]) -> Ranges {
    Ranges::new(boundaries.iter().map(|text| key(text)).collect()).unwrap()
}

fn shards(count: u16) -> Vec<ShardId> {
    (0..count).map(ShardId).collect()
}

fn random_id(random: &mut Random) -> String {
    match random.below(4) {
        0 => random.below(2_000).to_string(),
        1 => random.next().to_string(),
        2 => format!("-{}", random.below(1 << 40) + 1),
        _ => {
            const LETTERS: &[u8] = b"AZaz09_-";
            let length = random.below(6) + 1;
            let letters = (0..length).map(|_| char::from(LETTERS[random.below(8) as usize]));
            letters.collect()
        }
    }
}

#[test]
fn integers_come_first_by_value_and_other_ids_follow_byte_by_byte() {
    let ordered = [
        "-9223372036854775808",
        "-10",
        "-9",
        "0",
        "9",
        "10",
        "18446744073709551615",
        "-",
        "-0",
        "042",
        "18446744073709551616",
        "1e3",
        "A",
        "Z",
        "_",
        "a",
        "aa",
        "b",
    ];
    for pair in ordered.windows(2) {
        assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
    }
    assert_eq!(IdKey::of(&DocumentId::from_json("42").unwrap()), key("42"));
    assert_eq!(key("042").to_string(), "042");
    assert_eq!(key("-7").to_string(), "-7");
}

/// Fixes where stored documents are. A change that fails this test would lose every document of every index by range.
#[test]
fn slots_by_range_of_known_ids_never_change() {
    let ranges = ranges(&["-5", "1000", "a", "m"]);
    let known = [
        ("-7", 577),
        ("-5", 1637),
        ("0", 900),
        ("42", 876),
        ("999", 1237),
        ("1000", 2284),
        ("18446744073709551615", 2102),
        ("Zz9", 1924),
        ("a", 3195),
        ("lzz", 2586),
        ("tt0111161", 4052),
    ];
    let slots: Vec<(&str, u16)> = known
        .iter()
        .map(|(text, _)| (*text, ranges.slot_of(&id(text)).0))
        .collect();
    assert_eq!(slots, known);
}

#[test]
fn ranges_cover_all_slots_and_every_id_lies_within_its_own() {
    let mut random = Random(17);
    for _ in 0..60 {
        let count = 1 + random.below(MAX_BOUNDARIES as u64);
        let mut boundaries: Vec<IdKey> = (0..count).map(|_| key(&random_id(&mut random))).collect();
        boundaries.sort();
        boundaries.dedup();
        let ranges = Ranges::new(boundaries.clone()).unwrap();
        let mut next = 0;
        let (mut least, mut most) = (u16::MAX, 0);
        for range in ranges.iter() {
            assert_eq!(range.first, Slot(next));
            next += range.slots;
            (least, most) = (least.min(range.slots), most.max(range.slots));
        }
        assert_eq!(next, SLOT_COUNT);
        assert!(least > 0 && most - least <= 1);
        for _ in 0..200 {
            let text = random_id(&mut random);
            let (key, slot) = (key(&text), ranges.slot_of(&id(&text)));
            let holds = |range: &weft_routing::IdRange<'_>| {
                range.from.is_none_or(|from| *from <= key) && range.to.is_none_or(|to| key < *to)
            };
            let mut holding = ranges.iter().filter(holds);
            let range = holding.next().unwrap();
            assert!(holding.next().is_none());
            assert!(slot >= range.first && slot.0 < range.first.0 + range.slots);
        }
    }
}

#[test]
fn boundaries_ascend_and_are_few() {
    let new = |texts: &[&str]| Ranges::new(texts.iter().map(|text| key(text)).collect());
    assert_eq!(new(&[]), Err(BadRanges::None));
    assert_eq!(
        new(&["9", "10", "10"]),
        Err(BadRanges::Order("10".to_owned()))
    );
    assert_eq!(new(&["a", "10"]), Err(BadRanges::Order("10".to_owned())));
    let many: Vec<IdKey> = (0..=MAX_BOUNDARIES).map(|n| key(&n.to_string())).collect();
    assert_eq!(Ranges::new(many.clone()), Err(BadRanges::TooMany));
    assert!(Ranges::new(many[1..].to_vec()).is_ok());
}

#[test]
fn as_many_ranges_as_shards_lie_on_one_shard_each_and_shares_are_level() {
    for count in [2_u16, 3, 5, 8, 39] {
        let boundaries = (1..i128::from(count)).map(IdKey::Integer).collect();
        let strategy = Strategy::Range(Ranges::new(boundaries).unwrap());
        let map = SlotMap::deal_by(&strategy, &shards(count)).unwrap();
        assert_eq!(map.strategy(), &strategy);
        for number in 0..count {
            let text = number.to_string();
            assert_eq!(
                map.shard_of(&id(&text)).unwrap(),
                ShardId(number),
                "{number} of {count}"
            );
        }
        // A rebalance finds nothing to do, and keeps the strategy.
        assert_eq!(map.levelled(&shards(count)).unwrap(), map);
        let fewer = map.levelled(&shards(count - 1)).unwrap();
        assert_eq!(fewer.strategy(), &strategy);
        let moved = map.with_owner_of_all(&[Slot(0)], ShardId(count));
        assert_eq!(moved.strategy(), &strategy);
        assert_ne!(moved.clone().by(Strategy::Hash), moved);
    }
    for count in [1, 3, 7] {
        let strategy = Strategy::Range(ranges(&["5", "m"]));
        let map = SlotMap::deal_by(&strategy, &shards(count)).unwrap();
        let loads = map
            .shards()
            .iter()
            .map(|shard| map.slots_of(*shard).count());
        let (least, most) = (loads.clone().min().unwrap(), loads.max().unwrap());
        assert!(most - least <= 1);
    }
    assert!(SlotMap::deal_by(&Strategy::Range(ranges(&["5"])), &[]).is_err());
}

#[test]
fn by_hash_nothing_is_different() {
    let dealt = SlotMap::deal_by(&Strategy::Hash, &shards(3)).unwrap();
    assert_eq!(dealt, SlotMap::deal(&shards(3)).unwrap());
    assert_eq!(dealt.slot_of(&id("42")), Some(slot_of(&id("42"))));
}

#[test]
fn a_table_carries_ranges_and_refuses_bad_ones() {
    let strategy = Strategy::Range(ranges(&["-5", "1000", "a", "m_-9"]));
    let mut table = RoutingTable::default();
    for (uid, count) in [("three", 3), ("one", 1), ("many", 70)] {
        let map = SlotMap::deal_by(&strategy, &shards(count)).unwrap();
        table
            .indexes
            .insert(uid.to_owned(), IndexRoute::new(Arc::new(map)));
    }
    let plain = SlotMap::deal(&shards(3)).unwrap();
    table
        .indexes
        .insert("hash".to_owned(), IndexRoute::new(Arc::new(plain)));
    let json = table.to_json().unwrap();
    assert_eq!(RoutingTable::from_json(json.as_bytes()).unwrap(), table);
    for bad in [
        r#"["1000","-5"]"#,
        r#"["a b"]"#,
        r#"[""]"#,
        r#"[1]"#,
        r#"["5","5"]"#,
    ] {
        let json = format!(
            r#"{{"epoch":1,"leaseMs":5,"layouts":[{{"shards":[3],"ranges":{bad}}}],"indexes":{{}}}}"#
        );
        assert!(RoutingTable::from_json(json.as_bytes()).is_err(), "{json}");
    }
}

#[test]
fn a_strategy_can_be_given_as_a_text() {
    assert_eq!("hash".parse(), Ok(Strategy::Hash));
    assert_eq!(
        "range:-5, 1000,a".parse(),
        Ok(Strategy::Range(ranges(&["-5", "1000", "a"])))
    );
    for bad in [
        "",
        "Hash",
        "range",
        "range:",
        "range:2,1",
        "range:a b",
        "field:x.y",
    ] {
        assert!(bad.parse::<Strategy>().is_err(), "{bad}");
    }
}
