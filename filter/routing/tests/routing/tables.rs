use std::sync::Arc;

use weft_routing::{Epoch, IndexRoute, RoutingTable, ShardId, SlotMap, TableError};

use super::test;

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
