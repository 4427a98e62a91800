use weft_routing::{DocumentId, ShardId, Slot, SlotMap, choose_shards, slot_of};
use xxhash_rust::xxh3::xxh3_64;

use super::test;

fn slot(id: &str) -> Slot {
    slot_of(&DocumentId::from_text(id).unwrap())
}

/// Fixes where stored documents are. A change that fails this test would lose every document of every cluster.
#[test]
fn slots_of_known_ids_never_change() {
    let known = [
        ("0", 408),
        ("1", 1628),
        ("42", 289),
        ("-7", 2889),
        ("18446744073709551615", 2323),
        ("a", 3692),
        ("tt0111161", 3880),
        ("package-63666", 1361),
        ("__--__", 241),
        ("Zz9", 1431),
    ];
    for (id, expected) in known {
        assert_eq!(slot(id), Slot(expected), "{id}");
    }
    let longest = "x".repeat(511);
    assert_eq!(slot(&longest), Slot(462));
}

/// Fixes assignments. A change that fails this test would place new indexes otherwise than old ones, for no need.
#[test]
fn dealing_of_slots_never_changes() {
    let shards: Vec<ShardId> = (0..7).map(ShardId).collect();
    let digest = |map: &SlotMap| {
        let bytes: Vec<u8> = map
            .owners()
            .iter()
            .flat_map(|owner| owner.0.to_le_bytes())
            .collect();
        xxh3_64(&bytes)
    };
    let dealt = SlotMap::deal(&shards).unwrap();
    assert_eq!(digest(&dealt), 12_597_100_217_951_366_689);
    assert_eq!(
        choose_shards("movies", &shards, 2),
        [ShardId(0), ShardId(1)]
    );
}
