//! Changes of API keys: the same on every node.

use std::sync::Arc;

use http::Method;
use serde_json::{Map, Value};

use super::BroadcastError;
use super::spread::{NodeChange, Reach, Spread, spread};
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;
use crate::cluster::Announced;
use crate::tasks::ShardTask;
use crate::upstream::{NodeAnswer, Target, UpstreamError};

/// `POST /keys`, `PATCH` and `DELETE /keys/{key}`.
pub(super) async fn change(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    let creates = call.method == Method::POST;
    let mut change = NodeChange::of(ctx, call).await?;
    if creates && let Ok(mut body) = serde_json::from_slice::<Map<String, Value>>(&change.body) {
        let uid = body.entry("uid").or_insert(Value::Null);
        if uid.is_null() {
            *uid = Value::from(uuid::Uuid::new_v4().to_string());
            change.body = serde_json::to_vec(&body).unwrap_or_default().into();
        }
    }
    let changing = ctx.keys.changing().await;
    let announced = &ctx.cluster.announced.keys;
    let announcing = announced.begin();
    let outcome = spread(ctx, &change, &ctx.cluster.shards(), Reach::Replicas).await;
    ctx.keys.forget();
    drop(announcing);
    drop(changing);
    // Nobody remembers an answer to a key that is new.
    if !creates {
        heard_by_others(ctx, announced, &outcome).await;
    }
    match outcome? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { first, parts } => whole(first, &parts),
    }
}

/// Waits until other mergers don't answer any more as they would have done before a change. One that failed may have reached some nodes.
pub(super) async fn heard_by_others(
    ctx: &Context,
    announced: &Announced,
    outcome: &Result<Spread, BroadcastError>,
) {
    let has_changed = !matches!(outcome, Ok(Spread::Refused(_)));
    if has_changed && ctx.cluster.mergers.are_several() {
        announced.heard().await;
    }
}

/// The first node's answer, if every shard took the change; an error otherwise.
pub(super) fn whole(first: NodeAnswer, parts: &[ShardTask]) -> Result<Answer, BroadcastError> {
    for part in parts {
        if let Some(detail) = &part.undelivered {
            let (target, detail) = (Target::Shard(part.shard), detail.clone());
            return Err(UpstreamError::Unreachable { target, detail }.into());
        }
    }
    Ok(first.pass_on())
}
