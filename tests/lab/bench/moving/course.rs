//! How moves go while they last: what they say of their progress and their end, and what they spend their time on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use weft_cluster::{Api, Cluster};

use crate::bench::Row;

/// How often the moves are asked how far they are.
const LOOK: Duration = Duration::from_millis(250);
/// How long all moves may take.
const MOVED_WITHIN: Duration = Duration::from_secs(3 * 3600);

/// How moves went.
pub(super) struct Moved {
    pub(super) took: Duration,
    /// The documents that the moves counted.
    pub(super) documents: u64,
    /// The largest difference between the progress that was told and the one that the newcomer showed.
    pub(super) by_documents: f64,
    /// The largest difference between the progress that was told and the share of the time that had passed.
    pub(super) by_time: f64,
    /// The largest difference between the end that was told and the real one, as a share of the time that it took.
    pub(super) end: f64,
}

impl Moved {
    pub(super) fn rate(&self) -> f64 {
        self.documents as f64 / self.took.as_secs_f64()
    }
}

/// What was told at one look.
struct Seen {
    after: Duration,
    progress: f64,
    /// How many documents the newcomer held.
    held: f64,
    seconds_left: Option<u64>,
}

/// What some moves say together.
struct Told {
    states: Vec<String>,
    documents: u64,
    moved: u64,
    progress: f64,
    seconds_left: Option<u64>,
}

async fn told(api: &Api, moves: &[u64]) -> Result<Told> {
    let listed = api.get("/_cluster/moves").await?;
    let listed = listed.at("/moves").as_array().context("no moves")?;
    let number = |one: &Value, name: &str| one.get(name).and_then(Value::as_u64);
    let is_ours = |one: &&Value| number(one, "id").is_some_and(|id| moves.contains(&id));
    let ours: Vec<&Value> = listed.iter().filter(is_ours).collect();
    let sum = |name: &str| -> u64 { ours.iter().filter_map(|one| number(one, name)).sum() };
    let weighted = ours.iter().map(|one| {
        let progress = one.get("progress").and_then(Value::as_f64);
        progress.unwrap_or(0.0) * number(one, "documents").unwrap_or(0) as f64
    });
    let weighted: f64 = weighted.sum();
    let state = |one: &&Value| one.get("state").and_then(Value::as_str).map(str::to_owned);
    let ends = ours.iter().filter_map(|one| number(one, "secondsLeft"));
    Ok(Told {
        states: ours.iter().filter_map(state).collect(),
        documents: sum("documents"),
        moved: sum("documentsMoved"),
        progress: weighted / sum("documents").max(1) as f64,
        seconds_left: ends.max(),
    })
}

/// Waits until these moves have ended.
pub(super) async fn until_moved(
    api: &Api,
    (newcomer, index): (&Api, &str),
    moves: Vec<u64>,
) -> Result<Moved> {
    let begun = Instant::now();
    let held = async || -> Result<f64> {
        let stats = newcomer.get(&format!("/indexes/{index}/stats")).await?;
        let count = stats.at("/numberOfDocuments").as_u64();
        Ok(count.unwrap_or(0) as f64)
    };
    let first = held().await?;
    let mut seen = Vec::new();
    loop {
        let told = told(api, &moves).await?;
        if told.states.iter().any(|state| state == "cancelled") {
            bail!("a move was cancelled");
        }
        if told.states.iter().all(|state| state == "done") {
            let last = held().await?;
            return Ok(judge(&seen, (first, last), begun.elapsed(), told.moved));
        }
        if told.documents > 0 {
            seen.push(Seen {
                after: begun.elapsed(),
                progress: told.progress,
                held: held().await?,
                seconds_left: told.seconds_left,
            });
        }
        ensure!(
            begun.elapsed() < MOVED_WITHIN,
            "the moves don't end: {:?}",
            told.states
        );
        tokio::time::sleep(LOOK).await;
    }
}

fn judge(seen: &[Seen], (first, last): (f64, f64), took: Duration, documents: u64) -> Moved {
    let all = took.as_secs_f64();
    let worst = |error: &dyn Fn(&Seen) -> Option<f64>| {
        let errors = seen.iter().filter_map(error).map(f64::abs);
        errors.filter(|error| error.is_finite()).fold(0.0, f64::max)
    };
    Moved {
        took,
        documents,
        by_documents: worst(&|one| Some(one.progress - (one.held - first) / (last - first))),
        by_time: worst(&|one| Some(one.progress - one.after.as_secs_f64() / all)),
        end: worst(&|one| {
            let left = one.seconds_left? as f64;
            Some((one.after.as_secs_f64() + left - all) / all)
        }),
    }
}

/// What the merger's moves have spent their time on, in seconds: each phase, and all writers' waiting.
#[derive(Default)]
pub(super) struct Phases(BTreeMap<String, f64>);

impl Phases {
    /// What was added since `before`, as a share of the time that the moves took.
    pub(super) fn rows(&self, way: &str, before: &Self, moved: &Moved) -> Vec<Row> {
        let took = moved.took.as_secs_f64();
        let row = |(phase, seconds): (&String, &f64)| {
            let before = before.0.get(phase).copied().unwrap_or(0.0);
            let share = (seconds - before) * 100.0 / took;
            Row::alone(format!("{way}: time for `{phase}`"), share, "%")
        };
        self.0.iter().map(row).collect()
    }
}

pub(super) async fn phases(cluster: &Cluster) -> Result<Phases> {
    let metrics = Api::new(cluster.merger_url(), None);
    let text = metrics.get("/_weft/metrics").await?.text;
    let sums = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("weft_merger_move_phase_seconds_sum{phase=\"")?;
        let (phase, seconds) = rest.split_once("\"} ")?;
        Some((phase.to_owned(), seconds.parse().ok()?))
    });
    Ok(Phases(sums.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_look_counts_and_one_that_told_no_end_does_not() {
        let look = |after, progress, held, seconds_left| Seen {
            after: Duration::from_secs(after),
            progress,
            held,
            seconds_left,
        };
        let seen = [
            look(2, 0.1, 0.0, None),
            look(5, 0.5, 40.0, Some(7)),
            look(8, 0.9, 95.0, Some(2)),
        ];
        let moved = judge(&seen, (0.0, 100.0), Duration::from_secs(10), 100);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(moved.by_documents, 0.1), "{}", moved.by_documents);
        assert!(near(moved.by_time, 0.1), "{}", moved.by_time);
        assert!(near(moved.end, 0.2), "{}", moved.end);
        assert!(near(moved.rate(), 10.0));
    }
}
