//! What is left of a move when its slots have their new owner: the last old copies are deleted, and both shards are settled.
//! Meanwhile the next move of the index begins: it keeps other nodes busy.

use std::sync::Arc;

use weft_routing::placement::ShardId;

use super::behind::Behind;
use super::run::alive;
use super::{MoveError, join};
use crate::cluster::{Move, MoveState, Renamed};
use crate::repair::Context;

/// The end of a move.
pub(super) struct Tail {
    pub(super) id: u64,
    index: String,
    shards: [ShardId; 2],
    renamed: Renamed,
    /// How the move ends, or [`MoveState::Waiting`] if it must go on later.
    pub(super) state: MoveState,
    pub(super) behind: Behind,
}

impl Tail {
    /// `renamed` has been watched since before the move looked at the index.
    pub(super) fn new(one: &Move, renamed: Renamed, state: MoveState, behind: Behind) -> Self {
        Self {
            id: one.id,
            index: one.index.clone(),
            shards: [one.from, one.to],
            renamed,
            state,
            behind,
        }
    }

    /// Waits until the old copies are gone. Then the move's shards hold only what is theirs, but for those that the next move
    /// `uses`. A shard that owns nothing any more loses the index.
    ///
    /// # Errors
    /// The shards must be swept.
    pub(super) async fn end(&self, ctx: &Arc<Context>, uses: &[ShardId]) -> Result<(), MoveError> {
        self.behind.gone(ctx).await?;
        let placement = alive(ctx, &self.index)?;
        let mut shards = self.shards.to_vec();
        shards.retain(|shard| !uses.contains(shard));
        for shard in &shards {
            if !placement.shards().contains(shard) {
                join::leave(ctx, &self.index, *shard).await?;
            }
        }
        settled(ctx, (&self.index, &self.renamed), &shards).await
    }
}

/// Notes that these shards of an index hold only what is theirs.
///
/// # Errors
/// The name may be that of another index by now.
pub(super) async fn settled(
    ctx: &Context,
    (index, renamed): (&str, &Renamed),
    shards: &[ShardId],
) -> Result<(), MoveError> {
    if shards.is_empty() {
        return Ok(());
    }
    // An index gets another one's name under the locks only.
    let _guard = ctx.locks.lock(shards).await;
    if renamed.maybe() {
        return Err(MoveError::Changed);
    }
    let placements = &ctx.cluster.placements;
    placements.set_unsettled(index, shards, false).await?;
    Ok(())
}
