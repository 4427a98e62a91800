//! Undoes a change of settings that failed on some nodes, on the nodes where it succeeded.
//!
//! A node makes a change completely or not at all, so the nodes where it failed still have the earlier settings, including
//! changes made just before. Invariants: what a later change has set stays; the task ends when all nodes have undone the
//! change; undoing twice, as after a crash, is the same as once, since the nodes are asked what they have. While the task is
//! open, nothing else repairs the settings.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::read_back::Looked;
use super::repair::{Drift, Said, drifted, mend, read};
use crate::broadcast::Context;
use crate::cluster::{NodeId, Placement};
use crate::desired::{Values, decide};
use crate::replication::lock_when_whole;
use crate::store::StoreError;
use crate::tasks::{ReadBack, Touches};

/// How long a node may take to undo a change: it may have to reindex everything.
const PATIENCE: Duration = Duration::from_secs(3 * 60 * 60);

/// Undoes the change of `task` where it was made; `failed` are the nodes where it wasn't.
pub(super) async fn undo(
    ctx: &Context,
    placement: &Placement,
    task: u32,
    touches: &Touches,
    failed: &BTreeSet<NodeId>,
) -> Result<Looked, StoreError> {
    let uid = placement.uid.as_str();
    let guard = lock_when_whole(ctx, placement.shards()).await;
    let (_, later) = ctx.tasks.other_settings_changes(uid, task);
    let Said {
        settings: said,
        silent,
    } = read(ctx, placement).await;
    if !silent.is_empty() {
        return Ok(Looked::silent(&silent));
    }
    let known = ctx.settings.get(uid).await?;
    let untouched: Vec<&Values> = said
        .iter()
        .filter(|(node, _)| failed.contains(&node.id))
        .map(|(_, values)| values)
        .collect();
    let before = match untouched.is_empty() {
        true => known.unwrap_or_default(),
        false => decide(&untouched, known.as_ref(), &BTreeSet::new()),
    };
    let to_undo = |name: &String| {
        let set_since = later.iter().any(|later| later.holds(name));
        touches.holds(name) && !set_since
    };
    let wanted: Values = before
        .iter()
        .filter(|(name, _)| to_undo(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let drifts = drifted(&wanted, &said);
    // Without later changes, the earlier settings are what all nodes must have; a later change does its own check.
    if later.is_empty() && !untouched.is_empty() {
        ctx.settings.put(uid, &before).await?;
    }
    let nodes = drifts.iter().map(words).collect();
    Ok(Looked::Seen(
        match mend(ctx, uid, drifts, guard, PATIENCE).await {
            Ok(_) => ReadBack::Undone(nodes),
            Err(error) => ReadBack::Failed(json!({
                "message": format!("It could not be undone where it had been made: {error}. Set the settings again."),
                "code": "internal",
                "type": "internal",
                "link": "https://docs.meilisearch.com/errors#internal",
            })),
        },
    ))
}

fn words(drift: &Drift) -> String {
    drift.node.id.to_string()
}
