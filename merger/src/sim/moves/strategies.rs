//! Changes of strategy that are cut off: from the first request of a change to the last, the merger dies, and its successor must end
//! the change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use weft_routing::strategy::Strategy;

use super::super::check;
use super::super::nodes::Fate;
use super::super::steps::Kind;
use super::super::world::{Merger, World};
use super::{CLIENTS_ACT, Death, MOST, Outcome, every, fate_of, filled, reaches};
use crate::cluster::{Placement, Stage, wish_for};

const INDEX: &str = "i0";
const LOOK: Duration = Duration::from_millis(20);

/// From what to what an index goes.
#[derive(Debug, Clone, Copy)]
struct Way {
    world: fn(u16, u16) -> World,
    to: &'static str,
    /// Whether it is sent back in the middle.
    back: bool,
}

/// Clients that replace and delete documents, and read them, until the merger ends. All documents have the field.
fn clients(merger: &Merger) {
    let merger = merger.clone();
    tokio::spawn(async move {
        for number in 0..u8::MAX {
            let kind = match number % 3 {
                2 => Kind::Delete,
                _ => Kind::Replace,
            };
            merger.write(0, number, kind, 2);
            merger.read(0, 2);
            tokio::time::sleep(CLIENTS_ACT).await;
        }
    });
}

fn placement(merger: &Merger) -> Arc<Placement> {
    merger.ctx.cluster.placement(INDEX).unwrap()
}

fn stage(merger: &Merger) -> Option<Stage> {
    placement(merger).change().map(|(_, stage)| stage)
}

async fn place(merger: &Merger, wanted: &Strategy) {
    let wish = Value::Object(wish_for(wanted));
    let body = json!({"sharding": wish});
    let path = format!("/indexes/{INDEX}");
    merger.ask(Method::PATCH, &path, Some(&body)).await;
}

async fn until_over(merger: &Merger) {
    while stage(merger).is_some() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Changes the strategy, and waits until that is over.
async fn change(merger: &Merger, way: Way) {
    let before = placement(merger).slots.strategy().clone();
    place(merger, &way.to.parse().unwrap()).await;
    while way.back && stage(merger) == Some(Stage::Checking) {
        tokio::time::sleep(LOOK).await;
    }
    if way.back && stage(merger).is_some() {
        place(merger, &before).await;
    }
    until_over(merger).await;
}

/// After so many requests of a change, the merger dies. Then everything must come to a good end.
fn cut_off(world: &World, way: Way, after: u64, death: Death) -> Outcome {
    world.life(async |merger| filled(&merger).await);
    let (before, met) = world.life(async |merger| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = placement(&merger).slots.strategy().clone();
        let reached = reaches(world, after, death.fate);
        clients(&merger);
        let met = tokio::select! {
            biased;
            Ok(()) = reached => Some(format!("{:?}", stage(&merger))),
            () = change(&merger, way) => None,
        };
        world.mesh.lock().stop = None;
        (before, met.map(|stage| BTreeSet::from([stage])))
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
        let now = placement(&merger);
        let wanted: Strategy = way.to.parse().unwrap();
        let arrived = *now.slots.strategy() == wanted;
        let stayed = *now.slots.strategy() == before;
        // If the merger died before it was asked to go anywhere, or back, nothing tells its successor.
        let is_right = match (&met, way.back) {
            (None, false) => arrived,
            (None, true) => stayed,
            (Some(_), _) => arrived || stayed,
        };
        if !is_right || now.change_error.is_some() {
            let said = format!("the change has ended otherwise: {now:?}, before {before:?}");
            world.model().violations.push(said);
        }
    });
    let violations = world.model().violations.clone();
    Outcome { met, violations }
}

/// Cuts a change off at every so many requests until it is over before that; returns in which stages it was.
fn cut_off_everywhere(first: u64, way: Way) -> BTreeSet<String> {
    let mut met = BTreeSet::new();
    for after in (first..MOST).step_by(usize::try_from(every()).unwrap_or(1)) {
        let death = Death {
            fate: fate_of(after),
            again: after.is_multiple_of(3).then_some(after * 7 % 90),
        };
        let outcome = cut_off(&(way.world)(2, 2), way, after, death);
        assert_eq!(
            outcome.violations,
            Vec::<String>::new(),
            "{way:?}, {death:?} after {after} requests"
        );
        match outcome.met {
            Some(stages) => met.extend(stages),
            None => return met,
        }
    }
    panic!("changes never end");
}

const BY_FIELD: Way = Way {
    world: World::of,
    to: "field:first",
    back: false,
};

#[test]
fn an_index_comes_to_lie_by_a_field_wherever_the_merger_dies() {
    let met = cut_off_everywhere(2, BY_FIELD);
    for stage in ["None", "Some(Checking)", "Some(Moving)"] {
        assert!(met.contains(stage), "never in {stage}: {met:?}");
    }
}

#[test]
fn an_index_comes_to_lie_by_range_wherever_the_merger_dies() {
    let way = Way {
        world: World::by_field,
        to: "range:w1,w2,w3",
        back: false,
    };
    let met = cut_off_everywhere(5, way);
    assert!(met.contains("Some(Moving)"), "{met:?}");
}

#[test]
fn an_index_goes_back_wherever_the_merger_dies() {
    let way = Way {
        back: true,
        ..BY_FIELD
    };
    let met = cut_off_everywhere(7, way);
    assert!(met.contains("Some(GoingBack)"), "{met:?}");
}
