//! Carries on a change of strategy between its moves: looks at the documents, plans the moves, and ends it.
//!
//! All that it goes by is in the placement, so whoever leads goes on where another has stopped.

use std::sync::{Arc, Mutex, PoisonError};

use weft_routing::placement::SlotMap;
use weft_routing::strategy::{Change, Strategy};

use super::ids::{IdsBySlot, Reading};
use super::run::alive;
use super::{MoveError, Noting, Survey, join, primary_key, remote, source};
use crate::cluster::{Placement, Slotting, Stage, Told, steps_between, until};
use crate::repair::Context;
use crate::repair::resync::SourceGuard;

/// Takes the next step of a change of strategy. Nothing of the index is moved meanwhile.
///
/// # Errors
/// It can't go on now.
pub(super) async fn go_on(ctx: &Arc<Context>, index: &str) -> Result<(), MoveError> {
    let placement = alive(ctx, index)?;
    let Some((change, stage)) = placement.change() else {
        return Ok(());
    };
    match stage {
        Stage::Checking => check(ctx, &placement, change).await,
        Stage::Moving => {
            let target = SlotMap::arrived(change);
            let after = change.new_slots();
            bring(ctx, &placement, &target, after).await
        }
        Stage::GoingBack => {
            let target = SlotMap::begun(change);
            bring(ctx, &placement, &target, change.old()).await
        }
    }
}

/// Says why a change can't go on now, where people look for it. Why a change goes back is said already.
pub(super) async fn say(ctx: &Context, index: &str, error: &MoveError) {
    let placement = ctx.cluster.placement(index);
    let Some(placement) = placement else { return };
    if let Some((change, stage @ (Stage::Checking | Stage::Moving))) = placement.change() {
        let placements = &ctx.cluster.placements;
        let error = Some(error.to_string());
        let said = placements.set_stage(index, change, [stage; 2], error).await;
        if let Err(error) = said {
            tracing::warn!(index, %error, "why a change of strategy doesn't go on can't be stored");
        }
    }
}

/// Documents without a usable value in a field.
#[derive(Debug, Default)]
struct Lacking {
    count: u64,
    example: String,
}

/// Looks whether every document has what the new strategy needs. Since the change began, writes are refused that lack it.
async fn check(
    ctx: &Arc<Context>,
    placement: &Placement,
    change: &Arc<Change>,
) -> Result<(), MoveError> {
    let index = placement.uid.as_str();
    let (shards, slots) = (placement.shards(), &placement.slots);
    let logs = &ctx.cluster.moves.logs;
    // A swap would change what is looked at.
    logs.begin(shards, index, slots.strategy(), &[]);
    let _noting = Noting { ctx, index };
    let then = placement.changing.as_ref();
    let then = then.and_then(|changing| changing.then.as_ref());
    let mut why = None;
    for strategy in [Some(change.new_slots().strategy()), then] {
        let strategy = strategy.filter(|strategy| strategy.field().is_some());
        if let (None, Some(strategy)) = (&why, strategy) {
            why = lacking(ctx, placement, strategy).await?;
        }
    }
    let _guard = ctx.locks.lock(shards).await;
    let now = ctx.cluster.placement(index);
    if logs.is_broken(index) || now.is_none_or(|now| now.slots != *slots) {
        return Err(MoveError::Changed);
    }
    if let Some(why) = &why {
        tracing::warn!(index, why, "a change of strategy goes back");
    }
    let stage = match why {
        None => Stage::Moving,
        Some(_) => Stage::GoingBack,
    };
    // Somebody may have sent it back meanwhile, and then it goes back.
    let (placements, stages) = (&ctx.cluster.placements, [Stage::Checking, stage]);
    placements.set_stage(index, change, stages, why).await?;
    Ok(())
}

/// Says which documents can't be placed by a strategy; `None` if all can.
async fn lacking(
    ctx: &Arc<Context>,
    placement: &Placement,
    strategy: &Strategy,
) -> Result<Option<String>, MoveError> {
    let index = placement.uid.as_str();
    let found = Mutex::new(Lacking::default());
    for shard in placement.shards() {
        if !join::exists(ctx, index, *shard).await? {
            continue;
        }
        let node = source(ctx, *shard)?;
        let Some(key) = primary_key(ctx, placement, &node).await? else {
            continue;
        };
        let unbroken = SourceGuard::of(ctx, &node)?;
        let reading = Reading {
            remote: remote(ctx, &node),
            index,
            slotting: Slotting::new(strategy, &key),
        };
        let count = |told: &Told| {
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            if found.count == 0 {
                found.example.clone_from(&told.id);
            }
            found.count += 1;
            Ok(())
        };
        IdsBySlot::default()
            .read(&reading, |_| false, count)
            .await?;
        unbroken.check().await?;
    }
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let field = strategy.field().map(ToString::to_string);
    Ok(found.said(&field.unwrap_or_default()))
}

impl Lacking {
    fn said(&self, field: &str) -> Option<String> {
        let who = match self.count {
            0 => return None,
            1 => format!("`{}` lacks", self.example),
            2 => format!("`{}` and 1 more document lack", self.example),
            count => format!("`{}` and {} more documents lack", self.example, count - 1),
        };
        Some(format!(
            "{who} a value of `{field}` that tells where they belong: an integer, or a text of 1 to 255 bytes"
        ))
    }
}

/// Plans what has to be moved so that the index lies as `target` says. If that is nothing, it gets the slots `after`.
async fn bring(
    ctx: &Arc<Context>,
    placement: &Arc<Placement>,
    target: &SlotMap,
    after: &Arc<SlotMap>,
) -> Result<(), MoveError> {
    let (index, moves) = (placement.uid.as_str(), &ctx.cluster.moves);
    let steps = steps_between(index, &placement.slots, target);
    if steps.is_empty() {
        return end(ctx, placement, after).await;
    }
    if moves.options().paused {
        return Ok(());
    }
    let survey = Survey::of(ctx).await?;
    let steps = steps.into_iter();
    let steps = steps.map(|step| {
        let documents = survey.part(&step, placement).documents;
        (step, documents)
    });
    let steps = steps.collect();
    if let Some((change, stage @ Stage::Moving)) = placement.change() {
        let placements = &ctx.cluster.placements;
        // Whatever was in the way isn't any more.
        placements
            .set_stage(index, change, [stage; 2], None)
            .await?;
    }
    moves.add(steps).await?;
    Ok(())
}

/// Gives the index the slots by which its documents lie already, while no write is on its way that was laid out by others.
async fn end(
    ctx: &Arc<Context>,
    placement: &Arc<Placement>,
    after: &Arc<SlotMap>,
) -> Result<(), MoveError> {
    let (index, moves) = (placement.uid.as_str(), &ctx.cluster.moves);
    until([&moves.changes], || (!moves.is_held(index)).then_some(())).await;
    let changing = placement.changing.as_ref();
    let forward = changing.filter(|changing| changing.stage == Stage::Moving);
    let next = match forward.and_then(|changing| changing.then.as_ref()) {
        None => None,
        Some(then) => {
            let arrived = Placement {
                slots: Arc::clone(after),
                ..Placement::clone(placement)
            };
            Some(ctx.cluster.change_to(&arrived, then)?.0)
        }
    };
    let _guard = ctx.locks.lock(placement.shards()).await;
    if moves.is_held(index) {
        return Ok(());
    }
    let placements = &ctx.cluster.placements;
    let ended = placements.end_change(placement, after, next.as_ref());
    match ended.await? {
        true => tracing::info!(
            index,
            strategy = after.strategy().name(),
            "strategy changed"
        ),
        false => return Err(MoveError::Changed),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_how_many_documents_lack_the_field() {
        let said = |count| {
            let example = "7".to_owned();
            Lacking { count, example }
                .said("tenant")
                .unwrap_or_default()
        };
        assert_eq!(said(0), "");
        assert!(said(1).starts_with("`7` lacks a value of `tenant`"));
        assert!(said(2).starts_with("`7` and 1 more document lack a value"));
        assert!(said(9).starts_with("`7` and 8 more documents lack a value"));
    }
}
