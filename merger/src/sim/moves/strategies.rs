//! Changes of strategy that are cut off: from the first request of a change to the last, the merger dies, and its successor must end
//! the change.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::super::check;
use super::super::steps::Kind;
use super::super::world::{Merger, World};
use super::{CLIENTS_ACT, Death, MOST, Outcome, every, fate_of, filled, reaches};

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
        for number in 0_u8..u8::MAX {
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

async fn lies(merger: &Merger) -> Value {
    let (_, said) = merger.ask(Method::GET, "/indexes/i0/_shards", None).await;
    said
}

async fn place(merger: &Merger, wanted: &str) {
    let wanted: Value = serde_json::from_str(wanted).unwrap();
    let body = json!({"sharding": wanted});
    merger.ask(Method::PATCH, "/indexes/i0", Some(&body)).await;
}

/// Changes the strategy, and waits until that is over. Returns where the index was before.
async fn change(merger: &Merger, way: Way) {
    let before = lies(merger).await;
    place(merger, way.to).await;
    if way.back {
        while lies(merger).await["change"]["stage"] != "moving" {
            if lies(merger).await["change"].is_null() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut old = json!({"strategy": before["strategy"]});
        for member in ["field", "ranges"] {
            if !before[member].is_null() {
                old[member] = before[member].clone();
            }
        }
        place(merger, &old.to_string()).await;
    }
    while !lies(merger).await["change"].is_null() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// After so many requests of a change, the merger dies. Then everything must come to a good end.
fn cut_off(world: &World, way: Way, after: u64, death: Death) -> Outcome {
    world.life(async |merger| filled(&merger).await);
    let before = world.life(async |merger| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = lies(&merger).await;
        let reached = reaches(world, after, death.fate);
        clients(&merger);
        let met = tokio::select! {
            biased;
            Ok(()) = reached => Some(lies(&merger).await["change"]["stage"].to_string()),
            () = change(&merger, way) => None,
        };
        world.mesh.lock().stop = None;
        (before, met.map(|stage| [stage].into()))
    });
    let (before, met) = before;
    if let Some(again) = death.again {
        world.life(async |merger| {
            merger.follow_open();
            let reached = reaches(world, again, super::super::nodes::Fate::NotDelivered);
            clients(&merger);
            tokio::select! {
                _ = reached => {}
                () = async { while !lies(&merger).await["change"].is_null() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                } } => {}
            }
            world.mesh.lock().stop = None;
        });
    }
    world.life(async |merger| {
        merger.follow_open();
        check::compare(&merger).await;
        let now = lies(&merger).await;
        let wanted: Value = serde_json::from_str(way.to).unwrap();
        // If the merger died before it was asked to, nothing changes.
        let has = |one: &Value| {
            ["strategy", "field"]
                .iter()
                .all(|name| now[name] == one[name] || (now[name].is_null() && one[name].is_null()))
        };
        let arrived = has(&wanted) && !way.back || met.is_some() && has(&wanted);
        let stayed = has(&before) && (way.back || met.is_some());
        if !(arrived || stayed) || !now["changeError"].is_null() {
            let said = format!("the change has ended otherwise: {now}, before {before}");
            world.model().violations.push(said);
        }
    });
    let violations = world.model().violations.clone();
    Outcome { met, violations }
}

/// Cuts a change off at every so many requests until it is over before that; it must have been met in both stages.
fn cut_off_everywhere(first: u64, way: Way) {
    let mut met = std::collections::BTreeSet::new();
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
            None => {
                let wanted = if way.back {
                    "\"going-back\""
                } else {
                    "\"moving\""
                };
                assert!(met.contains(wanted), "never in that stage: {met:?}");
                return;
            }
        }
    }
    panic!("changes never end");
}

#[test]
fn an_index_comes_to_lie_by_a_field_wherever_the_merger_dies() {
    let way = Way {
        world: World::of,
        to: r#"{"strategy": "field", "field": "first"}"#,
        back: false,
    };
    cut_off_everywhere(2, way);
}

#[test]
fn an_index_comes_to_lie_by_range_wherever_the_merger_dies() {
    let way = Way {
        world: World::by_field,
        to: r#"{"strategy": "range", "ranges": ["w1", "w2", "w3"]}"#,
        back: false,
    };
    cut_off_everywhere(5, way);
}

#[test]
fn an_index_goes_back_wherever_the_merger_dies() {
    let way = Way {
        world: World::of,
        to: r#"{"strategy": "field", "field": "first"}"#,
        back: true,
    };
    cut_off_everywhere(7, way);
}
