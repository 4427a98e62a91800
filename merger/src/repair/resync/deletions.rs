//! Limits what a resync may delete without an operator's confirmation.
//!
//! A few surplus documents may always be deleted. An index that the source doesn't have, or more than a tenth of an index's
//! documents, is only deleted if there is an explanation: a task that removed documents since shortly before the replica went
//! out, an index that is no longer placed on this shard, or writes that the target took but that were not acknowledged. Otherwise
//! the resync stops, and an operator decides. This is the last line of defence, after the check that the source still is the same
//! node.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use time::{Duration, OffsetDateTime};
use weft_routing::placement::ShardId;

use super::ResyncError;
use crate::cluster::NodeId;
use crate::repair::Context;

/// One in this many documents may be deleted without an explanation.
const ONE_OF: u64 = 10;
/// A task explains a deletion if it is from the time since the replica went out or from this long before, because the replica's
/// disk may be an older one.
const BEFORE: Duration = Duration::hours(24);

/// Decides what a resync may delete on one node.
pub(crate) struct Deletions<'a> {
    pub(crate) ctx: &'a Context,
    pub(crate) shard: ShardId,
    pub(crate) node: NodeId,
    /// Since when the node has been out of sync.
    pub(crate) out_since: OffsetDateTime,
    /// The node took writes that were not acknowledged, and may have to lose them.
    pub(crate) took_more: bool,
    /// An operator has confirmed all deletions.
    pub(crate) confirmed: bool,
    /// How many documents of each index the resync has been allowed to delete so far.
    pub(crate) counts: Mutex<BTreeMap<String, u64>>,
}

impl Deletions<'_> {
    /// Allows the deletion of an index that the source doesn't have, or has with another primary key.
    ///
    /// # Errors
    /// Nothing explains why the index is gone.
    pub(crate) fn allow_index(&self, index: &str) -> Result<(), ResyncError> {
        let placement = self.ctx.cluster.placement(index);
        let lies_here = placement.is_some_and(|placement| {
            placement.deleted_by.is_none() && placement.shards().contains(&self.shard)
        });
        if !lies_here || self.is_explained(index) {
            return Ok(());
        }
        Err(self.unexplained(
            index,
            "the whole index, which the source has not".to_owned(),
        ))
    }

    /// Allows the deletion of `count` more documents of an index of which the node had `held`.
    ///
    /// # Errors
    /// It would be too many in total, and nothing explains them.
    pub(crate) fn allow(&self, index: &str, count: u64, held: u64) -> Result<(), ResyncError> {
        let sum = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let sum = counts.entry(index.to_owned()).or_default();
            *sum += count;
            *sum
        };
        if sum.saturating_mul(ONE_OF) <= held || self.is_explained(index) {
            return Ok(());
        }
        Err(self.unexplained(index, format!("{sum} of {held} documents")))
    }

    fn is_explained(&self, index: &str) -> bool {
        let since = self.out_since - BEFORE;
        self.confirmed || self.took_more || self.ctx.tasks.has_removed(index, since)
    }

    fn unexplained(&self, index: &str, what: String) -> ResyncError {
        ResyncError::Unexplained {
            node: self.node.clone(),
            index: index.to_owned(),
            what,
        }
    }
}
