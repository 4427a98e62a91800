//! The table of promises (target, measured value, kept or not), also as JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use super::check::{Breach, line};
use super::figures::{ReadFigures, p99};
use super::inspect::count;
use super::kinds::Fault;
use super::round::Round;
use super::world::Mode;

/// How many examples are printed for a broken promise.
const EXAMPLES: usize = 5;

/// One promise, measured over all rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Promise {
    promise: &'static str,
    target: &'static str,
    measured: String,
    kept: bool,
    /// True if breaking the promise makes the run fail; other promises depend on the machine.
    hard: bool,
}

impl Promise {
    /// True if the run must fail because of this promise.
    pub(super) fn broken(&self) -> bool {
        self.hard && !self.kept
    }
}

/// The heading of the table by faults.
pub(super) fn heading() -> String {
    format!(
        "{:<22} {:>6} {:>5} {:>7} {:>6} {:>7} {:>6} {:>6} {:>8} {:>6} {:>5} {:>9} {:>9} {:>9}",
        "fault",
        "rounds",
        "docs",
        "missing",
        "back",
        "differ",
        "stale",
        "tasks",
        "reads",
        "fail%",
        "late",
        "reads ms",
        "writes ms",
        "green s"
    )
}

/// A fault's row in this table.
pub(super) fn row(fault: Fault, rounds: &[Round], wanted: u32) -> String {
    let sum = |breach| {
        rounds
            .iter()
            .map(|round| count(&round.violations, breach))
            .sum::<usize>()
    };
    let reads = all_reads(rounds);
    let worst = |of: fn(&Round) -> Option<f64>| {
        rounds
            .iter()
            .filter_map(of)
            .fold(None, |worst: Option<f64>, next| {
                Some(worst.map_or(next, |worst| worst.max(next)))
            })
    };
    let number = |value: Option<f64>, by: f64| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}", value / by))
    };
    let sound = rounds.iter().filter(|round| round.sound()).count();
    let documents = rounds
        .iter()
        .map(|round| round.documents)
        .max()
        .unwrap_or(0);
    format!(
        "{:<22} {:>6} {:>5} {:>7} {:>6} {:>7} {:>6} {:>6} {:>8} {:>6.2} {:>5} {:>9} {:>9} {:>9}  {}",
        fault.name(),
        format!("{sound}/{wanted}"),
        documents,
        sum(Breach::Missing) + sum(Breach::Invented) + sum(Breach::ShownTwice),
        sum(Breach::CameBack),
        sum(Breach::Differs),
        sum(Breach::StaleRead),
        sum(Breach::LostTask) + sum(Breach::TaskTwice),
        reads.asked,
        reads.failed_per_cent(),
        reads.failed_late,
        number(worst(|round| round.read_gap_ms), 1.0),
        number(worst(|round| round.write_gap_ms), 1.0),
        number(worst(|round| round.recovered_ms), 1e3),
        if sound == wanted as usize {
            "kept"
        } else {
            "BROKEN"
        },
    )
}

/// The message that is printed at once when a round broke a promise.
pub(super) fn broken(round: &Round, file: &Path) -> String {
    let mut lines = vec![format!(
        "{} round {}: {} breaches{}",
        round.fault.name(),
        round.number,
        round.violations.len(),
        round
            .error
            .as_ref()
            .map_or_else(String::new, |error| format!("; {error}"))
    )];
    lines.extend(round.violations.iter().take(EXAMPLES).map(line));
    lines.push(format!(
        "  more, with histories: {}; the logs are in the same folder",
        file.display()
    ));
    lines.join("\n")
}

/// All promises, measured over all rounds.
pub(super) fn promises(rounds: &[Round], mode: Mode) -> Vec<Promise> {
    let zero = |promise, breaches: &[Breach]| {
        let seen: usize = rounds
            .iter()
            .map(|round| {
                breaches
                    .iter()
                    .map(|breach| count(&round.violations, *breach))
                    .sum::<usize>()
            })
            .sum();
        Promise {
            promise,
            target: "0",
            measured: seen.to_string(),
            kept: seen == 0,
            hard: true,
        }
    };
    let unfinished = rounds.iter().filter(|round| round.error.is_some()).count();
    let reads = all_reads(rounds);
    let mut promises = vec![
        Promise {
            // A write that only one replica accepted may be lost together with the merger.
            hard: mode != Mode::Async,
            ..zero("acknowledged writes missing", &[Breach::Missing])
        },
        zero("deleted documents that came back", &[Breach::CameBack]),
        zero(
            "documents or vectors that nobody wrote",
            &[Breach::Invented],
        ),
        zero("replicas that differ", &[Breach::Differs]),
        zero(
            "documents that an answer showed twice",
            &[Breach::ShownTwice],
        ),
        zero("accepted tasks lost or endless", &[Breach::LostTask]),
        zero("task uids given twice", &[Breach::TaskTwice]),
        Promise {
            promise: "rounds that failed, or not green within 120 s",
            target: "0",
            measured: unfinished.to_string(),
            kept: unfinished == 0,
            hard: true,
        },
        Promise {
            // Other modes acknowledge before all in-sync replicas have the write, so there it is a figure and not a promise.
            hard: mode == Mode::Sync,
            ..zero(
                "reads that showed less than was acknowledged",
                &[Breach::StaleRead],
            )
        },
        Promise {
            promise: "reads that failed though they could be answered",
            target: "<= 0.1 %",
            measured: format!("{:.3} % of {}", reads.failed_per_cent(), reads.asked),
            kept: reads.failed_per_cent() <= 0.1,
            hard: false,
        },
        Promise {
            promise: "the same, sent 2 s after the fault or later",
            target: "0",
            measured: reads.failed_late.to_string(),
            kept: reads.failed_late == 0,
            hard: true,
        },
    ];
    promises.extend(while_slots_moved(rounds));
    promises.extend(gap(
        "reads after a node died (longest gap)",
        "<= 1 s",
        1e3,
        &after(rounds, Fault::kills_a_node),
        |round| round.read_gap_ms,
    ));
    promises.extend(gap(
        "writes after a node died (longest gap)",
        "<= 3 s",
        3e3,
        &after(rounds, Fault::kills_a_node),
        |round| round.write_gap_ms,
    ));
    promises.extend(gap(
        "writes after the leader was gone (longest gap)",
        "<= 5 s",
        5e3,
        &after(rounds, Fault::ends_the_leader),
        |round| round.write_gap_ms,
    ));
    promises.extend(times(
        "p99 of searches with a slow replica vs. without",
        "<= 2 x",
        2.0,
        rounds,
        Fault::Slow,
    ));
    promises.extend(times(
        "p99 of searches in a bulk import vs. before",
        "<= 1.5 x",
        1.5,
        rounds,
        Fault::BulkImport,
    ));
    promises
}

/// How many faults happened while slots moved, if any should have.
fn while_slots_moved(rounds: &[Round]) -> Option<Promise> {
    let moved = rounds.iter().filter_map(|round| round.moved.as_ref());
    let moved: Vec<_> = moved.collect();
    let met = moved.iter().filter(|moved| moved.met()).count();
    (!moved.is_empty()).then(|| Promise {
        promise: "faults that happened while slots moved",
        target: "all",
        measured: format!("{met} of {}", moved.len()),
        kept: met == moved.len(),
        hard: true,
    })
}

/// All promises, one per line.
pub(super) fn table(promises: &[Promise]) -> String {
    let mut lines = vec![format!(
        "\n{:<50} {:>9} {:>22}",
        "promise", "target", "measured"
    )];
    lines.extend(promises.iter().map(|promise| {
        format!(
            "{:<50} {:>9} {:>22}  {}",
            promise.promise,
            promise.target,
            promise.measured,
            if promise.kept { "kept" } else { "BROKEN" }
        )
    }));
    lines.join("\n")
}

/// Writes `faults.json` and returns its path.
pub(super) fn write(
    folder: &Path,
    seed: u64,
    rounds: &[Round],
    promises: &[Promise],
) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let file = folder.join("faults.json");
    let text =
        serde_json::to_vec_pretty(&json!({"seed": seed, "promises": promises, "rounds": rounds}))?;
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// The rounds of some faults.
fn after(rounds: &[Round], faults: fn(Fault) -> bool) -> Vec<&Round> {
    let rounds = rounds.iter();
    rounds.filter(|round| faults(round.fault)).collect()
}

fn gap(
    promise: &'static str,
    target: &'static str,
    limit_ms: f64,
    rounds: &[&Round],
    of: fn(&Round) -> Option<f64>,
) -> Option<Promise> {
    let gaps: Vec<f64> = rounds.iter().copied().filter_map(of).collect();
    let worst = gaps.iter().copied().reduce(f64::max)?;
    let within = gaps.iter().filter(|gap| **gap <= limit_ms).count();
    Some(Promise {
        promise,
        target,
        measured: format!("{worst:.0} ms ({within}/{} ok)", gaps.len()),
        kept: worst <= limit_ms,
        hard: false,
    })
}

/// The ratio of the p99 of searches during the fault to the p99 before it.
fn times(
    promise: &'static str,
    target: &'static str,
    limit: f64,
    rounds: &[Round],
    fault: Fault,
) -> Option<Promise> {
    let all = |of: fn(&Round) -> &Vec<Duration>| -> Vec<Duration> {
        let timed = rounds.iter().filter(|round| round.fault == fault);
        timed.flat_map(|round| of(round).iter().copied()).collect()
    };
    let before = p99(&all(|round| &round.before))?;
    let during = p99(&all(|round| &round.during))?;
    let ratio = during.as_secs_f64() / before.as_secs_f64();
    Some(Promise {
        promise,
        target,
        measured: format!(
            "{ratio:.2} x ({} / {} ms)",
            during.as_millis(),
            before.as_millis()
        ),
        kept: ratio <= limit,
        hard: false,
    })
}

fn all_reads(rounds: &[Round]) -> ReadFigures {
    let mut all = ReadFigures::default();
    for round in rounds {
        all.add(&round.reads);
    }
    all
}
