//! Old copies that are about to go: what a batch has left on the old shard when its slots have their new owner.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::MoveError;
use super::phase::{Phase, timed};
use super::send::Tasks;
use crate::cluster::Move;
use crate::repair::Context;

/// The deletions that a move has sent and not yet waited for. While they are open, the next batch is read.
pub(super) struct Behind {
    /// The move.
    id: u64,
    left: Mutex<Vec<Left>>,
}

/// What one batch has left.
struct Left {
    documents: u64,
    deletion: Tasks,
}

impl Behind {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            left: Mutex::default(),
        }
    }

    /// Notes the deletion of so many documents.
    pub(super) fn add(&self, documents: u64, deletion: Tasks) {
        self.lock().push(Left {
            documents,
            deletion,
        });
    }

    /// How many documents may still be there.
    pub(super) fn documents(&self) -> usize {
        let left = self.lock();
        let documents: u64 = left.iter().map(|one| one.documents).sum();
        usize::try_from(documents).unwrap_or(usize::MAX)
    }

    /// Waits until none is left.
    ///
    /// # Errors
    /// A node didn't delete them: what is left must be swept.
    pub(super) async fn gone(&self, ctx: &Context) -> Result<(), MoveError> {
        let left = std::mem::take(&mut *self.lock());
        for one in left {
            timed(ctx, Phase::Delete, one.deletion.done(ctx)).await?;
            let removed = |shown: &mut Move| shown.removed += one.documents;
            ctx.cluster.moves.show(self.id, removed).await;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
