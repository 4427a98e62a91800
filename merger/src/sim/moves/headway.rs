//! Moves while nodes are never idle: no turn is long enough to wait for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{filled, until_over};
use crate::sim::check;
use crate::sim::steps::Kind;
use crate::sim::world::{Merger, World};

/// The longest time that a task takes on a node, in milliseconds.
const PACE: u64 = 3_000;
/// How often is written: a little more than the nodes can apply. By field, each write is a task on both shards.
const WRITTEN: Duration = Duration::from_millis(700);
const WRITTEN_BY_FIELD: Duration = Duration::from_millis(1_400);
/// How long what nobody writes may take to move.
const MOVED_WITHIN: Duration = Duration::from_secs(120);

/// The ids of the documents on the only node of shard 1.
fn held(world: &World) -> Vec<String> {
    let state = world.mesh.lock();
    let indexes = state.nodes["a1"].disk.indexes.values();
    let documents = indexes.flat_map(|index| index.documents.values());
    documents.map(|(id, _)| id.clone()).collect()
}

/// Writes documents of one writer until it is told to stop.
fn write_on(merger: &Merger, (kind, every): (Kind, Duration), stop: &Arc<AtomicBool>) {
    let (merger, stop) = (merger.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            merger.write(0, 0, kind, 1);
            sleep(every).await;
        }
    });
}

/// Empties a shard while one of four writers goes on: what the others have written must leave it meanwhile.
fn what_rests_moves(world: &World, written: (Kind, Duration)) {
    world.life(async |merger| filled(&merger).await);
    world.life(async |merger| {
        sleep(Duration::from_secs(1)).await;
        world.mesh.lock().set_pace(PACE);
        let stop = Arc::default();
        write_on(&merger, written, &stop);
        sleep(Duration::from_secs(5)).await;
        let is_written = |id: &String| id.starts_with("w0-");
        let before = held(world);
        assert!(before.iter().any(is_written) && !before.iter().all(is_written));
        merger.empty_shard(1);
        let begun = Instant::now();
        while !held(world).iter().all(is_written) {
            let left = held(world);
            assert!(begun.elapsed() < MOVED_WITHIN, "{left:?} are still there");
            sleep(Duration::from_millis(100)).await;
        }
        stop.store(true, Ordering::Relaxed);
        until_over(&merger).await;
        check::compare(&merger).await;
    });
    assert_eq!(world.model().violations, Vec::<String>::new());
}

#[test]
fn what_rests_moves_though_nodes_are_never_idle() {
    what_rests_moves(&World::of(2, 1), (Kind::Update, WRITTEN));
}

#[test]
fn values_that_rest_move_though_nodes_are_never_idle() {
    // An update would wait until nodes are idle, to find its document.
    what_rests_moves(&World::by_field(2, 1), (Kind::Replace, WRITTEN_BY_FIELD));
}
