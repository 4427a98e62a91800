//! How much a resync may delete without asking: what somebody wanted to be deleted.
//!
//! A few surplus documents are nothing to wonder about. An index that the source has not, or more than a tenth of an index's
//! documents, is only deleted if that can be explained: by a task that removed documents since the replica was last well, by an
//! index that lies here no more, or by writes that the target took and nobody was acknowledged. Otherwise the resync stops, and an
//! operator decides. It is the last line: the source was seen to be the node that it was.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use time::{Duration, OffsetDateTime};
use weft_routing::placement::ShardId;

use super::ResyncError;
use crate::cluster::NodeId;
use crate::repair::Context;

/// One of so many documents may be deleted without an explanation.
const ONE_OF: u64 = 10;
/// Tasks explain a deletion if they are not older than this before the replica went out: its disk may be an older one.
const BEFORE: Duration = Duration::hours(24);

/// What a resync deletes at one node.
pub(crate) struct Deletions<'a> {
    pub(crate) ctx: &'a Context,
    pub(crate) shard: ShardId,
    pub(crate) node: NodeId,
    /// Since when the node is out.
    pub(crate) out_since: OffsetDateTime,
    /// It took writes that nobody was acknowledged: it may have to lose them.
    pub(crate) took_more: bool,
    /// An operator has said that all of it is right.
    pub(crate) confirmed: bool,
    /// How many documents of each index it has deleted so far.
    pub(crate) counts: Mutex<BTreeMap<String, u64>>,
}

impl Deletions<'_> {
    /// Whether an index that the source has not, or has with another primary key, may be deleted.
    ///
    /// # Errors
    /// Nothing explains that it is gone.
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

    /// Whether so many more documents of an index may be deleted, of which the node had `held`.
    ///
    /// # Errors
    /// That is too much, and nothing explains it.
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
