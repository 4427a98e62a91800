//! Carries moves out: slots of an index go from one shard to another while clients read and write.
//!
//! ```text
//! prepare: filters leave the index to the merger; the new shard gets the index, empty, with its settings
//! read:    the ids of all documents in the slots; from here on, what is written there is noted
//! batch:   slots at rest, to which nothing was written since ─► copy, and compare on every replica
//!          if there are few: what was written before is applied, and the old copies of earlier batches are gone ─► copy, compare
//!          with both shards' locks: the slots at rest are taken ─► the new owner is stored ─► every merger reads by it ─► deletion of
//!          the old copies is sent; slots that were written to stay for the next batch
//!          if they are most of the batch: what was written is brought over while writers wait, if that is quick enough; otherwise
//!          it is tried again, with half of the batch
//! tail:    the last old copies go, both shards are settled; meanwhile the next move of the index begins
//! settle:  if anything was cut off, both shards are searched for documents that aren't theirs, and these are deleted
//! ```
//!
//! From the first copy until the old ones are gone, both shards hold some of the documents. Such a shard is noted as *unsettled* in
//! the placement, and a reader ignores a hit from a shard that doesn't own its slot. So a move can be cut off at any point: the
//! owner of a slot always has all of its documents, and everything else is surplus that a search for it removes.
//!
//! Invariants: a slot changes its owner under both shards' locks, and only when every replica in sync of the new owner was seen to hold
//! the same documents and nothing was written to them since. Writers wait for that no longer than [`TURN`]. Nothing is deleted on the
//! old owner before that is stored and every merger reads by it. What was copied and not handed over, and what was handed over and not yet deleted on the old shard, is no
//! more than a batch together (or a slot, if that has more), over all moves of an index. Slots of one move at a time are handed over
//! in an index.

mod applied;
mod batch;
mod behind;
mod change;
mod error;
mod ids;
mod join;
mod measure;
mod mend;
mod phase;
mod rate;
mod run;
mod send;
mod series;
mod supervise;
mod survey;
mod sweep;
mod tail;
mod turn;

use std::time::Duration;

pub use measure::measure;
pub use supervise::move_slots;

pub(crate) use error::MoveError;
pub(crate) use survey::{Size, Survey, size_on};

use weft_routing::placement::ShardId;

use super::Context;
use super::resync::Remote;
use crate::cluster::{NodeRef, NodeStatus, Placement};

/// How long writers may wait while a batch is handed over.
const TURN: Duration = Duration::from_millis(400);

/// The pause after a turn that was too short.
const AGAIN: Duration = Duration::from_millis(150);

/// The most documents that are mended while writers wait.
const FEW: usize = 200;

/// Ends the notes of what is written to an index, however its move ends.
struct Noting<'a> {
    ctx: &'a Context,
    index: &'a str,
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        self.ctx.cluster.moves.logs.end(self.index);
    }
}

/// The replica of a shard that is read: one in sync that answers.
fn source(ctx: &Context, shard: ShardId) -> Result<NodeRef, MoveError> {
    let replicas = ctx.cluster.replicas_or_none(shard)?;
    let is_up = |node: &&NodeRef| ctx.cluster.health.status(&node.id) == NodeStatus::Up;
    let found = replicas.iter().find(is_up).cloned();
    found.ok_or(MoveError::NotUp(shard))
}

/// How many documents of an index two shards may hold at the same time.
pub(crate) fn batch_documents(ctx: &Context) -> usize {
    let set = ctx.cluster.moves.options().batch_documents;
    set.unwrap_or(ctx.options.move_batch)
}

/// All replicas of a shard that are in sync.
fn replicas(ctx: &Context, shard: ShardId) -> Result<Vec<NodeRef>, MoveError> {
    Ok(ctx.cluster.replicas_or_none(shard)?)
}

fn remote<'a>(ctx: &'a Context, node: &'a NodeRef) -> Remote<'a> {
    Remote::new(ctx, node)
}

/// The primary key of an index, which `node` is asked for if nobody knows it; `None` if the index has no documents there.
async fn primary_key(
    ctx: &Context,
    placement: &Placement,
    node: &NodeRef,
) -> Result<Option<String>, MoveError> {
    if placement.primary_key.is_some() {
        return Ok(placement.primary_key.clone());
    }
    let node = remote(ctx, node);
    node.applied().await?;
    let indexes = node.indexes().await?;
    let here = indexes.into_iter().find(|index| index.uid == placement.uid);
    Ok(here.and_then(|index| index.primary_key))
}
