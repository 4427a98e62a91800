//! Moves in whose middle a node of either side dies: at requests from the first one of a move to the last. The node comes back, soon
//! or when it counts as gone. The move must end by itself, within a bound of simulated time.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{MOST, Outcome, clients, every, filled, moves, reaches, states, until_over};
use crate::sim::check;
use crate::sim::nodes::{Event, Fate};
use crate::sim::world::{Merger, World};

/// How long a move may take after a node has died in it.
const OVER_WITHIN: Duration = Duration::from_secs(300);
/// How far apart the requests are at which nodes die in an ordinary test run, as a multiple of those at which mergers do.
const RARER: u64 = 3;

/// For how long nodes are away, in milliseconds: they are soon back, or count as gone before they are.
const AWAY: [u64; 3] = [300, 1_500, 6_000];

/// Which node dies, and for how long it is away, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Death {
    node: &'static str,
    away: u64,
}

/// Empties a shard, again and again until the merger can plan that: a node that is down has to be asked for sizes.
async fn empty(merger: &Merger) {
    let begun = Instant::now();
    loop {
        let drain = "/_cluster/shards/shard-1/drain";
        let (status, said) = merger.ask(Method::POST, drain, None).await;
        if status == StatusCode::ACCEPTED.as_u16() {
            return;
        }
        if begun.elapsed() > OVER_WITHIN {
            let said = format!("nothing could be planned: {status} {said}");
            return merger.world.model().violations.push(said);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// What is known of a move that doesn't end.
async fn dump(merger: &Merger) -> Value {
    let nodes: Vec<Value> = {
        let state = merger.world.mesh.lock();
        let nodes = state.nodes.iter();
        let node = |(name, node): (&String, &crate::sim::nodes::Node)| {
            let indexes = node.disk.indexes.iter();
            let counts: Vec<(&String, usize)> = indexes
                .map(|(uid, index)| (uid, index.documents.len()))
                .collect();
            json!({"name": name, "power": format!("{:?}", node.power), "idle": node.disk.is_idle(), "indexes": counts})
        };
        nodes.map(node).collect()
    };
    let mut said = json!({"disks": nodes, "moves": moves(merger).await});
    for path in ["nodes", "shards", "health"] {
        let (_, answer) = merger
            .ask(Method::GET, &format!("/_cluster/{path}"), None)
            .await;
        said[path] = answer;
    }
    said
}

/// Empties a shard. After so many requests, a node dies. Then everything must come to a good end.
fn lose_node(replicas: u16, after: u64, death: Death) -> Outcome {
    let world = World::of(2, replicas);
    world.life(async |merger| filled(&merger).await);
    let met = world.life(async |merger| {
        sleep(Duration::from_secs(1)).await;
        let reached = reaches(&world, after, Fate::GoesOn);
        clients(&merger);
        let over = async {
            empty(&merger).await;
            until_over(&merger).await;
        };
        let mut over = std::pin::pin!(over);
        let met = tokio::select! {
            biased;
            Ok(()) = reached => {
                {
                    let mut state = world.mesh.lock();
                    state.kill(death.node);
                    state.plan(death.away, death.node, Event::Starts);
                }
                let met = states(&merger).await;
                if timeout(OVER_WITHIN, over.as_mut()).await.is_err() {
                    let said = format!("the move doesn't end: {}", dump(&merger).await);
                    world.model().violations.push(said);
                }
                Some(met)
            }
            () = over.as_mut() => None,
        };
        world.mesh.lock().stop = None;
        check::compare(&merger).await;
        let moves = moves(&merger).await;
        let (_, shards) = merger.ask(Method::GET, "/_cluster/shards", None).await;
        let done = moves.iter().all(|one| one["state"] == "done");
        if !done || moves.is_empty() || shards["shards"][1]["removable"] != true {
            let said = format!("moves have ended otherwise: {moves:?}, {shards}");
            world.model().violations.push(said);
        }
        met
    });
    let violations = world.model().violations.clone();
    Outcome { met, violations }
}

/// Loses a node at every so many requests until moves are over before that: one of these, in turn.
fn lose_node_everywhere(replicas: u16, nodes: [&'static str; 2]) {
    let step = match every() {
        1 => 1,
        every => usize::try_from(every * RARER).unwrap_or(1),
    };
    let (mut met, mut turn) = (BTreeSet::new(), 0);
    for after in (0..MOST).step_by(step) {
        let death = Death {
            node: nodes[turn % 2],
            away: AWAY[turn / 2 % AWAY.len()],
        };
        let outcome = lose_node(replicas, after, death);
        assert_eq!(
            outcome.violations,
            Vec::<String>::new(),
            "{death:?} after {after} requests"
        );
        turn += 1;
        match outcome.met {
            Some(states) => met.extend(states),
            None => {
                println!("{turn} attempts, the last one after {after} requests: {met:?}");
                assert!(met.contains("copying"), "never while it copied: {met:?}");
                return;
            }
        }
    }
    panic!("moves never end");
}

#[test]
fn a_move_comes_to_a_good_end_wherever_a_node_of_its_source_dies() {
    lose_node_everywhere(2, ["a1", "b1"]);
}

#[test]
fn a_move_comes_to_a_good_end_wherever_a_node_of_its_target_dies() {
    lose_node_everywhere(2, ["a0", "b0"]);
}

#[test]
fn a_move_waits_for_the_only_node_of_either_side() {
    lose_node_everywhere(1, ["a0", "a1"]);
}
