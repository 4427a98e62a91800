//! Splits a body in memory and shows what each shard would get, without anything behind the splitter: for fuzzing and
//! measuring.
//!
//! The parts are what the shards' nodes would be sent; nothing is delivered or written to disk.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use weft_routing::placement::{ShardId, SlotMap};

use super::format::Format;
use super::judge::{Judge, Manner};
use super::split::{SplitError, SplitKey, Splitter};
use super::spool::{Piece, SpoolLimits};

/// The result of splitting a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How many documents there are.
    pub received: u64,
    /// The primary key, given or inferred.
    pub key: Option<String>,
    /// The bodies for each shard that owns any of the documents.
    pub parts: Vec<(ShardId, Vec<Bytes>)>,
    /// The body with the document for which a node's task would refuse the whole batch.
    pub refused: Option<Bytes>,
}

/// Splits a body that arrives in these chunks.
///
/// # Errors
/// The body is not of its format.
pub fn plan<'a>(
    format: Format,
    slots: &Arc<SlotMap>,
    key: Option<&str>,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> Result<Plan, SplitError> {
    let mut splitter = in_memory(format, slots, key);
    for chunk in chunks {
        splitter.push(chunk)?;
    }
    // With everything in memory, no await ever suspends.
    let batch = splitter
        .finish()
        .now_or_never()
        .unwrap_or(Err(SplitError::Empty))?;
    let text = |piece: &Piece| {
        let body = piece.body().collect().now_or_never();
        body.and_then(Result::ok)
            .map(|body| body.to_bytes())
            .unwrap_or_default()
    };
    Ok(Plan {
        received: batch.received,
        key: batch.key,
        parts: batch
            .parts
            .iter()
            .map(|part| (part.shard, part.pieces.iter().map(text).collect()))
            .collect(),
        refused: batch.refused.as_ref().map(text),
    })
}

/// A splitter that keeps everything in memory, with a judge that knows no settings.
pub(super) fn in_memory(format: Format, slots: &Arc<SlotMap>, key: Option<&str>) -> Splitter {
    let limits = SpoolLimits {
        memory_bytes: usize::MAX,
        piece_bytes: 90 << 20,
        folder: std::env::temp_dir(),
        memory: crate::bounds::Budget::unbounded(),
        disk: crate::bounds::Budget::unbounded(),
    };
    let key = SplitKey {
        name: key.map(str::to_owned),
        is_open: false,
    };
    let judge = Judge::new(Arc::default(), Manner::default());
    Splitter::new(format, slots, key, limits).judged(judge)
}
