//! An index that begins, or goes on: its placement, together with the turn in which it does.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::BroadcastError;
use super::spread::{NodeChange, Reach, Spread, spread_in_turn};
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::cluster::{Before, Placement};
use crate::replication::WriteGuard;
use crate::tasks::NewTask;

/// An index that is there from now on, with the turn on all of its shards: it is placed, or lives on though it was being deleted.
///
/// Whether an index is there changes only in the turn of all its shards, at the same point in their order of writes at which its
/// nodes make or delete it. So no write meets an index of which some shards are past its end and others are not.
pub(super) struct Place {
    pub(super) placement: Arc<Placement>,
    before: Before,
    pub(super) turn: WriteGuard,
}

/// How often a change is begun anew because its index was placed elsewhere meanwhile.
const ATTEMPTS: usize = 5;

/// For how long a change waits for tasks that are under way, and how often it looks.
pub(super) const WITHIN: Duration = Duration::from_secs(10);
pub(super) const AGAIN: Duration = Duration::from_millis(25);

/// Tries again what found that the index was placed elsewhere, or gone, before the turn came.
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

/// Waits until an index that is being deleted is gone.
///
/// # Errors
/// It takes too long.
pub(super) async fn until_gone(ctx: &Context, uid: &str) -> Result<(), BroadcastError> {
    let deadline = Instant::now() + WITHIN;
    let is_dying = || {
        let placement = ctx.cluster.placement(uid);
        placement.is_some_and(|placement| placement.deleted_by.is_some())
    };
    while is_dying() {
        if Instant::now() > deadline {
            return Err(BroadcastError::Busy(uid.to_owned()));
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

impl Place {
    pub(super) async fn take(
        ctx: &Context,
        uid: &str,
        shard_count: Option<u16>,
        replicas: u16,
    ) -> Result<Self, BroadcastError> {
        for _ in 0..ATTEMPTS {
            let slots = match ctx.cluster.placement(uid) {
                Some(placement) => Arc::clone(&placement.slots),
                None => ctx.cluster.propose(uid, shard_count, replicas)?,
            };
            let turn = ctx.locks.lock(slots.shards()).await;
            if let Some(placed) = ctx.cluster.placements.place(uid, &slots).await? {
                return Ok(Self {
                    placement: placed.placement,
                    before: placed.before,
                    turn,
                });
            }
        }
        Err(BroadcastError::Unsettled(uid.to_owned()))
    }

    /// Whether it begins here: it wasn't there, or is there anew.
    pub(super) fn is_new(&self) -> bool {
        self.before != Before::Alive
    }

    /// Sends a change to all replicas and registers the task. If nothing comes of it, a new placement goes again.
    pub(super) async fn spread_as_task(
        &self,
        ctx: &Arc<Context>,
        change: &NodeChange,
        task: NewTask,
    ) -> Result<Answer, BroadcastError> {
        let shards = self.placement.shards();
        let each: Vec<_> = shards.iter().map(|shard| (*shard, change)).collect();
        let spread = spread_in_turn(ctx, &self.turn, &each, Reach::Replicas).await;
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
