//! Repeats the writes of a merged node task that failed: each is sent again, alone.

use std::sync::Arc;

use serde_json::{Value, json};

use super::delivery;
use super::held::Taken;
use crate::supervise::survive;
use crate::tasks::{LocalState, ShardTask, SharedEnd};
use crate::write::Context;
use crate::write::deliver::{Delivered, deliver_now, layout_unchanged};

/// Handles the end of merged node tasks: the writes of a failed one are sent again, each alone.
pub(in crate::write) fn ended(ctx: &Arc<Context>, mut ends: Vec<SharedEnd>) {
    ends.sort_by(|a, b| {
        (&a.node, a.local_uid, a.share.place).cmp(&(&b.node, b.local_uid, b.share.place))
    });
    let mut failed = Vec::new();
    for end in ends {
        let taken = ctx
            .writes
            .coalescer
            .held()
            .take(&(end.node.clone(), end.local_uid), end.share.place);
        match (end.failed, taken) {
            (Some(state), taken) => failed.push((end.uid, state, taken)),
            (None, Some(taken)) => ctx.writes.coalescer.held().done(&taken),
            (None, None) => {}
        }
    }
    if failed.is_empty() {
        return;
    }
    let ctx = Arc::clone(ctx);
    tokio::spawn(async move {
        for (uid, state, taken) in failed {
            send_alone(&ctx, uid, state, taken.as_ref()).await;
            if let Some(taken) = taken {
                ctx.writes.coalescer.held().done(&taken);
            }
        }
    });
}

async fn send_alone(ctx: &Arc<Context>, uid: u32, mut state: LocalState, taken: Option<&Taken>) {
    let why_not = match taken {
        None => "what was sent is not kept any more".to_owned(),
        Some(taken) => {
            match survive(&ctx.metrics.panics, "send-alone", repeat(ctx, uid, taken)).await {
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
async fn repeat(ctx: &Arc<Context>, uid: u32, taken: &Taken) -> Result<(), String> {
    let Taken { shard, small, .. } = taken;
    let guard = ctx.locks.lock(&[*shard]).await;
    // Checked under the lock: only now are all writes in between known.
    if ctx.writes.coalescer.held().is_overtaken(taken) {
        return Err("the index has been written to since".to_owned());
    }
    if !layout_unchanged(ctx, &small.kind.placement) {
        // The index was deleted, or laid out anew, since the write was sent.
        return Err("no shard took it".to_owned());
    }
    let again = delivery(small, *shard, small.piece.clone(), small.ids.clone());
    match deliver_now(ctx, &guard, &again).await {
        Ok(Delivered::Taken(parts)) => {
            let part = parts.into_iter().next();
            resent(ctx, uid, part.ok_or("no shard took it")?).await;
            Ok(())
        }
        Ok(Delivered::Refused(answer)) => Err(format!("a node answered {}", answer.status)),
        Err(error) => Err(error.to_string()),
    }
}

async fn resent(ctx: &Context, uid: u32, part: ShardTask) {
    if let Err(error) = ctx.tasks.resend(uid, part).await {
        tracing::error!(uid, %error, "a write that was sent again alone could not be recorded");
    }
}
