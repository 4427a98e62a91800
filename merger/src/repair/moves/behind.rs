//! Old copies that are about to go: what batches have left on the old shard when their slots have their new owner.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::MoveError;
use super::phase::{Phase, timed};
use super::send::Tasks;
use crate::cluster::Move;
use crate::repair::Context;

/// The deletions that a move has sent, the oldest first. While they are open, the next batch is copied.
pub(super) struct Behind {
    /// The move.
    id: u64,
    left: Mutex<VecDeque<Arc<Left>>>,
    /// One at a time waits for a deletion, so that each is counted once.
    waiting: tokio::sync::Mutex<()>,
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
            waiting: tokio::sync::Mutex::default(),
        }
    }

    /// Notes the deletion of so many documents.
    pub(super) fn add(&self, documents: u64, deletion: Tasks) {
        let left = Left {
            documents,
            deletion,
        };
        self.lock().push_back(Arc::new(left));
    }

    /// How many documents may still be there.
    pub(super) fn documents(&self) -> usize {
        let left = self.lock();
        let documents: u64 = left.iter().map(|one| one.documents).sum();
        usize::try_from(documents).unwrap_or(usize::MAX)
    }

    /// Waits until what one batch has left is gone, the oldest one first. May be cut off.
    ///
    /// # Errors
    /// A node didn't delete it: it must be swept. It still counts as left.
    pub(super) async fn oldest_gone(&self, ctx: &Context) -> Result<(), MoveError> {
        let _waiting = self.waiting.lock().await;
        let Some(oldest) = self.lock().front().cloned() else {
            return Ok(());
        };
        timed(ctx, Phase::Delete, oldest.deletion.done(ctx)).await?;
        self.lock().pop_front();
        let removed = |shown: &mut Move| shown.removed += oldest.documents;
        ctx.cluster.moves.show(self.id, removed).await;
        Ok(())
    }

    /// Waits until none is left.
    ///
    /// # Errors
    /// A node didn't delete them: what is left must be swept.
    pub(super) async fn gone(&self, ctx: &Context) -> Result<(), MoveError> {
        while self.documents() > 0 {
            self.oldest_gone(ctx).await?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Left>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
