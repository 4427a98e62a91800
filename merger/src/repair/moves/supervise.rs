//! Begins moves, tries them again when they fail, cleans up after moves that were cut off, and carries changes of strategy on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{MoveError, Survey, change, run, series, sweep};
use crate::cluster::{Move, Placement};
use crate::repair::Context;
use crate::supervise::survive;

/// How often it is looked for something to do.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is looked whether shards should be evened out, if an option asks for that.
const AUTOMATIC_EVERY: Duration = Duration::from_secs(60);
/// How many indexes filters leave to the merger at the most, those that are being moved and those that come next: together, because
/// it takes a lease of the filters each time.
const AHEAD: usize = 100;
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
    /// Whether it moves slots; otherwise it is a clean-up, or a step of a change of strategy.
    moves: bool,
    handle: JoinHandle<bool>,
}

/// Carries out moves; never ends.
pub async fn move_slots(ctx: Arc<Context>) {
    let mut running: HashMap<String, Running> = HashMap::new();
    let mut rests: HashMap<String, Rest> = HashMap::new();
    let mut looked = Instant::now();
    let mut leaving = None::<JoinHandle<()>>;
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
            running.insert(
                uid.clone(),
                Running {
                    moves: false,
                    handle,
                },
            );
        }
        let idle = live.is_empty();
        plan_ahead(&ctx, idle, &mut looked).await;
        let options = ctx.cluster.moves.options();
        if !options.paused && leaving.as_ref().is_none_or(JoinHandle::is_finished) {
            let moved = live.iter().filter(|one| !one.cancelled);
            let moved = moved.map(|one| one.index.as_str());
            let next = not_left_yet(moved, &ctx.cluster.moves.left_to_merger());
            leaving = (!next.is_empty()).then(|| tokio::spawn(leave(Arc::clone(&ctx), next)));
        }
        for one in live {
            let under_way = running.values().filter(|work| work.moves).count();
            // A move that is to be cancelled only has to clean up.
            let may = one.cancelled || !options.paused && under_way < options.max_concurrent;
            if may && is_free(&one.index, &running) {
                let handle = tokio::spawn(series::carry_out(Arc::clone(&ctx), one.id));
                let moves = true;
                running.insert(one.index.clone(), Running { moves, handle });
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

/// Those of the next indexes to be moved that filters don't leave to the merger yet. `moved` has the index of each move, in order.
fn not_left_yet<'a>(moved: impl Iterator<Item = &'a str>, left: &BTreeSet<String>) -> Vec<String> {
    let mut next: Vec<&str> = Vec::new();
    for index in moved {
        if next.len() == AHEAD {
            break;
        }
        if !next.contains(&index) {
            next.push(index);
        }
    }
    next.retain(|index| !left.contains(*index));
    next.into_iter().map(str::to_owned).collect()
}

async fn leave(ctx: Arc<Context>, indexes: Vec<String>) {
    let leaving = run::leave_to_merger(&ctx, &indexes);
    if let Some(Err(error)) = survive(&ctx.metrics.panics, "leave-to-merger", leaving).await {
        tracing::warn!(%error, "filters can't leave indexes to the merger yet");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_leave_the_next_indexes_and_not_all() {
        let names: Vec<String> = (0..3 * AHEAD).map(|n| format!("x{n}")).collect();
        // Each index has two moves.
        let moved = || names.iter().flat_map(|name| [name.as_str(); 2]);
        let first = not_left_yet(moved(), &BTreeSet::new());
        assert_eq!(first, names[..AHEAD]);
        let left: BTreeSet<String> = first.into_iter().collect();
        assert!(not_left_yet(moved(), &left).is_empty(), "that's enough");
        let later = not_left_yet(moved().skip(2 * 7), &left);
        assert_eq!(later, names[AHEAD..AHEAD + 7], "as many as have ended");
    }
}
