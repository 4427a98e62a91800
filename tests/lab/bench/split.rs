//! How fast the merger splits documents by shard.

use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use weft_cluster::data::DataSet;
use weft_merger::internals;
use weft_merger::write::Format;

use super::Row;

/// The size of the body that is split, in bytes.
const BODY_BYTES: usize = 48 << 20;
/// The number of runs. The fastest counts, since the others were disturbed.
const RUNS: usize = 5;

pub(super) fn measure() -> Result<Vec<Row>> {
    let set = DataSet::movies()?;
    let once = set.ndjson(0, set.documents.len());
    let ndjson: Vec<u8> = once
        .iter()
        .copied()
        .cycle()
        .take(once.len() * (BODY_BYTES / once.len()))
        .collect();
    let lines: Vec<&[u8]> = ndjson
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let mut json = b"[".to_vec();
    json.extend(lines.join(&b','));
    json.push(b']');
    let mut rows = Vec::new();
    let forms = [
        ("NDJSON", Format::Ndjson, &ndjson, "≥ 600 MB/s"),
        ("JSON array", Format::Json, &json, "≥ 300 MB/s"),
    ];
    for (name, format, body, goal) in forms {
        for shards in [3, 8] {
            let mut best = internals::split(format, shards, set.primary_key, body, processor_time)?;
            for _ in 1..RUNS {
                let run = internals::split(format, shards, set.primary_key, body, processor_time)?;
                if run.took < best.took {
                    best = run;
                }
            }
            let what = format!("{name}, {shards} shards");
            rows.push(
                Row::alone(
                    format!("{what}: bytes"),
                    best.megabytes_per_second(),
                    "MB/s",
                )
                .goal(goal),
            );
            rows.push(Row::alone(
                format!("{what}: documents"),
                best.documents_per_second(),
                "1/s",
            ));
        }
    }
    Ok(rows)
}

/// The processor time that this thread has used: on a busy machine, less than the time that has passed.
fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(used).unwrap_or_default()
}
