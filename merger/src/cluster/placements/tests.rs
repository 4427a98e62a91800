use super::*;
use crate::store::RedbStore;

async fn placements(path: &std::path::Path) -> Placements {
    let store = Arc::new(RedbStore::open(path).unwrap());
    Placements::open(store, 5_000, true).await.unwrap()
}

const THREE: [ShardId; 3] = [ShardId(0), ShardId(1), ShardId(2)];

#[tokio::test]
async fn a_placement_survives_a_restart_and_the_epoch_never_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let before = placements(&path).await;
    let made = before.create("movies", &THREE, 3).await.unwrap();
    before.set_primary_key("movies", Some("id")).await.unwrap();
    let epoch = before.epoch();
    drop(before);
    let after = placements(&path).await;
    let found = after.get("movies").unwrap();
    assert_eq!(found.slots, made.slots);
    assert_eq!(found.primary_key.as_deref(), Some("id"));
    assert!(after.epoch() >= epoch);
}

#[tokio::test]
async fn a_deleted_index_that_is_written_to_again_keeps_its_placement() {
    let folder = tempfile::tempdir().unwrap();
    let all = placements(&folder.path().join("weft.redb")).await;
    all.create("movies", &THREE, 3).await.unwrap();
    all.set_primary_key("movies", Some("id")).await.unwrap();
    all.mark_deleted("movies", 5).await.unwrap();
    all.revive("movies").await.unwrap();
    all.remove_deleted("movies", 5).await.unwrap();
    assert_eq!(all.get("movies").unwrap().primary_key, None);
    all.mark_deleted("movies", 7).await.unwrap();
    all.remove_deleted("movies", 7).await.unwrap();
    assert!(all.get("movies").is_none());
}

#[tokio::test]
async fn direct_writes_are_for_shards_of_one_replica_and_a_known_primary_key() {
    let folder = tempfile::tempdir().unwrap();
    let all = placements(&folder.path().join("weft.redb")).await;
    all.create("movies", &THREE, 3).await.unwrap();
    let direct = || {
        let (_, json) = all.table();
        RoutingTable::from_json(json.as_bytes())
            .unwrap()
            .get("movies")
            .unwrap()
            .direct_writes
    };
    assert!(!direct());
    all.set_single_replica(THREE.into_iter().collect())
        .await
        .unwrap();
    assert!(!direct());
    all.set_primary_key("movies", Some("id")).await.unwrap();
    assert!(direct());
    all.set_single_replica([ShardId(0), ShardId(1)].into_iter().collect())
        .await
        .unwrap();
    assert!(!direct());
}
