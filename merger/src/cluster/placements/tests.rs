use weft_routing::table::{RoutingTable, TableNews};

use super::*;
use crate::store::RedbStore;
use crate::store::memory::MemoryStore;

async fn placements(path: &std::path::Path) -> Placements {
    let store = Arc::new(RedbStore::open(path).unwrap());
    Placements::read(store, 5_000, true, Origins::Any)
        .await
        .unwrap()
}

const THREE: [ShardId; 3] = [ShardId(0), ShardId(1), ShardId(2)];

fn dealt() -> Arc<SlotMap> {
    Arc::new(SlotMap::deal(&THREE).unwrap())
}

#[tokio::test]
async fn a_placement_survives_a_restart_and_the_epoch_never_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let before = placements(&path).await;
    let made = before
        .place("movies", &dealt(), None)
        .await
        .unwrap()
        .unwrap();
    before.set_primary_key("movies", Some("id")).await.unwrap();
    let epoch = before.epoch();
    drop(before);
    let after = placements(&path).await;
    let found = after.get("movies").unwrap();
    assert_eq!(found.slots, made.placement.slots);
    assert_eq!(found.primary_key.as_deref(), Some("id"));
    assert!(after.epoch() >= epoch);
}

#[tokio::test]
async fn other_origins_are_another_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let mut held = None;
    for (origins, is_new) in [
        ("any", false),
        ("https://a.example", true),
        ("https://a.example", false),
        ("none", true),
        ("any", true),
    ] {
        let store = Arc::new(RedbStore::open(&path).unwrap());
        let origins: Origins = origins.parse().unwrap();
        let all = Placements::read(store, 5_000, true, origins.clone())
            .await
            .unwrap();
        all.begin().await.unwrap();
        let (epoch, json) = all.table();
        let table = RoutingTable::from_json(json.as_bytes()).unwrap();
        assert_eq!(table.origins, origins);
        let before = held.replace(epoch).unwrap_or(epoch);
        assert_eq!(epoch > before, is_new, "{origins}");
    }
}

#[tokio::test]
async fn a_deleted_index_that_is_written_to_again_keeps_its_placement() {
    let folder = tempfile::tempdir().unwrap();
    let all = placements(&folder.path().join("weft.redb")).await;
    all.place("movies", &dealt(), None).await.unwrap().unwrap();
    all.set_primary_key("movies", Some("id")).await.unwrap();
    all.mark_deleted("movies", 5).await.unwrap();
    let again = all.place("movies", &dealt(), None).await.unwrap().unwrap();
    assert_eq!(again.before, Before::Dying);
    all.remove_deleted("movies", 5).await.unwrap();
    assert_eq!(all.get("movies").unwrap().primary_key, None);
    all.mark_deleted("movies", 7).await.unwrap();
    all.remove_deleted("movies", 7).await.unwrap();
    assert!(all.get("movies").is_none());
}

#[tokio::test]
async fn an_index_written_to_while_its_deletion_is_stored_is_placed() {
    let store = MemoryStore::default();
    let all = Placements::read(Arc::new(store.clone()), 5_000, true, Origins::Any);
    let all = all.await.unwrap();
    all.place("movies", &dealt(), None).await.unwrap();
    all.mark_deleted("movies", 5).await.unwrap();
    let slow = store.hold().await;
    let write = async {
        // The placement is still visible.
        assert!(all.get("movies").is_some());
        let slots = dealt();
        let placed = all.place("movies", &slots, None);
        let (placed, ()) = tokio::join!(placed, async { drop(slow) });
        placed.unwrap().unwrap()
    };
    // The order is fixed: the deletion is being stored when the write comes.
    let (gone, placed) = tokio::join!(all.remove_deleted("movies", 5), write);
    gone.unwrap();
    assert_eq!(placed.before, Before::Absent);
    assert_eq!(all.get("movies"), Some(placed.placement));
    let elsewhere = Arc::new(SlotMap::deal(&THREE[..1]).unwrap());
    assert!(
        all.place("movies", &elsewhere, None)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn direct_writes_are_for_shards_of_one_replica_and_a_known_primary_key() {
    let folder = tempfile::tempdir().unwrap();
    let all = placements(&folder.path().join("weft.redb")).await;
    all.place("movies", &dealt(), None).await.unwrap().unwrap();
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

#[tokio::test]
async fn filters_have_an_index_again_when_no_change_wants_it_away() {
    let folder = tempfile::tempdir().unwrap();
    let all = placements(&folder.path().join("weft.redb")).await;
    all.place("movies", &dealt(), None).await.unwrap().unwrap();
    let directed = || {
        let table = RoutingTable::from_json(all.table().1.as_bytes()).unwrap();
        table.get("movies").unwrap().direct_reads
    };
    let uids = ["movies".to_owned()];
    assert!(directed());
    // One change claims the index twice, as a retry does.
    for change in ["one", "one", "other"] {
        all.leave_to_merger(change, &uids, true).await.unwrap();
        assert!(!directed());
    }
    all.leave_to_merger("one", &uids, false).await.unwrap();
    assert!(!directed(), "the other change goes on");
    all.leave_to_merger("a third, which never took it", &uids, false)
        .await
        .unwrap();
    assert!(!directed());
    all.leave_to_merger("other", &uids, false).await.unwrap();
    assert!(directed());
}

/// A follower that applies what the leader stores has the leader's table in every epoch.
#[tokio::test]
async fn a_follower_serves_the_same_table() {
    let store = MemoryStore::default();
    let leader = Placements::read(Arc::new(store.clone()), 5_000, false, Origins::Any);
    let leader = leader.await.unwrap();
    let follower = Placements::read(Arc::new(MemoryStore::default()), 5_000, false, Origins::Any);
    let follower = follower.await.unwrap();
    let entries = || async {
        let all = store.range("").await.unwrap().into_iter();
        all.map(|(key, entry)| (key, Some(entry.value)))
            .collect::<Vec<_>>()
    };
    let names = ["movies".to_owned(), "films".to_owned()];
    leader.place("movies", &dealt(), None).await.unwrap();
    leader.place("films", &dealt(), None).await.unwrap();
    follower.apply(&entries().await).unwrap();
    assert_eq!(follower.table(), leader.table());
    leader.leave_to_merger("swap", &names, true).await.unwrap();
    assert_ne!(follower.table(), leader.table());
    follower.apply(&entries().await).unwrap();
    assert_eq!(follower.table(), leader.table());
    leader.leave_to_merger("swap", &names, false).await.unwrap();
    leader.remove("films").await.unwrap();
    let gone = ["undirected", "placement/films"].map(|key| (key.to_owned(), None));
    follower.apply(&gone).unwrap();
    follower.apply(&entries().await).unwrap();
    assert_eq!(follower.table(), leader.table());
    assert!(follower.get("films").is_none());
    let odd = [("placement/films".to_owned(), Some(b"{".to_vec()))];
    assert_eq!(follower.apply(&odd), Err("placement/films".to_owned()));
}

/// A filter, which polls as one that understands changes.
#[derive(Default)]
struct Filter {
    table: Option<RoutingTable>,
    changes: usize,
}

impl Filter {
    fn poll(&mut self, all: &Placements) {
        let since = self.table.as_ref().map(|table| table.epoch);
        let changes = since.and_then(|since| all.changes_since(since));
        let json = changes.unwrap_or_else(|| all.table().1.to_string());
        match TableNews::from_json(json.as_bytes()).unwrap() {
            TableNews::Whole(table) => self.table = Some(table),
            TableNews::Change(change) => {
                self.changes += 1;
                self.table.as_mut().unwrap().apply(change).unwrap();
            }
        }
        let whole = all.table().1;
        let whole = RoutingTable::from_json(whole.as_bytes()).unwrap();
        assert_eq!(self.table.as_ref(), Some(&whole));
    }
}

#[tokio::test]
async fn filters_that_are_told_what_has_changed_hold_the_whole_table() {
    for seed in 0..3 {
        let mut random = fastrand::Rng::with_seed(seed);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let all = Placements::read(store, 5_000, true, Origins::Any).await;
        let all = all.unwrap();
        all.begin().await.unwrap();
        let layouts: Vec<Arc<SlotMap>> = THREE
            .iter()
            .map(|shard| Arc::new(SlotMap::single(*shard)))
            .chain([dealt()])
            .collect();
        let mut filters = [Filter::default(), Filter::default(), Filter::default()];
        for step in 0..400 {
            let uid = format!("tenant-{}", random.u32(0..120));
            let uids = [uid.clone(), format!("tenant-{}", random.u32(0..120))];
            match random.u32(0..if step < 150 { 3 } else { 12 }) {
                0..=3 => {
                    let slots = &layouts[random.usize(0..layouts.len())];
                    all.place(&uid, slots, None).await.map(drop).unwrap();
                }
                4 => all.remove(&uid).await.unwrap(),
                5 => {
                    let key = random.bool().then_some("id");
                    all.set_primary_key(&uid, key).await.unwrap();
                }
                6 => all.mark_deleted(&uid, 7).await.unwrap(),
                7 => all.revive(&uid).await.unwrap(),
                8 => all.leave_to_merger("move", &uids, true).await.unwrap(),
                9 => all.leave_to_merger("move", &uids, false).await.unwrap(),
                10 => {
                    let shards = THREE.into_iter().filter(|_| random.bool()).collect();
                    all.set_single_replica(shards).await.unwrap();
                }
                _ => {
                    let on = [ShardId(random.u16(0..3))];
                    all.set_unsettled(&uid, &on, random.bool()).await.unwrap();
                }
            }
            // One polls often, one seldom.
            for (filter, every) in filters.iter_mut().zip([1, 5, 60]) {
                if random.u32(0..every) == 0 {
                    filter.poll(&all);
                }
            }
        }
        assert!(filters[0].changes > 100, "{}", filters[0].changes);
        assert!(filters[1].changes > 10, "{}", filters[1].changes);
    }
}
