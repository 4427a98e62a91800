use weft_routing::slot::Slot;

use super::*;
use crate::store::memory::MemoryStore;

fn step(index: &str) -> Step {
    Step {
        index: index.to_owned(),
        from: ShardId(0),
        to: ShardId(1),
        slots: vec![Slot(7)],
    }
}

#[tokio::test]
async fn moves_are_there_again_after_a_restart_and_old_ones_are_forgotten() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let moves = Moves::open(Arc::clone(&store)).await.unwrap();
    let steps = (0..MOST_ENDED + 3).map(|n| (step(&n.to_string()), 5));
    let ids = moves.add(steps.collect()).await.unwrap();
    moves.set_draining(ShardId(2), true).await.unwrap();
    let paused = MoveOptions {
        paused: true,
        bytes_per_second: Some(9),
        batch_documents: Some(5),
        ..MoveOptions::default()
    };
    let set = moves.set_options(|options| *options = paused.clone());
    assert_eq!(set.await.unwrap(), paused);
    for id in ids.iter().skip(1) {
        let done = |one: &mut Move| one.state = MoveState::Done;
        moves.change(*id, done).await.unwrap();
    }
    let cancelled = moves.cancel(|_| true).await.unwrap();
    assert_eq!(cancelled, 1, "one has not ended");
    let again = Moves::open(store).await.unwrap();
    assert_eq!(again.options(), paused);
    assert_eq!(again.draining(), BTreeSet::from([ShardId(2)]));
    let all = again.all();
    assert_eq!(all.len(), MOST_ENDED + 1);
    assert!(all[0].cancelled && all[0].index == "0" && !all[0].has_ended());
    assert_eq!(
        again.add(vec![(step("x"), 1)]).await.unwrap(),
        [ids.len() as u64 + 1]
    );
}

#[tokio::test]
async fn changes_at_the_same_time_are_all_kept() {
    let moves = Moves::open(Arc::new(MemoryStore::default())).await;
    let moves = Arc::new(moves.unwrap());
    let add = |n: usize| {
        let moves = Arc::clone(&moves);
        tokio::spawn(async move {
            let ids = moves.add(vec![(step(&n.to_string()), 1)]).await.unwrap();
            let cancel = moves.cancel(|one| one.id == ids[0]);
            let count = moves.change(ids[0], |one| one.moved += 1);
            let replan = moves.to_replan().len();
            let index = n.to_string();
            let (cancel, count, wanted) =
                tokio::join!(cancel, count, moves.set_replan(&index, true));
            assert!(cancel.is_ok() && count.is_ok() && wanted.is_ok() && replan <= 20);
        })
    };
    for added in (0..20).map(add).collect::<Vec<_>>() {
        added.await.unwrap();
    }
    let all = moves.all();
    assert_eq!(all.len(), 20, "no number was given twice");
    assert!(
        all.iter().all(|one| one.cancelled && one.moved == 1),
        "{all:?}"
    );
    assert_eq!(moves.to_replan().len(), 20);
}

#[tokio::test]
async fn an_index_is_held_as_long_as_anybody_holds_it() {
    let moves = Moves::open(Arc::new(MemoryStore::default())).await;
    let moves = Arc::new(moves.unwrap());
    let (one, two) = (moves.hold("films"), moves.hold("films"));
    drop(one);
    assert!(moves.is_held("films") && !moves.is_held("books"));
    drop(two);
    assert!(!moves.is_held("films"));
}
