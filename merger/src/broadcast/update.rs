//! `PATCH /indexes/{uid}`: another name, another primary key, another placement, or all of them.
//!
//! A node changes the primary key of an index only while the index is empty there. With few documents, some shards are empty
//! and others aren't: each shard would decide for itself, and the index would have two keys. So a key is changed only when the
//! answer is known for all shards together: when no task that adds or removes documents is under way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_routing::is_index_uid;
use weft_routing::placement::ShardId;

use super::indexes::{lock_where_it_lies, spread_as_task, unplaced};
use super::intents::{Effect, Intent, carry_out};
use super::place::{WITHIN, cancel_moves, have_guests, plan_moves_anew, until_gone, until_settled};
use super::sharding::Resharding;
use super::spread::NodeChange;
use super::{BroadcastError, strategy};
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;
use crate::cluster::{ClusterError, Placement};
use crate::replication::WriteGuard;
use crate::tasks::{are_pending, ask_primary, ask_until};

const KIND: &str = "indexUpdate";
/// The pause before nodes with tasks under way are asked again.
const AGAIN: Duration = Duration::from_millis(25);

/// What a `PATCH` asks for.
struct Update<'a> {
    uid: &'a str,
    /// The new name, if it differs from the current one.
    new: Option<&'a str>,
    key: Option<&'a str>,
    body: &'a Value,
    change: &'a NodeChange,
}

/// Answers the call.
pub(super) async fn update(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    let index_uid = call.index.clone();
    let uid = index_uid.clone().unwrap_or_default();
    let mut change = NodeChange::of(ctx, call).await?;
    // Of an index that isn't there, a node says so.
    if let Some(sharding) = take_sharding(&mut change)?
        && ctx.cluster.placement(&uid).is_some()
    {
        reshard(ctx, &uid, sharding).await?;
    }
    let body: Value = serde_json::from_slice(&change.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let update = Update {
        uid: &uid,
        new: text("uid").filter(|new| *new != uid && is_index_uid(new)),
        key: text("primaryKey"),
        body: &body,
        change: &change,
    };
    let moved = AtomicBool::new(false);
    let answer = until_settled(&uid, || async {
        for name in [Some(update.uid), update.new].into_iter().flatten() {
            until_gone(ctx, name).await?;
        }
        // Moves go on by the old name and the old key.
        let concerns_moves = update.new.is_some() || update.key.is_some();
        if concerns_moves && cancel_moves(ctx, &[&uid]).await? {
            moved.store(true, Ordering::Relaxed);
        }
        match ctx.cluster.placement(&uid) {
            None => unplaced(ctx, &change, index_uid.clone(), KIND).await,
            Some(placement) => update.of(ctx, &placement).await,
        }
    })
    .await;
    if moved.into_inner() {
        plan_moves_anew(ctx, &[update.new.unwrap_or(&uid)]).await?;
    }
    answer
}

/// Removes `sharding` from the body of a `PATCH`.
fn take_sharding(change: &mut NodeChange) -> Result<Option<Resharding>, BroadcastError> {
    let Ok(mut body) = serde_json::from_slice::<Map<String, Value>>(&change.body) else {
        return Ok(None);
    };
    let Some(sharding) = body.remove("sharding") else {
        return Ok(None);
    };
    let sharding = Resharding::read(&sharding)?;
    change.body = serde_json::to_vec(&body).unwrap_or_default().into();
    Ok(Some(sharding))
}

/// Sets the write mode, on how many shards the index is to lie, and how its documents are placed. They are moved in the
/// background.
async fn reshard(ctx: &Context, uid: &str, sharding: Resharding) -> Result<(), BroadcastError> {
    let cluster = &ctx.cluster;
    if let Some(Some(count)) = sharding.shard_count {
        let known = cluster.shards().len();
        if usize::from(count) > known {
            let wanted = count;
            return Err(ClusterError::TooManyShards { wanted, known }.into());
        }
    }
    if let Some(write) = sharding.write {
        cluster.placements.set_write_mode(uid, write).await?;
    }
    if let Some(count) = sharding.shard_count {
        cluster.placements.set_shard_count(uid, count).await?;
    }
    let changed = match sharding.strategy {
        Some(strategy) => strategy::change(ctx, uid, &strategy).await,
        None => Ok(()),
    };
    // Not before, since moves would be in the way of a change that brings the index to its shards anyhow.
    if sharding.shard_count.is_some() {
        cluster.moves.set_replan(uid, true).await?;
    }
    changed?;
    Ok(())
}

impl Update<'_> {
    async fn of(
        &self,
        ctx: &Arc<Context>,
        placement: &Placement,
    ) -> Result<Answer, BroadcastError> {
        // The key that the index already has is fine on every shard, and no key means no change.
        let changes_key = self.key.is_some() && self.key != placement.primary_key.as_deref();
        let (guard, holding) = match changes_key {
            true => lock_when_quiet(ctx, placement).await?,
            false => (lock_where_it_lies(ctx, placement).await?, BTreeSet::new()),
        };
        if (self.new.is_some() || changes_key) && have_guests(ctx, &[self.uid]) {
            return Err(BroadcastError::Unsettled(self.uid.to_owned()));
        }
        let key = self.key.filter(|_| holding.is_empty());
        if let Some(key) = key {
            // Recorded before the nodes have it, since the next write uses it.
            let placements = &ctx.cluster.placements;
            placements.set_primary_key(self.uid, Some(key)).await?;
        }
        let outcome = match self.new {
            Some(new) if ctx.cluster.placement(new).is_none() => {
                self.rename(ctx, guard, placement, &holding, new).await
            }
            // If the name is taken, the node refuses the request, or its task fails.
            _ => {
                // Empty shards would accept a key that the others refuse.
                let concerned = |shard: &&ShardId| holding.is_empty() || holding.contains(*shard);
                let shards = placement.shards().iter().filter(concerned);
                let each: Vec<_> = shards.map(|shard| (*shard, self.change)).collect();
                spread_as_task(ctx, &guard, &each, self.uid, KIND).await
            }
        };
        let taken = matches!(&outcome, Ok(answer) if answer.status.is_success());
        if key.is_some() && !taken {
            // The key is unknown now; the nodes will be asked for it.
            let placements = &ctx.cluster.placements;
            placements.set_primary_key(self.uid, None).await?;
        }
        outcome
    }

    /// Renames the index. The placement gets the new name under the same locks under which the nodes are asked, so that the
    /// next write finds it; if the nodes refuse the task, it gets the old name back.
    async fn rename(
        &self,
        ctx: &Arc<Context>,
        guard: WriteGuard,
        placement: &Placement,
        holding: &BTreeSet<ShardId>,
        new: &str,
    ) -> Result<Answer, BroadcastError> {
        let without_key = || {
            let mut body = self.body.clone();
            body.as_object_mut()
                .and_then(|body| body.remove("primaryKey"));
            body
        };
        let each = placement.shards().iter().map(|shard| {
            let refuses = holding.is_empty() || holding.contains(shard);
            (
                *shard,
                if refuses {
                    self.body.clone()
                } else {
                    without_key()
                },
            )
        });
        let details = json!({"oldIndexUid": self.uid, "newIndexUid": new});
        let effect = Effect::Exchange {
            pairs: vec![[self.uid.to_owned(), new.to_owned()]],
        };
        let index_uid = Some(self.uid.to_owned());
        let intent = Intent::new(effect, self.change, each.collect(), index_uid, details);
        carry_out(ctx, guard, self.change, intent).await
    }
}

/// Takes the locks of an index's shards while no task that adds or removes documents is under way there. Also returns the
/// shards that hold any documents.
async fn lock_when_quiet(
    ctx: &Arc<Context>,
    placement: &Placement,
) -> Result<(WriteGuard, BTreeSet<ShardId>), BroadcastError> {
    let when_quiet = || async {
        let guard = lock_where_it_lies(ctx, placement).await?;
        let shards = placement.shards().iter();
        let looks = shards.map(|shard| look(ctx, *shard, &placement.uid));
        let looks = try_join_all(looks).await?;
        let is_quiet = looks.iter().all(|look| !look.is_busy);
        let holding = looks.iter().filter(|look| look.holds);
        let holding = holding.map(|look| look.shard).collect();
        Ok::<_, BroadcastError>(is_quiet.then_some((guard, holding)))
    };
    let locked = ask_until(WITHIN, AGAIN, when_quiet).await?;
    locked.ok_or_else(|| BroadcastError::Busy(placement.uid.clone()))
}

/// The answers of a shard's primary.
struct Look {
    shard: ShardId,
    /// Whether it still has tasks that add or remove documents of the index.
    is_busy: bool,
    /// Whether the index has documents there.
    holds: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    number_of_documents: u64,
}

async fn look(ctx: &Context, shard: ShardId, uid: &str) -> Result<Look, BroadcastError> {
    let is_busy = are_pending(ctx, shard, uid).await?;
    let stats: Option<Stats> = ask_primary(ctx, shard, format!("/indexes/{uid}/stats")).await?;
    Ok(Look {
        shard,
        is_busy,
        // Without statistics there is no such index: its creation isn't done yet, or failed.
        holds: stats.is_some_and(|stats| stats.number_of_documents > 0),
    })
}
