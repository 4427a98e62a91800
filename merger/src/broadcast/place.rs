//! The placement of an index that is created or goes on, together with the locks of its shards.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::BroadcastError;
use super::spread::{NodeChange, Reach, Spread, spread_locked};
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::cluster::{Before, Placement, Wanted, until};
use crate::replication::WriteGuard;
use crate::tasks::NewTask;

/// An index that exists from now on, with the locks of all its shards: newly placed, already there, or revived while it was
/// being deleted.
///
/// Whether an index exists changes only under the locks of all its shards, at the point in their order of writes where the
/// nodes create or delete it. So no write sees an index that some shards have deleted and others haven't.
pub(super) struct Place {
    pub(super) placement: Arc<Placement>,
    before: Before,
    pub(super) guard: WriteGuard,
}

/// How often a change is retried because the placement of its index changed meanwhile.
pub(super) const ATTEMPTS: usize = 5;

/// How long a change waits for tasks under way.
pub(super) const WITHIN: Duration = Duration::from_secs(10);

/// Retries an attempt that found, before it had the locks, that its index had moved or gone.
pub(super) async fn until_settled<F>(
    uid: &str,
    attempt: impl Fn() -> F,
) -> Result<Answer, BroadcastError>
where
    F: Future<Output = Result<Answer, BroadcastError>>,
{
    for _ in 0..ATTEMPTS {
        match attempt().await {
            Err(BroadcastError::Unsettled(_)) => {}
            outcome => return outcome,
        }
    }
    Err(BroadcastError::Unsettled(uid.to_owned()))
}

/// Waits until an index that is being deleted is removed.
///
/// # Errors
/// The deletion takes too long.
pub(super) async fn until_gone(ctx: &Context, uid: &str) -> Result<(), BroadcastError> {
    let is_not_dying = || {
        let placement = ctx.cluster.placement(uid);
        let is_dying = placement.is_some_and(|placement| placement.deleted_by.is_some());
        (!is_dying).then_some(())
    };
    let gone = until([&ctx.cluster.placements.changes], is_not_dying);
    let late = |_| BroadcastError::Busy(uid.to_owned());
    tokio::time::timeout(WITHIN, gone).await.map_err(late)
}

/// Cancels the moves of indexes whose names are about to mean something else, and waits until no shard holds one of them only in
/// preparation of a move: it would not get the change. Returns whether there were moves.
///
/// # Errors
/// The store failed, or it takes too long.
pub(super) async fn cancel_moves(ctx: &Context, uids: &[&str]) -> Result<bool, BroadcastError> {
    let moves = &ctx.cluster.moves;
    let cancelled = moves.cancel(|one| uids.contains(&one.index.as_str()));
    let cancelled = cancelled.await?;
    let has_none = || (!have_guests(ctx, uids)).then_some(());
    let none = until([&ctx.cluster.placements.changes], has_none);
    let late = |_| BroadcastError::Busy(uids.first().copied().unwrap_or_default().to_owned());
    tokio::time::timeout(WITHIN, none).await.map_err(late)?;
    Ok(cancelled > 0)
}

/// Plans the moves of indexes anew that [`cancel_moves`] has cancelled.
///
/// # Errors
/// The store failed.
pub(super) async fn plan_moves_anew(ctx: &Context, uids: &[&str]) -> Result<(), BroadcastError> {
    for uid in uids {
        ctx.cluster.moves.set_replan(uid, true).await?;
    }
    Ok(())
}

/// Whether a shard holds one of these indexes only in preparation of a move.
pub(super) fn have_guests(ctx: &Context, uids: &[&str]) -> bool {
    uids.iter().any(|uid| {
        let placement = ctx.cluster.placement(uid);
        placement.is_some_and(|placement| placement.guests().next().is_some())
    })
}

impl Place {
    pub(super) async fn take(
        ctx: &Context,
        uid: &str,
        wanted: &Wanted,
    ) -> Result<Self, BroadcastError> {
        for _ in 0..ATTEMPTS {
            let slots = match ctx.cluster.placement(uid) {
                Some(placement) => Arc::clone(&placement.slots),
                None => ctx.cluster.propose_as(uid, wanted)?,
            };
            let guard = ctx.locks.lock(slots.shards()).await;
            let count = ctx.cluster.wanted_shards(wanted.shard_count);
            let placing = ctx.cluster.place(uid, &slots, count);
            if let Some(placed) = placing.await? {
                return Ok(Self {
                    placement: placed.placement,
                    before: placed.before,
                    guard,
                });
            }
        }
        Err(BroadcastError::Unsettled(uid.to_owned()))
    }

    /// Whether the index begins now: it didn't exist, or was being deleted.
    pub(super) fn is_new(&self) -> bool {
        self.before != Before::Alive
    }

    /// Sends a change to all replicas and registers the task. If no replica has taken it, a new placement is removed again.
    pub(super) async fn spread_as_task(
        &self,
        ctx: &Arc<Context>,
        change: &NodeChange,
        task: NewTask,
    ) -> Result<Answer, BroadcastError> {
        let shards = self.placement.shards();
        let each: Vec<_> = shards.iter().map(|shard| (*shard, change)).collect();
        let spread = spread_locked(ctx, &self.guard, &each, Reach::Replicas).await;
        let answer = match spread {
            Ok(Spread::Taken { parts, .. }) => {
                let index_uid = Some(self.placement.uid.clone());
                let new = NewTask {
                    parts,
                    index_uid,
                    ..task
                };
                let enqueued = ctx.tasks.create(new).await?;
                return Ok(Answer::json(StatusCode::ACCEPTED, &enqueued));
            }
            Ok(Spread::Refused(answer)) => Ok(answer),
            Err(error) => Err(error),
        };
        let may_be_there = matches!(&answer, Err(error) if error.may_have_changed());
        if self.before == Before::Absent && !may_be_there {
            ctx.cluster.placements.remove(&self.placement.uid).await?;
        }
        answer
    }
}
