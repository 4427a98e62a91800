//! What must be removed from a shard because a write of an index that lies by a field brings it to another one.
//!
//! A document that is replaced may get another value of its routing field. Then its new version goes to another shard, and the old
//! one must go. Where nobody knows which shard holds it, all others are told to remove the id.

use std::io;

use bytes::Bytes;
use weft_routing::placement::ShardId;

use super::split::Owners;
use super::spool::{Framing, Piece, Spool, SpoolLimits};
use crate::ids::Ids;

/// The most ids that are kept for notes of what was written.
const KEPT_IDS: usize = 10_000;

/// What one shard must remove.
#[derive(Debug, Clone)]
pub(super) struct Removal {
    pub(super) shard: ShardId,
    /// Bodies of `documents/delete-batch`.
    pub(super) pieces: Vec<Piece>,
    /// The ids, unless there are too many to keep.
    pub(super) ids: Option<Ids>,
}

/// What each of `shards` must remove after a write whose documents lie as `owners` says: what other shards get, or only what it
/// holds of that, if that is known.
pub(super) async fn removals(
    owners: &Owners,
    shards: &[ShardId],
    held: Option<&Owners>,
    limits: &SpoolLimits,
) -> io::Result<Vec<Removal>> {
    let mut removals = Vec::new();
    if shards.len() < 2 {
        return Ok(removals);
    }
    let framing = Framing {
        before: Bytes::from_static(b"["),
        after: Bytes::from_static(b"]"),
        between: b',',
    };
    for shard in shards {
        let mut spool = Spool::new(framing.clone(), limits);
        let mut ids = Some(Ids::placed());
        for (id, owner) in owners.iter() {
            let may_hold = match held {
                None => true,
                Some(held) => held.was_on(id, *shard),
            };
            if owner == *shard || !may_hold {
                continue;
            }
            // An id has no letter that JSON would escape.
            spool.append(format!("\"{id}\"").as_bytes());
            spool.spill(limits).await?;
            match &mut ids {
                Some(ids) if ids.len() < KEPT_IDS => ids.push(id),
                ids => *ids = None,
            }
        }
        if !spool.is_empty() {
            removals.push(Removal {
                shard: *shard,
                pieces: spool.finish(limits).await?,
                ids,
            });
        }
    }
    Ok(removals)
}

#[cfg(test)]
mod tests;
