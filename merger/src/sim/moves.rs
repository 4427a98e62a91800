//! Moves that are cut off: at requests that the merger sends to nodes, from the first one of a move to the last, the merger dies, and
//! its successor must end the move.

mod first_write;
mod headway;
mod nodes;
mod strategies;

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::sync::oneshot;

use super::check;
use super::nodes::{Fate, Stop};
use super::steps::Kind;
use super::world::{Merger, World};

/// How many documents there are at first.
const DOCUMENTS: u8 = 24;
/// How often clients write and read while slots move.
const CLIENTS_ACT: Duration = Duration::from_millis(60);
/// How far apart the requests are at which moves are cut off, in an ordinary test run. Another number is set by
/// `WEFT_SIM_EVERY`; with 1, all of them.
const EVERY: u64 = 11;
/// The most requests that a move takes. It would have ended long before.
const MOST: u64 = 5_000;

/// How the merger dies at some request.
#[derive(Debug, Clone, Copy)]
struct Death {
    fate: Fate,
    /// The next merger dies, too, so many requests later, if at all.
    again: Option<u64>,
}

/// Two shards of two nodes that hold documents of one index.
async fn filled(merger: &Merger) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    for writer in 0..4 {
        merger.write(0, writer, Kind::Replace, DOCUMENTS / 4);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    check::compare(merger).await;
}

/// Clients that write and read until the merger ends.
fn clients(merger: &Merger) {
    let merger = merger.clone();
    tokio::spawn(async move {
        for number in 0_u8.. {
            let kinds = [Kind::Replace, Kind::Update, Kind::Delete, Kind::Update];
            let kind = kinds[usize::from(number) % kinds.len()];
            merger.write(0, number, kind, 2);
            merger.read(0, 2);
            tokio::time::sleep(CLIENTS_ACT).await;
            if number == u8::MAX {
                return;
            }
        }
    });
}

/// Resolves at the request that is so many requests away.
fn reaches(world: &World, after: u64, fate: Fate) -> oneshot::Receiver<()> {
    let (sender, reached) = oneshot::channel();
    let mut state = world.mesh.lock();
    state.stop = Some(Stop {
        at: state.exchanges + after,
        fate,
        reached: Some(sender),
    });
    reached
}

async fn moves(merger: &Merger) -> Vec<Value> {
    let (_, said) = merger.ask(Method::GET, "/_cluster/moves", None).await;
    said["moves"].as_array().cloned().unwrap_or_default()
}

/// The states of moves that aren't over.
async fn states(merger: &Merger) -> BTreeSet<String> {
    let moves = moves(merger).await;
    let states = moves.iter().filter_map(|one| one["state"].as_str());
    let live = states.filter(|state| !["done", "cancelled"].contains(state));
    live.map(str::to_owned).collect()
}

async fn until_over(merger: &Merger) {
    while moves(merger).await.is_empty() || !states(merger).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How one attempt went.
struct Outcome {
    /// In which states the moves were when they were cut off; `None` if they were over before.
    met: Option<BTreeSet<String>>,
    violations: Vec<String>,
}

/// Empties a shard. After so many requests, the merger dies. Then everything must come to a good end.
fn cut_off(world: &World, after: u64, death: Death) -> Outcome {
    world.life(async |merger| filled(&merger).await);
    let met = world.life(async |merger| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let reached = reaches(world, after, death.fate);
        clients(&merger);
        merger.empty_shard(1);
        let met = tokio::select! {
            biased;
            Ok(()) = reached => Some(states(&merger).await),
            () = until_over(&merger) => None,
        };
        world.mesh.lock().stop = None;
        met
    });
    if let Some(again) = death.again {
        world.life(async |merger| {
            merger.follow_open();
            let reached = reaches(world, again, Fate::NotDelivered);
            clients(&merger);
            tokio::select! {
                _ = reached => {}
                () = until_over(&merger) => {}
            }
            world.mesh.lock().stop = None;
        });
    }
    world.life(async |merger| {
        merger.follow_open();
        check::compare(&merger).await;
        // If the merger died before it was asked to, nothing moves.
        let moves = moves(&merger).await;
        let done = moves.iter().all(|one| one["state"] == "done");
        let (_, shards) = merger.ask(Method::GET, "/_cluster/shards", None).await;
        let is_empty = shards["shards"][1]["removable"] == true;
        if !done || is_empty == moves.is_empty() {
            let said = format!("moves have ended otherwise: {moves:?}, {shards}");
            world.model().violations.push(said);
        }
    });
    let violations = world.model().violations.clone();
    Outcome { met, violations }
}

fn every() -> u64 {
    let set = std::env::var("WEFT_SIM_EVERY").ok();
    set.and_then(|set| set.parse().ok()).unwrap_or(EVERY)
}

/// Cuts moves off at every so many requests until they are over before that; returns in which states they were.
fn cut_off_everywhere(
    first: u64,
    world: impl Fn() -> World,
    how: impl Fn(u64) -> Death,
) -> BTreeSet<String> {
    let (mut met, mut count) = (BTreeSet::new(), 0);
    for after in (first..MOST).step_by(usize::try_from(every()).unwrap_or(1)) {
        let death = how(after);
        let outcome = cut_off(&world(), after, death);
        assert_eq!(
            outcome.violations,
            Vec::<String>::new(),
            "{death:?} after {after} requests"
        );
        count += 1;
        match outcome.met {
            Some(states) => met.extend(states),
            None => {
                println!("{count} attempts, the last one after {after} requests");
                return met;
            }
        }
    }
    panic!("moves never end");
}

fn fate_of(after: u64) -> Fate {
    match after.is_multiple_of(2) {
        true => Fate::NotAnswered,
        false => Fate::NotDelivered,
    }
}

#[test]
fn a_move_comes_to_a_good_end_wherever_the_merger_dies() {
    let met = cut_off_everywhere(
        0,
        || World::of(2, 2),
        |after| Death {
            fate: fate_of(after),
            again: None,
        },
    );
    for state in ["waiting", "preparing", "copying", "handing-over"] {
        assert!(met.contains(state), "never in the state {state}: {met:?}");
    }
}

#[test]
fn a_move_comes_to_a_good_end_though_one_merger_after_the_other_dies() {
    cut_off_everywhere(
        3,
        || World::of(2, 2),
        |after| Death {
            fate: fate_of(after),
            again: Some(after * 7 % 90),
        },
    );
}

#[test]
fn a_move_of_values_comes_to_a_good_end_wherever_the_merger_dies() {
    let met = cut_off_everywhere(
        1,
        || World::by_field(2, 2),
        |after| Death {
            fate: fate_of(after),
            again: after.is_multiple_of(3).then_some(after * 7 % 90),
        },
    );
    for state in ["waiting", "preparing", "copying", "handing-over"] {
        assert!(met.contains(state), "never in the state {state}: {met:?}");
    }
}

#[test]
fn moves_that_follow_each_other_come_to_a_good_end_wherever_the_merger_dies() {
    for world in [World::of, World::by_field] {
        let met = cut_off_everywhere(
            2,
            || world(3, 1),
            |after| Death {
                fate: fate_of(after),
                again: after.is_multiple_of(3).then_some(after * 7 % 90),
            },
        );
        for state in ["waiting", "preparing", "copying", "settling"] {
            assert!(met.contains(state), "never in the state {state}: {met:?}");
        }
    }
}
