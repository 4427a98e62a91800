//! Begins moves, tries them again when they fail, cleans up after moves that were cut off, and carries changes of strategy on.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{MoveError, Survey, change, join, run, sweep};
use crate::clock::now_utc;
use crate::cluster::{Move, MoveState, Placement};
use crate::repair::Context;
use crate::supervise::survive;

/// How often it is looked for something to do.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is looked whether shards should be evened out, if an option asks for that.
const AUTOMATIC_EVERY: Duration = Duration::from_secs(60);
/// The pause after a failed attempt; it doubles each time.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(10);

/// When to try again, by index.
struct Rest {
    until: Instant,
    length: Duration,
}

/// A piece of work on an index.
struct Running {
    /// The move; `None` for a clean-up, or a step of a change of strategy.
    id: Option<u64>,
    handle: JoinHandle<bool>,
}

/// Carries out moves; never ends.
pub async fn move_slots(ctx: Arc<Context>) {
    let mut running: HashMap<String, Running> = HashMap::new();
    let mut rests: HashMap<String, Rest> = HashMap::new();
    let mut looked = Instant::now();
    loop {
        let done: Vec<String> = running
            .iter()
            .filter(|(_, work)| work.handle.is_finished())
            .map(|(index, _)| index.clone())
            .collect();
        for index in done {
            let Some(work) = running.remove(&index) else {
                continue;
            };
            match work.handle.await {
                Ok(true) => drop(rests.remove(&index)),
                Ok(false) | Err(_) => rest(&mut rests, &index),
            }
        }
        let is_free = |index: &str, running: &HashMap<String, Running>| {
            let rested = rests
                .get(index)
                .is_none_or(|rest| rest.until <= Instant::now());
            rested && !running.contains_key(index)
        };
        let moves = ctx.cluster.moves.all();
        let live: Vec<&Move> = moves.iter().filter(|one| !one.has_ended()).collect();
        for placement in ctx.cluster.placements.all() {
            let uid = &placement.uid;
            let is_moved = live.iter().any(|one| one.index == *uid);
            if is_moved || !is_free(uid, &running) {
                continue;
            }
            let handle = match (placement.unsettled.is_empty(), placement.change()) {
                (false, _) => tokio::spawn(clean_up(Arc::clone(&ctx), uid.clone())),
                (true, Some(_)) if placement.deleted_by.is_none() => {
                    tokio::spawn(change_on(Arc::clone(&ctx), uid.clone()))
                }
                (true, _) => continue,
            };
            running.insert(uid.clone(), Running { id: None, handle });
        }
        let idle = live.is_empty();
        plan_ahead(&ctx, idle, &mut looked).await;
        let options = ctx.cluster.moves.options();
        for one in live {
            let under_way = running.values().filter(|work| work.id.is_some()).count();
            // A move that is to be cancelled only has to clean up.
            let may = one.cancelled || !options.paused && under_way < options.max_concurrent;
            if may && is_free(&one.index, &running) {
                let handle = tokio::spawn(attempt(Arc::clone(&ctx), one.id));
                let id = Some(one.id);
                running.insert(one.index.clone(), Running { id, handle });
            }
        }
        if let Err(error) = run::give_back(&ctx).await {
            tracing::warn!(%error, "filters can't be given indexes back yet");
        }
        let left = ctx.cluster.moves.all();
        let left = left.iter().filter(|one| !one.has_ended()).count();
        ctx.metrics
            .moves
            .set(i64::try_from(left).unwrap_or(i64::MAX));
        tokio::time::sleep(LOOK).await;
    }
}

/// Plans what indexes need that are to lie on another number of shards, and evens shards out if an option says so.
async fn plan_ahead(ctx: &Context, idle: bool, looked: &mut Instant) {
    let moves = &ctx.cluster.moves;
    let before = moves.all();
    // An index that is being moved, goes to another strategy, or is being deleted while another one may get its name, is planned
    // again when that is over.
    let is_busy = |uid: &String| {
        let placement = ctx.cluster.placement(uid);
        let is_unsettled = placement.is_some_and(|index| {
            !index.unsettled.is_empty() || index.change().is_some() || index.deleted_by.is_some()
        });
        let mut live = before.iter().filter(|one| !one.has_ended());
        is_unsettled || live.any(|one| one.index == *uid)
    };
    let mut wanted = moves.to_replan();
    wanted.retain(|uid| !is_busy(uid));
    let threshold = ctx.options.rebalance_threshold;
    let automatic = threshold.is_some() && idle && looked.elapsed() >= AUTOMATIC_EVERY;
    if moves.options().paused || wanted.is_empty() && !automatic {
        return;
    }
    let Ok(survey) = Survey::of(ctx).await else {
        return;
    };
    let draining = moves.draining();
    let mut shards = ctx.cluster.shards();
    shards.retain(|shard| !draining.contains(shard));
    let all = shards.iter().copied().collect();
    let evens = automatic && threshold.is_some_and(|most| survey.imbalance(&all) > most);
    if automatic {
        *looked = Instant::now();
    }
    let concerns = |index: &Placement| evens || wanted.contains(&index.uid);
    let steps = survey.steps(ctx, concerns, &shards).into_iter();
    let steps = steps.map(|(step, size)| (step, size.documents)).collect();
    let planned = async {
        moves.add(steps).await?;
        for uid in wanted {
            moves.set_replan(&uid, false).await?;
        }
        Ok::<_, crate::store::StoreError>(())
    };
    if let Err(error) = planned.await {
        tracing::warn!(%error, "moves can't be stored");
    }
}

fn rest(rests: &mut HashMap<String, Rest>, index: &str) {
    let length = rests
        .get(index)
        .map_or(FIRST_REST, |rest| (rest.length * 2).min(LONGEST_REST));
    let until = Instant::now() + length;
    rests.insert(index.to_owned(), Rest { until, length });
}

async fn clean_up(ctx: Arc<Context>, index: String) -> bool {
    let settling = sweep::settle(&ctx, &index);
    match survive(&ctx.metrics.panics, "settle-index", settling).await {
        Some(Ok(())) => true,
        Some(Err(error)) => {
            tracing::warn!(index, %error, "what a move has left can't be removed yet");
            false
        }
        None => false,
    }
}

async fn change_on(ctx: Arc<Context>, index: String) -> bool {
    let step = change::go_on(&ctx, &index);
    match survive(&ctx.metrics.panics, "change-strategy", step).await {
        Some(Ok(()) | Err(MoveError::Changed)) => true,
        Some(Err(error)) => {
            tracing::warn!(index, %error, "a change of strategy can't go on yet");
            change::say(&ctx, &index, &error).await;
            false
        }
        None => false,
    }
}

/// Tries to carry out a move; `false` if it must be tried again after a rest.
async fn attempt(ctx: Arc<Context>, id: u64) -> bool {
    let moves = &ctx.cluster.moves;
    let Some(one) = moves.get(id) else {
        return true;
    };
    tracing::info!(
        id,
        index = one.index,
        from = one.from.0,
        to = one.to.0,
        "move begins"
    );
    let outcome = survive(&ctx.metrics.panics, "move", run::run(&ctx, id)).await;
    let (state, error) = match outcome {
        Some(Ok(state)) => (state, None),
        Some(Err(MoveError::Gone)) => {
            // The new shard may hold the index still.
            match ctx.cluster.placement(&one.index).is_none() {
                true => match join::leave(&ctx, &one.index, one.to).await {
                    Ok(()) => (MoveState::Cancelled, Some(MoveError::Gone.to_string())),
                    Err(error) => (MoveState::Waiting, Some(error.to_string())),
                },
                false => (MoveState::Waiting, None),
            }
        }
        // The next attempt begins with what it finds.
        Some(Err(MoveError::Paused | MoveError::Changed)) => (MoveState::Waiting, None),
        Some(Err(error)) => (MoveState::Waiting, Some(error.to_string())),
        None => (MoveState::Waiting, Some("it panicked".to_owned())),
    };
    match &error {
        Some(error) => tracing::warn!(id, %error, "move failed"),
        None => tracing::info!(id, ?state, "move ends"),
    }
    let failed = error.is_some() && state == MoveState::Waiting;
    let end = |one: &mut Move| {
        one.state = state;
        one.error = error;
        if one.has_ended() {
            one.finished_at = Some(now_utc());
        }
    };
    if let Err(error) = moves.change(id, end).await {
        tracing::warn!(id, %error, "a move's end can't be stored");
        return false;
    }
    !failed
}
