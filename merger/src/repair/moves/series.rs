//! The moves of one index, one after the other.
//!
//! ```text
//! move 1: batch, batch, batch │ last deletions, settled
//!                      move 2 │ batch, batch, …
//! ```
//!
//! The next move begins when all slots of the one before have their new owner. Invariant: at most two are under way, and a shard is
//! settled only when neither has anything to do with it.

use std::sync::Arc;

use futures_util::future;
use weft_routing::placement::ShardId;

use super::tail::Tail;
use super::{MoveError, join as joining, run};
use crate::clock::now_utc;
use crate::cluster::{Move, MoveState};
use crate::repair::Context;
use crate::supervise::survive;

/// Carries out a move, and those of its index that come after it. `false` if something must be tried again after a rest.
pub(super) async fn carry_out(ctx: Arc<Context>, first: u64) -> bool {
    let (mut next, mut before) = (ctx.cluster.moves.get(first), None::<Tail>);
    while let Some(one) = next {
        let uses = [one.from, one.to];
        let attempt = attempt(&ctx, &one, before.as_ref());
        let (outcome, end) = future::join(attempt, end(&ctx, before.as_ref(), &uses)).await;
        let tail = match outcome {
            Ok(tail) => tail,
            Err(again) => return again == Again::AtOnce && end.is_ok(),
        };
        if end.is_err() {
            // Its shards may hold what the move before has left: the next attempt looks for that first.
            record(&ctx, tail.id, MoveState::Waiting, None).await;
            return false;
        }
        next = match tail.state {
            MoveState::Done => next_of(&ctx, &one),
            _ => None,
        };
        before = Some(tail);
    }
    end(&ctx, before.as_ref(), &[]).await != Err(Again::AfterARest)
}

/// When something must be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    AtOnce,
    AfterARest,
}

/// The next move of the same index, unless moves are paused.
fn next_of(ctx: &Context, one: &Move) -> Option<Move> {
    let moves = &ctx.cluster.moves;
    if moves.options().paused {
        return None;
    }
    let mut live = moves.all().into_iter().filter(|next| !next.has_ended());
    live.find(|next| next.index == one.index && next.id != one.id && !next.cancelled)
}

/// Tries to carry out a move until all of its slots have their new owner.
async fn attempt(ctx: &Arc<Context>, one: &Move, before: Option<&Tail>) -> Result<Tail, Again> {
    tracing::info!(
        id = one.id,
        index = one.index,
        from = one.from.0,
        to = one.to.0,
        "move begins"
    );
    let outcome = survive(&ctx.metrics.panics, "move", run::run(ctx, one.id, before)).await;
    match outcome {
        Some(Ok(tail)) => Ok(tail),
        Some(Err(error)) => Err(failed(ctx, one, error).await),
        None => Err(panicked(ctx, one).await),
    }
}

/// Ends a move that has its slots where they belong, if there is one.
async fn end(ctx: &Arc<Context>, tail: Option<&Tail>, uses: &[ShardId]) -> Result<(), Again> {
    let Some((tail, one)) = tail.and_then(|tail| Some((tail, ctx.cluster.moves.get(tail.id)?)))
    else {
        return Ok(());
    };
    match survive(&ctx.metrics.panics, "move-end", tail.end(ctx, uses)).await {
        Some(Ok(())) => match record(ctx, tail.id, tail.state, None).await {
            true => Ok(()),
            false => Err(Again::AfterARest),
        },
        Some(Err(error)) => Err(failed(ctx, &one, error).await),
        None => Err(panicked(ctx, &one).await),
    }
}

async fn panicked(ctx: &Context, one: &Move) -> Again {
    let why = Some("it panicked".to_owned());
    record(ctx, one.id, MoveState::Waiting, why).await;
    Again::AfterARest
}

/// Notes why a move can't go on now.
async fn failed(ctx: &Arc<Context>, one: &Move, error: MoveError) -> Again {
    let (state, error) = match error {
        MoveError::Gone => {
            // The new shard may hold the index still.
            match ctx.cluster.placement(&one.index).is_none() {
                true => match joining::leave(ctx, &one.index, one.to).await {
                    Ok(()) => (MoveState::Cancelled, Some(MoveError::Gone.to_string())),
                    Err(error) => (MoveState::Waiting, Some(error.to_string())),
                },
                false => (MoveState::Waiting, None),
            }
        }
        // The next attempt begins with what it finds.
        MoveError::Paused | MoveError::Cancelled | MoveError::Changed => (MoveState::Waiting, None),
        error => (MoveState::Waiting, Some(error.to_string())),
    };
    let is_trouble = error.is_some() && state == MoveState::Waiting;
    match record(ctx, one.id, state, error).await && !is_trouble {
        true => Again::AtOnce,
        false => Again::AfterARest,
    }
}

/// Stores how a move stands. `false` if that failed.
async fn record(ctx: &Context, id: u64, state: MoveState, error: Option<String>) -> bool {
    match &error {
        Some(error) => tracing::warn!(id, %error, "move failed"),
        None => tracing::info!(id, ?state, "move ends"),
    }
    let end = |one: &mut Move| {
        one.state = state;
        one.error = error;
        if one.has_ended() {
            one.finished_at = Some(now_utc());
        }
    };
    let stored = ctx.cluster.moves.change(id, end).await;
    if let Err(error) = &stored {
        tracing::warn!(id, %error, "how a move stands can't be stored");
    }
    stored.is_ok()
}
