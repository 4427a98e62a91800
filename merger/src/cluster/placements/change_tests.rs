//! A change of strategy in the placement: what is stored, what filters are told, and which step follows which.

use weft_routing::strategy::Change;
use weft_routing::table::{RoutingTable, TableNews};

use super::*;
use crate::store::memory::MemoryStore;

const TWO: [ShardId; 2] = [ShardId(0), ShardId(1)];

fn dealt(strategy: &str) -> Arc<SlotMap> {
    let strategy = strategy.parse().unwrap();
    Arc::new(SlotMap::deal_by(&strategy, &TWO).unwrap())
}

fn change_of(old: &Arc<SlotMap>, new: &str) -> Arc<Change> {
    Arc::new(Change::new(Arc::clone(old), dealt(new)).unwrap())
}

async fn opened(store: &MemoryStore) -> Placements {
    let store = Arc::new(store.clone());
    Placements::read(store, 5_000, true, Origins::Any)
        .await
        .unwrap()
}

async fn placed(store: &MemoryStore, strategy: &str) -> (Placements, Arc<SlotMap>) {
    let all = opened(store).await;
    let slots = dealt(strategy);
    all.place("films", &slots, None).await.unwrap().unwrap();
    (all, slots)
}

#[tokio::test]
async fn a_change_is_there_again_after_a_restart_wherever_it_stands() {
    let store = MemoryStore::default();
    let (all, old) = placed(&store, "range:5,m").await;
    let change = change_of(&old, "field:tenant");
    let then: Option<Strategy> = Some("range:7".parse().unwrap());
    let begun = all.begin_change("films", &change, then).await.unwrap();
    assert!(begun);
    let is_same = async || {
        let again = opened(&store).await;
        assert_eq!(again.get("films"), all.get("films"));
        all.get("films").unwrap()
    };
    let begun = is_same().await;
    assert_eq!(begun.change(), Some((&change, Stage::Checking)));
    let last: Strategy = "range:7".parse().unwrap();
    assert_eq!(begun.target(), &last);
    assert_eq!(begun.sure_strategy(), old.strategy());
    let on = [Stage::Checking, Stage::Moving];
    let why = Some("why".to_owned());
    assert!(all.set_stage("films", &change, on, why).await.unwrap());
    let moving = is_same().await;
    assert_eq!(moving.change_error.as_deref(), Some("why"));
    assert_eq!(moving.sure_strategy(), change.new_slots().strategy());
    let slots: Vec<_> = (1_024..1_030).map(weft_routing::slot::Slot).collect();
    let handed = all.hand_over("films", &slots, TWO, Vec::new()).await;
    assert!(handed.unwrap());
    let moved = is_same().await;
    assert_eq!(moved.change(), Some((&change, Stage::Moving)));
    assert_eq!(moved.slots.shard_of_slot(slots[0]), ShardId(1));
    // A follower reads what the leader has stored.
    let follower = opened(&MemoryStore::default()).await;
    let entries = store.range("").await.unwrap().into_iter();
    let entries: Vec<_> = entries
        .map(|(key, entry)| (key, Some(entry.value)))
        .collect();
    follower.apply(&entries).unwrap();
    assert_eq!(follower.get("films"), all.get("films"));
    assert_eq!(follower.table(), all.table());
}

#[tokio::test]
async fn a_version_that_knows_no_changes_refuses_the_placement() {
    let store = MemoryStore::default();
    let (all, old) = placed(&store, "hash").await;
    let change = change_of(&old, "field:tenant");
    all.begin_change("films", &change, None).await.unwrap();
    let stored = store.get("placement/films").await.unwrap().unwrap();
    let stored: serde_json::Value = serde_json::from_slice(&stored.value).unwrap();
    let variants: Vec<&String> = stored["slots"].as_object().unwrap().keys().collect();
    // Earlier versions know `dealt`, `owners`, `byRange` and `byField`.
    assert_eq!(variants, ["change"]);
}

#[tokio::test]
async fn each_step_is_taken_once_and_only_from_where_it_begins() {
    let store = MemoryStore::default();
    let (all, old) = placed(&store, "hash").await;
    let (change, other) = (change_of(&old, "range:5"), change_of(&old, "range:6"));
    let stages = |from, to| [from, to];
    let moves = stages(Stage::Checking, Stage::Moving);
    assert!(!all.set_stage("films", &change, moves, None).await.unwrap());
    all.set_unsettled("films", &TWO, true).await.unwrap();
    assert!(!all.begin_change("films", &change, None).await.unwrap());
    all.set_unsettled("films", &TWO, false).await.unwrap();
    assert!(all.begin_change("films", &change, None).await.unwrap());
    assert!(!all.begin_change("films", &other, None).await.unwrap());
    assert!(!all.set_stage("films", &other, moves, None).await.unwrap());
    let before = all.get("films").unwrap();
    assert!(all.set_stage("films", &change, moves, None).await.unwrap());
    assert!(!all.set_stage("films", &change, moves, None).await.unwrap());
    // Whoever saw it in another stage mustn't end it.
    let ended = all.end_change(&before, change.old(), None).await;
    assert!(!ended.unwrap());
    let before = all.get("films").unwrap();
    all.set_unsettled("films", &TWO[..1], true).await.unwrap();
    let ended = all.end_change(&before, change.new_slots(), None).await;
    assert!(!ended.unwrap(), "a shard holds what isn't its own");
    all.set_unsettled("films", &TWO[..1], false).await.unwrap();
    let ended = all.end_change(&before, change.new_slots(), None).await;
    assert!(ended.unwrap());
    let after = all.get("films").unwrap();
    assert_eq!(&after.slots, change.new_slots());
    assert_eq!((after.change(), &after.changing), (None, &None));
    // One change may follow the other in the same step.
    let next = Arc::new(Change::new(Arc::clone(&after.slots), dealt("hash")).unwrap());
    assert!(all.begin_change("films", &next, None).await.unwrap());
    let on = stages(Stage::Checking, Stage::Moving);
    all.set_stage("films", &next, on, None).await.unwrap();
    let before = all.get("films").unwrap();
    let last = Arc::new(Change::new(Arc::clone(next.new_slots()), dealt("range:9")).unwrap());
    let ended = all.end_change(&before, next.new_slots(), Some(&last)).await;
    assert!(ended.unwrap());
    let after = all.get("films").unwrap();
    assert_eq!(after.change(), Some((&last, Stage::Checking)));
}

#[tokio::test]
async fn why_a_change_has_led_to_nothing_is_known_until_the_next_one() {
    let store = MemoryStore::default();
    let (all, old) = placed(&store, "hash").await;
    let change = change_of(&old, "field:tenant");
    let error = || all.get("films").unwrap().change_error.clone();
    all.begin_change("films", &change, None).await.unwrap();
    let back = [Stage::Checking, Stage::GoingBack];
    let why = Some("`7` lacks it".to_owned());
    all.set_stage("films", &change, back, why).await.unwrap();
    let before = all.get("films").unwrap();
    assert_eq!(before.target(), old.strategy());
    all.end_change(&before, &old, None).await.unwrap();
    assert_eq!(all.get("films").unwrap().slots, old);
    assert_eq!(error().as_deref(), Some("`7` lacks it"));
    all.begin_change("films", &change, None).await.unwrap();
    assert_eq!(error(), None);
    let on = [Stage::Checking, Stage::Moving];
    let why = Some("not now".to_owned());
    all.set_stage("films", &change, on, why).await.unwrap();
    let before = all.get("films").unwrap();
    all.end_change(&before, change.new_slots(), None)
        .await
        .unwrap();
    assert_eq!(error(), None);
}

#[tokio::test]
async fn filters_know_nothing_of_an_index_while_its_strategy_changes() {
    let store = MemoryStore::default();
    let (all, old) = placed(&store, "hash").await;
    all.begin().await.unwrap();
    // So many that filters are told changes.
    for number in 0..100 {
        let uid = format!("tenant-{number}");
        all.place(&uid, &old, None).await.unwrap().unwrap();
    }
    let whole = || RoutingTable::from_json(all.table().1.as_bytes()).unwrap();
    let mut held = whole();
    let mut poll = |knows: bool| {
        let news = all.changes_since(held.epoch).unwrap();
        match TableNews::from_json(news.as_bytes()).unwrap() {
            TableNews::Change(change) => held.apply(change).unwrap(),
            TableNews::Whole(_) => panic!("the table is large"),
        }
        assert_eq!(held, whole());
        assert_eq!(held.get("films").is_some(), knows);
    };
    let change = change_of(&old, "field:tenant");
    all.begin_change("films", &change, None).await.unwrap();
    poll(false);
    let on = [Stage::Checking, Stage::Moving];
    all.set_stage("films", &change, on, None).await.unwrap();
    all.set_primary_key("films", Some("id")).await.unwrap();
    poll(false);
    let before = all.get("films").unwrap();
    all.end_change(&before, change.new_slots(), None)
        .await
        .unwrap();
    poll(true);
    assert_eq!(whole().get("films").unwrap().slots, dealt("field:tenant"));
}
