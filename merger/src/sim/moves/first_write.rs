//! The first write of an index is refused by one of its shards and taken by the other: only one of them has the index. Then slots
//! move, from the one that has it and to it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{moves, until_over};
use crate::sim::check;
use crate::sim::rules::What;
use crate::sim::steps::Kind;
use crate::sim::world::World;

/// How long the move may take.
const OVER_WITHIN: Duration = Duration::from_secs(300);

/// A shard's nodes refuse the first write, and one of the two shards is emptied; returns what went wrong.
fn refused_on(refuses: [&'static str; 2], emptied: u8) -> Vec<String> {
    let world = World::of(2, 2);
    world.life(async |merger| {
        sleep(Duration::from_secs(1)).await;
        {
            let mut state = world.mesh.lock();
            let full =
                json!({"message": "No space left on device.", "code": "no_space_left_on_device"});
            for node in refuses {
                let what = What::Says(507, full.clone());
                state.rules.add(node, "POST /indexes/i0/documents", 1, what);
            }
        }
        merger.write(0, 0, Kind::Replace, 12);
        sleep(Duration::from_secs(2)).await;
        let having = {
            let state = world.mesh.lock();
            let nodes = state.nodes.values();
            nodes
                .filter(|node| node.disk.indexes.contains_key("i0"))
                .count()
        };
        assert_eq!(having, 2, "the nodes of one shard have the index");
        assert_eq!(world.mesh.lock().rules.left(), 0, "each node has refused");
        merger.empty_shard(emptied);
        if timeout(OVER_WITHIN, until_over(&merger)).await.is_err() {
            let listed: Vec<Value> = moves(&merger).await;
            let said = format!("the move doesn't end: {listed:?}");
            world.model().violations.push(said);
        }
        merger.write(0, 1, Kind::Update, 12);
        check::compare(&merger).await;
        let moves = moves(&merger).await;
        if moves.is_empty() || !moves.iter().all(|one| one["state"] == "done") {
            let said = format!("moves have ended otherwise: {moves:?}");
            world.model().violations.push(said);
        }
    });
    world.model().violations.clone()
}

#[test]
fn slots_move_though_one_shard_alone_has_refused_the_first_write_of_their_index() {
    for refuses in [["a0", "b0"], ["a1", "b1"]] {
        for emptied in [0, 1] {
            let violations = refused_on(refuses, emptied);
            assert_eq!(
                violations,
                Vec::<String>::new(),
                "{refuses:?} refuse, shard {emptied} is emptied"
            );
        }
    }
}
