//! `sharding.strategy` of `PATCH /indexes/{uid}`: how the documents of an index are placed from now on.
//!
//! Here a change is begun, turned back, or refused. What it takes is done in the background, by `repair::moves`.

use std::time::Duration;

use tokio::time::timeout;
use weft_routing::strategy::Strategy;

use super::BroadcastError;
use super::place::{ATTEMPTS, WITHIN, cancel_moves, plan_moves_anew, until_gone};
use crate::broadcast::Context;
use crate::cluster::{Placement, Stage, until, wish_for};

/// Changes the strategy of an index. Does nothing if the index has it or gets it already, or isn't there.
///
/// # Errors
/// The change isn't possible, or another one is under way. Nothing is changed then.
pub(super) async fn change(
    ctx: &Context,
    uid: &str,
    wanted: &Strategy,
) -> Result<(), BroadcastError> {
    let mut had_moves = false;
    let outcome = attempts(ctx, uid, wanted, &mut had_moves).await;
    if had_moves {
        plan_moves_anew(ctx, &[uid]).await?;
    }
    outcome
}

/// Tries until the index is as `wanted`, or gets there. Says whether moves were stopped for that.
async fn attempts(
    ctx: &Context,
    uid: &str,
    wanted: &Strategy,
    had_moves: &mut bool,
) -> Result<(), BroadcastError> {
    for _ in 0..ATTEMPTS {
        until_gone(ctx, uid).await?;
        let Some(placement) = ctx.cluster.placement(uid) else {
            return Ok(());
        };
        if placement.target() == wanted {
            return Ok(());
        }
        let is_over = match placement.change().is_some() {
            true => turn(ctx, &placement, wanted).await?,
            false => {
                // What isn't possible must not stop any moves.
                ctx.cluster.change_to(&placement, wanted)?;
                *had_moves |= cancel_moves(ctx, &[uid]).await?;
                begin(ctx, uid, wanted).await?
            }
        };
        if is_over {
            return Ok(());
        }
    }
    Err(BroadcastError::Unsettled(uid.to_owned()))
}

/// Lets a change that is under way go the other way; `false` if it isn't under way any more.
async fn turn(
    ctx: &Context,
    placement: &Placement,
    wanted: &Strategy,
) -> Result<bool, BroadcastError> {
    let uid = &placement.uid;
    let Some((change, stage)) = placement.change() else {
        return Ok(false);
    };
    let then = placement.changing.as_ref();
    let then = then.and_then(|changing| changing.then.as_ref());
    let forward = then.unwrap_or_else(|| change.new_slots().strategy());
    let turned = match stage {
        Stage::GoingBack if forward == wanted => Stage::Checking,
        Stage::Checking | Stage::Moving if change.old().strategy() == wanted => Stage::GoingBack,
        _ => {
            return Err(BroadcastError::Changing {
                uid: uid.clone(),
                from: described(change.old().strategy()),
                to: described(forward),
            });
        }
    };
    let placements = &ctx.cluster.placements;
    if !placements
        .set_stage(uid, change, [stage, turned], None)
        .await?
    {
        return Ok(false);
    }
    // What goes the other way from now on is planned when these have stopped.
    let moves = &ctx.cluster.moves;
    moves.cancel(|one| one.index == *uid).await?;
    Ok(true)
}

/// Begins a change when nothing of the index moves any more; `false` if the index has changed meanwhile.
async fn begin(ctx: &Context, uid: &str, wanted: &Strategy) -> Result<bool, BroadcastError> {
    until_at_rest(ctx, uid, WITHIN).await?;
    let placements = &ctx.cluster.placements;
    let names = [uid.to_owned()];
    // A filter with an old routing table would place documents, or not look whether they have the field.
    let own = uuid::Uuid::new_v4().to_string();
    placements.leave_to_merger(&own, &names, true).await?;
    ctx.cluster.filters_follow().await;
    let outcome = begin_under_lock(ctx, uid, wanted).await;
    placements.leave_to_merger(&own, &names, false).await?;
    outcome
}

/// Stores that the change begins, while no write is on its way that was laid out by the old strategy.
async fn begin_under_lock(
    ctx: &Context,
    uid: &str,
    wanted: &Strategy,
) -> Result<bool, BroadcastError> {
    let Some(placement) = ctx.cluster.placement(uid) else {
        return Ok(false);
    };
    if placement.change().is_some() {
        return Ok(false);
    }
    let (change, then) = ctx.cluster.change_to(&placement, wanted)?;
    let _guard = ctx.locks.lock(placement.shards()).await;
    if is_moved(ctx, uid) {
        return Ok(false);
    }
    let placements = &ctx.cluster.placements;
    Ok(placements.begin_change(uid, &change, then).await?)
}

/// Waits until nothing of the index is moved, and what moves have left is cleaned up.
async fn until_at_rest(ctx: &Context, uid: &str, within: Duration) -> Result<(), BroadcastError> {
    let rests = || {
        let placement = ctx.cluster.placement(uid);
        let is_free = placement.is_none_or(|index| index.unsettled.is_empty());
        (is_free && !is_moved(ctx, uid)).then_some(())
    };
    let cluster = &ctx.cluster;
    let rest = until([&cluster.placements.changes, &cluster.moves.changes], rests);
    let late = |_| BroadcastError::Busy(uid.to_owned());
    timeout(within, rest).await.map_err(late)
}

fn is_moved(ctx: &Context, uid: &str) -> bool {
    let moves = ctx.cluster.moves.all();
    moves.iter().any(|one| one.index == uid && !one.has_ended())
}

/// A strategy in words for people.
fn described(strategy: &Strategy) -> String {
    serde_json::Value::Object(wish_for(strategy)).to_string()
}
