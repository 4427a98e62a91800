use std::collections::BTreeMap;
use std::sync::Arc;

use weft_routing::{
    Epoch, IndexRoute, RoutingTable, ShardId, SlotMap, TableChange, TableError, TableNews,
};

use super::{Random, test};

fn shards(count: u16) -> Vec<ShardId> {
    (0..count).map(ShardId).collect()
}

fn table() -> RoutingTable {
    let three = Arc::new(SlotMap::deal(&shards(3)).unwrap());
    let many = Arc::new(SlotMap::deal(&shards(100)).unwrap());
    let movies = IndexRoute {
        primary_key: Some("id".to_owned()),
        direct_writes: true,
        ..IndexRoute::new(three)
    };
    let joined = IndexRoute {
        direct_reads: false,
        ..IndexRoute::new(many)
    };
    let mut indexes: hashbrown::HashMap<String, IndexRoute> =
        [("movies".to_owned(), movies), ("joined".to_owned(), joined)]
            .into_iter()
            .collect();
    for tenant in 0..2000_u16 {
        let slots = Arc::new(SlotMap::single(ShardId(tenant % 3)));
        indexes.insert(format!("tenant-{tenant}"), IndexRoute::new(slots));
    }
    RoutingTable {
        epoch: Epoch(7),
        origins: weft_routing::Origins::Any,
        lease_ms: 3000,
        indexes,
    }
}

#[test]
fn a_table_survives_the_wire() {
    let table = table();
    let json = table.to_json().unwrap();
    let back = RoutingTable::from_json(json.as_bytes()).unwrap();
    assert_eq!(back, table);
    assert_eq!(back.to_json().unwrap(), json);
}

#[test]
fn thousands_of_small_indexes_stay_small() {
    let json = table().to_json().unwrap();
    // Two layouts of 4 and 8 KB, and about 30 bytes per index.
    assert!(json.len() < 90_000, "{} bytes", json.len());
    let back = RoutingTable::from_json(json.as_bytes()).unwrap();
    let (one, other) = (back.get("tenant-0").unwrap(), back.get("tenant-3").unwrap());
    assert!(Arc::ptr_eq(&one.slots, &other.slots));
}

#[test]
fn what_a_reader_doesnt_know_it_refuses() {
    let whole =
        r#"{"epoch":1,"leaseMs":5,"layouts":[{"shards":[3]}],"indexes":{"a":{"layout":0}}}"#;
    let read = RoutingTable::from_json(whole.as_bytes()).unwrap();
    assert_eq!(
        read.get("a").unwrap(),
        &IndexRoute::new(Arc::new(SlotMap::single(ShardId(3))))
    );
    for (from, to) in [
        ("\"epoch\":1", "\"epoch\":1,\"new\":2"),
        ("\"layout\":0", "\"layout\":0,\"strategy\":\"range\""),
        ("\"shards\":[3]", "\"shards\":[3],\"weights\":[1]"),
        ("\"layout\":0", "\"layout\":1"),
        ("\"shards\":[3]", "\"shards\":[]"),
        ("\"shards\":[3]", "\"shards\":[3],\"slots\":\"A\""),
        ("\"shards\":[3]", "\"shards\":[3,4],\"slots\":\"AB\""),
        ("\"shards\":[3]", "\"shards\":[3,4]"),
        ("\"shards\":[3]", "\"shards\":[70000]"),
        ("\"epoch\":1", "\"epoch\":-1"),
        ("\"leaseMs\":5,", ""),
    ] {
        let broken = whole.replace(from, to);
        assert!(
            RoutingTable::from_json(broken.as_bytes()).is_err(),
            "{broken}"
        );
    }
    let beyond = format!("\"shards\":[3,4],\"slots\":\"{}C\"", "A".repeat(4095));
    let beyond = whole.replace("\"shards\":[3]", &beyond);
    assert!(matches!(
        RoutingTable::from_json(beyond.as_bytes()),
        Err(TableError::Layout(0))
    ));
}

#[test]
fn truncated_tables_are_refused_at_every_byte() {
    let json = r#"{"epoch":1,"leaseMs":5,"layouts":[{"shards":[3]}],"indexes":{"a":{"layout":0}}}"#;
    for end in 0..json.len() {
        assert!(
            RoutingTable::from_json(&json.as_bytes()[..end]).is_err(),
            "{end}"
        );
    }
}

/// What has to be told to somebody who holds one table and is to hold another.
fn change(from: &RoutingTable, to: &RoutingTable) -> TableChange {
    let is_new = |(uid, route): &(&String, &IndexRoute)| from.get(uid) != Some(*route);
    let changed = to.indexes.iter().filter(is_new);
    let changed: BTreeMap<String, IndexRoute> = changed
        .map(|(uid, route)| (uid.clone(), route.clone()))
        .collect();
    let gone = from.indexes.keys().filter(|uid| to.get(uid).is_none());
    TableChange {
        since: from.epoch,
        epoch: to.epoch,
        lease_ms: to.lease_ms,
        origins: to.origins.clone(),
        changed,
        gone: gone.cloned().collect(),
    }
}

fn layout(random: &mut Random) -> Arc<SlotMap> {
    let all = shards(5);
    let count = 1 + usize::try_from(random.below(4)).unwrap();
    let slots = SlotMap::deal(&all[..count]).unwrap();
    Arc::new(match random.below(3) {
        0 => slots.by("field:tenant".parse().unwrap()),
        1 => slots.by("range:5,b".parse().unwrap()),
        _ => slots,
    })
}

#[test]
fn changes_one_after_the_other_make_the_whole_table() {
    let mut random = Random(7);
    let mut table = table();
    let mut held = table.clone();
    let mut told = 0;
    for epoch in 8..200 {
        table.epoch = Epoch(epoch);
        for _ in 0..random.below(6) {
            let uid = format!("tenant-{}", random.below(40));
            match random.below(4) {
                0 => drop(table.indexes.remove(&uid)),
                1 => {
                    if let Some(route) = table.indexes.get_mut(&uid) {
                        route.direct_reads = !route.direct_reads;
                        route.primary_key = Some(epoch.to_string());
                    }
                }
                _ => {
                    let route = IndexRoute::new(layout(&mut random));
                    table.indexes.insert(uid, route);
                }
            }
        }
        if random.below(3) == 0 {
            let json = change(&held, &table).to_json().unwrap();
            assert!(RoutingTable::from_json(json.as_bytes()).is_err());
            let news = TableNews::from_json(json.as_bytes()).unwrap();
            let TableNews::Change(change) = news else {
                panic!("{json}");
            };
            held.apply(change).unwrap();
            assert_eq!(held, table);
            told += 1;
        }
    }
    assert!(told > 30, "{told}");
    // Indexes with the same slots share them, as in a table that was told as a whole.
    let same = |one: &IndexRoute, other: &IndexRoute| {
        one.slots != other.slots || Arc::ptr_eq(&one.slots, &other.slots)
    };
    let whole = table.to_json().unwrap();
    let whole = RoutingTable::from_json(whole.as_bytes()).unwrap();
    let mut fresh = RoutingTable {
        epoch: held.epoch,
        ..RoutingTable::default()
    };
    fresh.apply(change(&fresh, &whole)).unwrap();
    let more = IndexRoute::new(Arc::new((*whole.get("movies").unwrap().slots).clone()));
    let one = TableChange {
        since: fresh.epoch,
        epoch: Epoch(200),
        changed: BTreeMap::from([("more".to_owned(), more)]),
        ..TableChange::default()
    };
    fresh.apply(one).unwrap();
    let more = fresh.get("more").unwrap();
    assert!(fresh.indexes.values().all(|route| same(route, more)));
}

#[test]
fn a_change_of_another_table_changes_nothing() {
    let table = table();
    let mut held = table.clone();
    for since in [6, 8] {
        let other = TableChange {
            since: Epoch(since),
            epoch: Epoch(9),
            gone: vec!["movies".to_owned()],
            ..TableChange::default()
        };
        assert!(held.apply(other).is_err());
        assert_eq!(held, table);
    }
}

#[test]
fn a_whole_table_is_no_change_and_the_other_way_round() {
    let json = table().to_json().unwrap();
    let news = TableNews::from_json(json.as_bytes()).unwrap();
    assert_eq!(news, TableNews::Whole(table()));
    for part in [
        r#"{"epoch":2,"since":1,"leaseMs":5,"layouts":[],"indexes":{}}"#,
        r#"{"epoch":2,"leaseMs":5,"layouts":[],"indexes":{},"gone":["a"]}"#,
    ] {
        assert!(matches!(
            RoutingTable::from_json(part.as_bytes()),
            Err(TableError::Change)
        ));
    }
}
