//! Checks periodically whether settings still are what was last set: a node may have been changed by hand.
//!
//! A round checks a bounded number of indexes, one after the other, with one request to each of their nodes; the next round
//! continues where the last one ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;

use super::repair::{Drift, PATIENCE, Said, drifted, mend, read};
use crate::broadcast::Context;
use crate::cluster::{NodeId, Placement};
use crate::desired::{Values, decide};
use crate::store::StoreError;

/// How many indexes a round checks.
const INDEXES_A_ROUND: usize = 200;
/// How many failed repairs are remembered, so that the same repair isn't tried again and again.
const MOST_HOPELESS: usize = 1_000;

/// By index and node: the repair that failed.
type Unrepairable = HashMap<(String, NodeId), Values>;

/// Checks in a loop; returns at once if the check is turned off.
pub async fn watch(ctx: Arc<Context>) {
    let every = ctx.settings_check_interval;
    if every.is_zero() {
        return;
    }
    let mut last = String::new();
    let mut unrepairable = Unrepairable::new();
    loop {
        tokio::time::sleep(every).await;
        let all = ctx.cluster.placements.all();
        let next = all.iter().position(|placement| placement.uid > last);
        let begin = next.unwrap_or(0);
        let round = all.iter().cycle().skip(begin);
        for placement in round.take(INDEXES_A_ROUND.min(all.len())) {
            if let Err(error) = look(&ctx, placement, &mut unrepairable).await {
                tracing::error!(index = placement.uid, %error, "settings can't be looked at");
            }
            last.clone_from(&placement.uid);
        }
    }
}

async fn look(
    ctx: &Context,
    placement: &Placement,
    unrepairable: &mut Unrepairable,
) -> Result<(), StoreError> {
    let uid = placement.uid.as_str();
    if placement.deleted_by.is_some() || ctx.tasks.changes_settings(uid, None) {
        return Ok(());
    }
    // Usually nothing differs, and no lock is needed to see that.
    let Said {
        settings: said,
        silent,
    } = read(ctx, placement).await;
    if !silent.is_empty() {
        // The majority isn't known until all nodes have answered.
        return Ok(());
    }
    let truth = truth(ctx, uid, &said).await?;
    if without(unrepairable, uid, drifted(&truth, &said)).is_empty() {
        return remember(ctx, uid, &truth).await;
    }
    let guard = ctx.locks.lock(placement.shards()).await;
    let in_doubt = &ctx.cluster.in_doubt;
    if ctx.tasks.changes_settings(uid, None)
        // Some shards may have made a swap that others haven't.
        || placement.shards().iter().any(|shard| in_doubt.blocks_writes(*shard))
        || ctx.cluster.placement(uid).as_deref() != Some(placement)
    {
        return Ok(());
    }
    let Said {
        settings: said,
        silent,
    } = read(ctx, placement).await;
    if !silent.is_empty() {
        return Ok(());
    }
    let truth = self::truth(ctx, uid, &said).await?;
    let drifts = without(unrepairable, uid, drifted(&truth, &said));
    remember(ctx, uid, &truth).await?;
    let tried: Vec<(NodeId, Values)> = drifts
        .iter()
        .map(|drift| (drift.node.id.clone(), drift.patch.clone()))
        .collect();
    if !drifts.is_empty()
        && let Err(error) = mend(ctx, uid, drifts, guard, PATIENCE).await
        // A node that gave no answer is tried again in the next round.
        && error.is_final()
    {
        if unrepairable.len() >= MOST_HOPELESS {
            unrepairable.clear();
        }
        let tried = tried.into_iter();
        unrepairable.extend(tried.map(|(node, patch)| ((uid.to_owned(), node), patch)));
    }
    Ok(())
}

/// The settings that all nodes must have: those last set, or, if none were ever set for the index, those of most nodes.
async fn truth(
    ctx: &Context,
    uid: &str,
    said: &[(crate::cluster::NodeRef, Values)],
) -> Result<Values, StoreError> {
    if let Some(truth) = ctx.settings.get(uid).await? {
        return Ok(truth);
    }
    let values: Vec<&Values> = said.iter().map(|(_, values)| values).collect();
    Ok(decide(&values, None, &BTreeSet::new()))
}

async fn remember(ctx: &Context, uid: &str, truth: &Values) -> Result<(), StoreError> {
    if truth.is_empty() {
        return Ok(());
    }
    ctx.settings.put(uid, truth).await
}

fn without(unrepairable: &Unrepairable, uid: &str, drifts: Vec<Drift>) -> Vec<Drift> {
    let is_hopeless = |drift: &Drift| {
        let key = (uid.to_owned(), drift.node.id.clone());
        unrepairable.get(&key) == Some(&drift.patch)
    };
    drifts
        .into_iter()
        .filter(|drift| !is_hopeless(drift))
        .collect()
}
