//! The cost of a merge alone, compared with the same merge with `serde_json::Value`: time on one core, and peak memory.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use peak_alloc::PeakAlloc;
use weft_merger::internals::MergeSample;

use super::Row;

/// Counts all allocations of the lab.
#[global_allocator]
pub(super) static MEMORY: PeakAlloc = PeakAlloc;

const SHARDS: usize = 8;
const HITS: usize = 1000;
const HIT_BYTES: usize = 1024;
/// The number of runs. The fastest counts, since the others were disturbed.
const RUNS: usize = 9;

/// One merge: its shortest time, its peak memory in addition to the shards' answers, and the size of its result.
struct Cost {
    took: Duration,
    peak: usize,
    bytes: usize,
}

pub(super) fn measure() -> Result<Vec<Row>> {
    let sample = MergeSample::new(SHARDS, HITS, HIT_BYTES);
    let mut rows = Vec::new();
    for take in [HITS, SHARDS * HITS] {
        let merge = || {
            sample
                .merge(take)
                .map_err(|error| anyhow!("an invented answer is {error}"))
        };
        let ours = cost(merge)?;
        let theirs = cost(|| Ok(sample.merge_by_values(take)))?;
        let what = format!("{SHARDS} shards × {HITS} hits × 1 KiB, {take} shown");
        let ms = |cost: &Cost| cost.took.as_secs_f64() * 1e3;
        let mut time = Row::compared(
            format!("{what}: time vs. serde_json::Value"),
            ms(&ours),
            ms(&theirs),
            "ms",
        );
        if take == HITS {
            time = time.goal("≤ 8 ms");
        }
        rows.push(time);
        rows.push(
            Row::compared(
                format!("{what}: memory of the merge vs. its answer"),
                mib(ours.peak),
                mib(ours.bytes),
                "MiB",
            )
            .goal("≤ 3 ×"),
        );
        rows.push(Row::compared(
            format!("{what}: … with all shards' answers"),
            mib(ours.peak + sample.bytes()),
            mib(sample.bytes()),
            "MiB",
        ));
        rows.push(Row::compared(
            format!("{what}: memory vs. serde_json::Value"),
            mib(ours.peak),
            mib(theirs.peak),
            "MiB",
        ));
    }
    Ok(rows)
}

fn cost(merge: impl Fn() -> Result<Vec<u8>>) -> Result<Cost> {
    let mut cost = Cost {
        took: Duration::MAX,
        peak: usize::MAX,
        bytes: 0,
    };
    for _ in 0..RUNS {
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let begun = Instant::now();
        let answer = merge()?;
        cost.took = cost.took.min(begun.elapsed());
        // Other parts of the process allocate too, so the smallest peak is the merge's own.
        cost.peak = cost.peak.min(MEMORY.peak_usage().saturating_sub(before));
        cost.bytes = answer.len();
    }
    Ok(cost)
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
