//! Where two plays of one sequence part: a seed repeats a sequence only as far as nothing in the merger depends on chance.

use super::play::play_in;
use super::steps::Plan;
use super::world::World;

/// How many requests before the first difference are shown.
const SHOWN: usize = 5;

/// All requests to nodes, in their order.
fn requests(plan: &Plan) -> Vec<String> {
    let world = World::new(plan);
    world.mesh.lock().rules.heard();
    play_in(&world, plan);
    let mut state = world.mesh.lock();
    state.rules.heard()
}

/// Plays the sequence in the file named by `WEFT_SIM_PLAN` twice, and shows the first requests that differ.
#[test]
#[ignore = "compares two plays of the file that WEFT_SIM_PLAN names"]
fn two_plays_of_a_sequence_are_compared() {
    let path = std::env::var("WEFT_SIM_PLAN").unwrap();
    let plan: Plan = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (one, other) = (requests(&plan), requests(&plan));
    let same = one
        .iter()
        .zip(&other)
        .take_while(|(one, other)| one == other);
    let same = same.count();
    println!(
        "{same} of {} and {} requests are the same",
        one.len(),
        other.len()
    );
    for heard in [&one, &other] {
        let around = heard.iter().skip(same.saturating_sub(SHOWN));
        let around: Vec<&String> = around.take(2 * SHOWN).collect();
        println!("{around:#?}");
    }
}
