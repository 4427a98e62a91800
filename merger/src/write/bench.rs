//! Measures how fast bodies are split, without anything behind the splitter: for `make bench`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use weft_routing::placement::{ShardId, SlotMap};

use super::dry_run::in_memory;
use super::format::Format;
use super::split::SplitError;

/// How many bytes of a body arrive at once: as much as one read of a connection.
const CHUNK_BYTES: usize = 64 << 10;

/// How many bytes of a part are kept before they are discarded: as many as the merger keeps before it writes them to a file.
const DISCARD_BYTES: usize = 1 << 20;

/// The measurement of one body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitRun {
    /// How many documents there were.
    pub documents: u64,
    /// How long the body is.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl SplitRun {
    /// Megabytes (10⁶) a second.
    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }

    /// Documents a second.
    pub fn documents_per_second(&self) -> f64 {
        self.documents as f64 / self.took.as_secs_f64()
    }
}

/// Splits a body in memory, on this thread, for an index on `shards` shards with the primary key `key`; `clock` tells the time.
///
/// # Errors
/// The body is not of its format.
pub fn split(
    format: Format,
    shards: u16,
    key: &str,
    body: &[u8],
    clock: impl Fn() -> Duration,
) -> Result<SplitRun, SplitError> {
    let shards: Vec<ShardId> = (0..shards.max(1)).map(ShardId).collect();
    let slots = SlotMap::deal(&shards).unwrap_or_else(|_| SlotMap::single(ShardId(0)));
    let begun = clock();
    let mut splitter = in_memory(format, &Arc::new(slots), Some(key));
    for chunk in body.chunks(CHUNK_BYTES) {
        splitter.push(chunk)?;
        splitter.discard(DISCARD_BYTES);
    }
    // With everything in memory, no await ever suspends.
    let batch = splitter
        .finish()
        .now_or_never()
        .unwrap_or(Err(SplitError::Empty))?;
    Ok(SplitRun {
        documents: batch.received,
        bytes: body.len() as u64,
        took: clock().saturating_sub(begun),
    })
}
