//! Repeats the writes of a merged node task that failed: each is sent again, alone.

use std::sync::Arc;

use serde_json::{Value, json};

use super::held::Group;
use super::{Small, delivery, removing};
use crate::supervise::survive;
use crate::tasks::{LocalState, ShardTask, SharedEnd};
use crate::write::Context;
use crate::write::deliver::{Delivered, deliver_now, layout_unchanged};

/// Handles the end of merged node tasks: the writes of a failed one are sent again, each alone.
pub(in crate::write) fn ended(ctx: &Arc<Context>, mut ends: Vec<SharedEnd>) {
    ends.sort_by(|a, b| (&a.node, a.local_uid, a.uid).cmp(&(&b.node, b.local_uid, b.uid)));
    let mut failed: Vec<(SharedEnd, LocalState)> = Vec::new();
    for mut end in ends {
        match end.failed.take() {
            Some(state) => failed.push((end, state)),
            None => {
                let mut held = ctx.writes.coalescer.held();
                if let Some(group) = held.take(&(end.node, end.local_uid)) {
                    held.done(&group);
                }
            }
        }
    }
    if failed.is_empty() {
        return;
    }
    let ctx = Arc::clone(ctx);
    tokio::spawn(async move {
        for failed in failed.chunk_by(|(one, _), (other, _)| {
            (&one.node, one.local_uid) == (&other.node, other.local_uid)
        }) {
            send_each_alone(&ctx, failed).await;
        }
    });
}

/// Sends the writes of one failed task again.
async fn send_each_alone(ctx: &Arc<Context>, failed: &[(SharedEnd, LocalState)]) {
    let Some((first, _)) = failed.first() else {
        return;
    };
    let task = (first.node.clone(), first.local_uid);
    let group = ctx.writes.coalescer.held().take(&task);
    for (end, state) in failed {
        for (uid, place) in ctx.tasks.split(end.uid, (&task.0, task.1)).await {
            let small = group
                .as_ref()
                .and_then(|group| Some((group, group.members.get(place as usize)?)));
            send_alone(ctx, uid, state.clone(), small).await;
        }
    }
    if let Some(group) = group {
        ctx.writes.coalescer.held().done(&group);
    }
}

async fn send_alone(
    ctx: &Arc<Context>,
    uid: u32,
    mut state: LocalState,
    held: Option<(&Group, &Small)>,
) {
    let why_not = match held {
        None => "what was sent is not kept any more".to_owned(),
        Some((group, small)) => {
            let again = repeat(ctx, uid, group, small);
            match survive(&ctx.metrics.panics, "send-alone", again).await {
                Some(Ok(())) => return,
                Some(Err(why_not)) => why_not,
                None => "a mistake in Weft".to_owned(),
            }
        }
    };
    let said = state
        .error
        .as_ref()
        .and_then(|error| error["message"].as_str())
        .unwrap_or_default();
    let message = format!(
        "{said} (The write shared a node's task with others and was not repeated alone: {why_not}. Send it again.)"
    );
    match state.error.as_mut().and_then(Value::as_object_mut) {
        Some(error) => {
            error.insert("message".to_owned(), message.into());
        }
        None => {
            state.error = Some(json!({"message": message, "code": "internal", "type": "internal"}))
        }
    }
    ctx.tasks.give_up(uid, state).await;
}

/// Sends the write again, unless it would overtake a newer write; otherwise says why not.
async fn repeat(ctx: &Arc<Context>, uid: u32, group: &Group, small: &Small) -> Result<(), String> {
    let (shard, placement) = (group.shard, &small.kind.placement);
    // Where documents lie by a field, any shard may hold an old version.
    let guard = match placement.slots.field() {
        Some(_) => ctx.locks.lock(placement.shards()).await,
        None => ctx.locks.lock(&[shard]).await,
    };
    // Checked under the lock: only now are all writes in between known.
    if ctx.writes.coalescer.held().is_overtaken(group, small) {
        return Err("the index has been written to since".to_owned());
    }
    if !layout_unchanged(ctx, placement) {
        // The index was deleted, or laid out anew, since the write was sent.
        return Err("no shard took it".to_owned());
    }
    let removed = removing(ctx, &small.kind, shard, &small.ids, None).await;
    let removed = removed.map_err(|error| error.to_string())?;
    let again = (small.piece.clone(), small.ids.clone());
    let again = delivery(small, shard, again, removed);
    match deliver_now(ctx, &guard, &again).await {
        Ok(Delivered::Taken(parts)) if parts.is_empty() => Err("no shard took it".to_owned()),
        Ok(Delivered::Taken(parts)) => {
            resent(ctx, uid, parts).await;
            Ok(())
        }
        Ok(Delivered::Refused(answer)) => Err(format!("a node answered {}", answer.status)),
        Err(error) => Err(error.to_string()),
    }
}

async fn resent(ctx: &Context, uid: u32, parts: Vec<ShardTask>) {
    if let Err(error) = ctx.tasks.resend(uid, parts).await {
        tracing::error!(uid, %error, "a write that was sent again alone could not be recorded");
    }
}
