//! Swaps and renames of indexes.
//!
//! Each shard swaps what it holds: both indexes, or the single one that it has, which it renames. So indexes on different
//! shards can be swapped, too. The placements are exchanged under the same locks, so that the next write uses the new ones; if
//! every node refuses the task, they are exchanged back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weft_routing::placement::ShardId;

use super::BroadcastError;
use super::intents::{Effect, Intent, carry_out};
use super::place::{cancel_moves, have_guests, plan_moves_anew, until_gone, until_settled};
use super::spread::{NodeChange, Reach, Spread, spread};
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;
use crate::cluster::Placement;
use crate::tasks::NewTask;

#[derive(Deserialize, Serialize, Clone)]
#[serde(deny_unknown_fields)]
struct Pair {
    indexes: [String; 2],
    #[serde(default)]
    rename: bool,
}

/// `POST /swap-indexes`.
pub(super) async fn swap(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    let grant = call.grant.clone();
    let change = NodeChange::of(ctx, call).await?;
    let pairs: Vec<Pair> = match serde_json::from_slice(&change.body) {
        Ok(pairs) => pairs,
        Err(_) => return ask(ctx, &change, None).await,
    };
    let uids: Vec<&String> = pairs.iter().flat_map(|pair| &pair.indexes).collect();
    let distinct = uids.iter().collect::<BTreeSet<_>>().len() == uids.len();
    if !distinct || uids.is_empty() || !uids.iter().all(|uid| grant.allows(uid)) {
        return ask(ctx, &change, None).await;
    }
    let names: Vec<String> = uids.iter().map(|uid| (*uid).clone()).collect();
    let placements = &ctx.cluster.placements;
    let moves = pairs.iter().any(|pair| placements.lie_apart(&pair.indexes));
    if !moves {
        return swap_placed(ctx, &change, &pairs).await;
    }
    // A filter with the old routing table would ask the wrong shard.
    let own = uuid::Uuid::new_v4().to_string();
    placements.leave_to_merger(&own, &names, true).await?;
    ctx.cluster.filters_follow().await;
    let answer = swap_placed(ctx, &change, &pairs).await;
    placements.leave_to_merger(&own, &names, false).await?;
    answer
}

async fn swap_placed(
    ctx: &Arc<Context>,
    change: &NodeChange,
    pairs: &[Pair],
) -> Result<Answer, BroadcastError> {
    let first = pairs.first().map(|pair| pair.indexes[0].clone());
    let first = first.unwrap_or_default();
    let moved = AtomicBool::new(false);
    let uids: Vec<&str> = pairs
        .iter()
        .flat_map(|pair| pair.indexes.each_ref())
        .map(String::as_str)
        .collect();
    let answer = until_settled(&first, || async {
        for uid in pairs.iter().flat_map(|pair| &pair.indexes) {
            until_gone(ctx, uid).await?;
        }
        if cancel_moves(ctx, &uids).await? {
            moved.store(true, Ordering::Relaxed);
        }
        let before = match placed(ctx, pairs) {
            Ok(placements) => placements,
            Err(shard) => return ask(ctx, change, shard).await,
        };
        let shards = shards_of(&before);
        let in_order: Vec<ShardId> = shards.iter().copied().collect();
        let guard = ctx.locks.lock(&in_order).await;
        if have_guests(ctx, &uids) {
            return Err(BroadcastError::Unsettled(first.clone()));
        }
        let now = placed(ctx, pairs).ok();
        // The two may have been swapped meanwhile, so their current placements are used.
        let Some(now) = now.filter(|now| shards_of(now) == shards) else {
            return Err(BroadcastError::Unsettled(first.clone()));
        };
        let each = in_order
            .iter()
            .map(|shard| (*shard, for_shard(pairs, &now, *shard)))
            .collect();
        let effect = Effect::Exchange {
            pairs: pairs.iter().map(|pair| pair.indexes.clone()).collect(),
        };
        let intent = Intent::new(effect, change, each, None, json!({"swaps": pairs}));
        carry_out(ctx, guard, change, intent).await
    })
    .await;
    if moved.into_inner() {
        plan_moves_anew(ctx, &uids).await?;
    }
    answer
}

type Placements = Vec<[Option<Arc<Placement>>; 2]>;

/// The placements of the indexes. For an impossible swap: the shard whose node words the error.
fn placed(ctx: &Context, pairs: &[Pair]) -> Result<Placements, Option<ShardId>> {
    let shard = |placement: &Option<Arc<Placement>>| placement.as_ref()?.shards().first().copied();
    pairs
        .iter()
        .map(|pair| {
            let both = pair
                .indexes
                .each_ref()
                .map(|uid| ctx.cluster.placement(uid));
            match (&both, pair.rename) {
                ([Some(_), Some(_)], false) | ([Some(_), None], true) => Ok(both),
                // The index that exists and must not, or the one of the two that exists.
                ([one, two], _) => Err(shard(two).or_else(|| shard(one))),
            }
        })
        .collect()
}

fn shards_of(placements: &Placements) -> BTreeSet<ShardId> {
    let placements = placements.iter().flatten().flatten();
    placements
        .flat_map(|placement| placement.shards().iter().copied())
        .collect()
}

/// What one shard has to do: swap two indexes, or rename the one that it holds.
fn for_shard(pairs: &[Pair], placements: &Placements, shard: ShardId) -> Value {
    let holds = |placement: &Option<Arc<Placement>>| {
        let placement = placement.as_ref();
        placement.is_some_and(|placement| placement.shards().contains(&shard))
    };
    pairs
        .iter()
        .zip(placements)
        .filter_map(|(pair, [first, second])| {
            let [one, two] = &pair.indexes;
            match (holds(first), holds(second)) {
                (true, true) => Some(json!({"indexes": [one, two]})),
                (true, false) => Some(json!({"indexes": [one, two], "rename": true})),
                (false, true) => Some(json!({"indexes": [two, one], "rename": true})),
                (false, false) => None,
            }
        })
        .collect()
}

/// Sends the swap unchanged to one shard, so that a node words the failed task or the refusal.
async fn ask(
    ctx: &Arc<Context>,
    change: &NodeChange,
    shard: Option<ShardId>,
) -> Result<Answer, BroadcastError> {
    let shard = shard.or_else(|| ctx.cluster.shards().into_iter().next());
    let shards: Vec<ShardId> = shard.into_iter().collect();
    match spread(ctx, change, &shards, Reach::Primaries).await? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { parts, .. } => {
            let task = NewTask {
                kind: "indexSwap".to_owned(),
                parts,
                ..NewTask::default()
            };
            Ok(Answer::json(
                StatusCode::ACCEPTED,
                &ctx.tasks.create(task).await?,
            ))
        }
    }
}
