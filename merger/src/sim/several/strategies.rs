//! The same while an index goes from one strategy to another, forward and back, through any merger.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::moves::SETTLED_WITHIN;
use super::{History, INDEX, World, lock, number, on_a_runtime, play};

/// The strategies that an index gets. Every document has both fields.
fn strategies() -> [Value; 5] {
    [
        json!({"strategy": "hash"}),
        json!({"strategy": "range", "ranges": [150_000, 250_000]}),
        json!({"strategy": "range", "ranges": [100_020, 150_000, 200_015, 250_000]}),
        json!({"strategy": "field", "field": "tenant"}),
        json!({"strategy": "field", "field": "group"}),
    ]
}

impl World {
    /// Gives the index another strategy now and then.
    pub(super) async fn replace(self, mut random: fastrand::Rng) {
        let strategies = strategies();
        while self.goes_on() {
            let wanted = &strategies[random.usize(..strategies.len())];
            self.place(wanted, &mut random).await;
            let rest = match random.u8(0..3) {
                0 => random.u64(100..2_000),
                _ => random.u64(2_000..12_000),
            };
            sleep(Duration::from_millis(rest)).await;
        }
    }

    /// Asks for a strategy; returns whether it was taken.
    async fn place(&self, wanted: &Value, random: &mut fastrand::Rng) -> bool {
        let pair = self.any(random);
        let path = format!("/indexes/{INDEX}");
        let body = json!({"sharding": wanted});
        let answer = self.ask(&pair, Method::PATCH, &path, Some(&body)).await;
        let Some((202, said)) = answer else {
            return false;
        };
        let uid = said["taskUid"].as_u64().unwrap();
        let mut told = lock(&self.told);
        if !told.uids.insert(uid) {
            told.wrong.push(format!("task {uid} was given twice"));
        }
        true
    }

    /// At last, when all is well: the index gets the strategy that it is asked to get.
    pub(super) async fn place_by_field(&self) {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let wanted = json!({"strategy": "field", "field": "tenant"});
        let tries = SETTLED_WITHIN.as_secs();
        for _ in 0..tries {
            self.place(&wanted, &mut random).await;
            sleep(Duration::from_secs(1)).await;
            let arrived = self.on_leader(|leader| {
                let placement = leader.placement(INDEX).unwrap();
                let field = placement.slots.field().map(|field| field.as_str());
                placement.change().is_none() && field == Some("tenant")
            });
            if arrived == Some(true) {
                return;
            }
        }
        let why = self.on_leader(|leader| leader.placement(INDEX).unwrap().change_error.clone());
        panic!("seed {}: the strategy doesn't change: {why:?}", self.seed);
    }
}

/// `WEFT_SIM_RUNS` and `WEFT_SIM_SEED` say how many histories, and from which seed on.
#[test]
fn while_strategies_change_under_several_mergers_nothing_is_lost_and_no_read_is_stale() {
    let (from, runs) = (number("WEFT_SIM_SEED", 1), number("WEFT_SIM_RUNS", 4));
    for seed in from..from + runs {
        on_a_runtime(play(seed, 8, History::Changing));
        println!("seed {seed} is played");
    }
}
