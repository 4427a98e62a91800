//! Figures of a round: gaps, rates and quantiles. Pure.

use std::time::Duration;

use serde::Serialize;

use super::history::At;
use super::world::{Read, ReadKind};

/// How long after a fault requests may still fail.
const LATE_AFTER: Duration = Duration::from_secs(2);
/// How long before a fault the search for gaps begins.
const BEFORE: Duration = Duration::from_secs(1);

/// A time in which requests couldn't have been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Outage {
    pub(super) from: At,
    pub(super) to: At,
    /// The edge at which it was so; `None` for all.
    pub(super) edge: Option<usize>,
}

impl Outage {
    fn excuses(&self, read: &Read) -> bool {
        let meant = self.edge.is_none_or(|edge| edge == read.edge);
        meant && read.began <= self.to && read.ended >= self.from
    }
}

/// How reads went after a fault.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadFigures {
    /// Reads that at least one replica could have answered.
    pub(super) asked: u64,
    /// Those of them that failed.
    pub(super) failed: u64,
    /// Those that failed and were sent more than two seconds after the fault.
    pub(super) failed_late: u64,
    /// Reads that failed while no replica could have answered.
    pub(super) excused: u64,
    /// Some of the failures.
    pub(super) examples: Vec<String>,
}

impl ReadFigures {
    pub(super) fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.failed += other.failed;
        self.failed_late += other.failed_late;
        self.excused += other.excused;
        self.examples.extend(other.examples.iter().cloned());
        self.examples.truncate(10);
    }

    pub(super) fn failed_per_cent(&self) -> f64 {
        if self.asked == 0 {
            return 0.0;
        }
        self.failed as f64 * 100.0 / self.asked as f64
    }
}

/// Judges reads by when they were sent, and whether any replica could have answered then. Nothing new is broken after `last`, which is
/// when the fault is injected, unless it breaks one thing after the other.
pub(super) fn reads(reads: &[Read], fault: At, last: At, outages: &[Outage]) -> ReadFigures {
    let mut figures = ReadFigures::default();
    for read in reads.iter().filter(|read| read.ended >= fault) {
        let excused = outages.iter().any(|outage| outage.excuses(read));
        match &read.failure {
            Some(_) if excused => figures.excused += 1,
            Some(failure) => {
                figures.asked += 1;
                figures.failed += 1;
                let late = read.began > last + LATE_AFTER;
                figures.failed_late += u64::from(late);
                if figures.examples.len() < 10 {
                    figures.examples.push(format!(
                        "{:?} at edge {}, {:+.3} s, {:.3} s long: {failure}",
                        read.kind,
                        read.edge,
                        read.began.as_secs_f64() - fault.as_secs_f64(),
                        (read.ended - read.began).as_secs_f64()
                    ));
                }
            }
            None => figures.asked += 1,
        }
    }
    figures
}

/// The longest time without a success around a fault, among the gaps that end after it. `successes` need not be sorted.
pub(super) fn longest_gap(successes: &[At], fault: At, until: At) -> Option<Duration> {
    let from = fault.saturating_sub(BEFORE);
    let mut moments: Vec<At> = successes
        .iter()
        .copied()
        .filter(|at| (from..=until).contains(at))
        .collect();
    moments.sort_unstable();
    // If nothing succeeds before `until`, the gap lasts until then.
    moments.push(until);
    let mut last = moments.first().copied()?.min(fault);
    let mut longest = Duration::ZERO;
    for at in moments {
        if at > fault {
            longest = longest.max(at - last);
        }
        last = at;
    }
    Some(longest)
}

/// When the successful reads of one kind were answered.
pub(super) fn successes(reads: &[Read], kind: ReadKind) -> Vec<At> {
    reads
        .iter()
        .filter(|read| read.kind == kind && read.failure.is_none())
        .map(|read| read.ended)
        .collect()
}

/// How long searches took that were sent and answered within this period.
pub(super) fn latencies(reads: &[Read], from: At, to: At) -> Vec<Duration> {
    reads
        .iter()
        .filter(|read| read.kind == ReadKind::Search && read.failure.is_none())
        .filter(|read| read.began >= from && read.began <= to)
        .map(|read| read.ended - read.began)
        .collect()
}

/// The time within which 99 of 100 were answered.
pub(super) fn p99(latencies: &[Duration]) -> Option<Duration> {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied()
}

#[cfg(test)]
mod tests;
