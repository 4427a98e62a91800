//! How fast bodies are split, with nothing behind the splitter: for `make bench`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use weft_routing::placement::{ShardId, SlotMap};

use super::dry_run::in_memory;
use super::format::Format;
use super::split::SplitError;

/// How much of a body comes in at once, in bytes: what one read of a connection brings.
const CHUNK_BYTES: usize = 64 << 10;

/// How much of a part is kept before it is forgotten, in bytes: where the merger would write it out.
const DISCARD_BYTES: usize = 1 << 20;

/// What splitting a body took.
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

/// Splits a body for an index on `shards` shards whose primary key is `key`, in memory and on this thread; timed by `clock`.
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
    // With all in memory, nothing is ever awaited.
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
