//! Reads: from any node if all nodes have the same data, or from every shard if the answers add up.

use futures_util::future::join_all;
use serde_json::Value;
use weft_routing::placement::ShardId;

use super::BroadcastError;
use super::spread::NodeChange;
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;
use crate::cluster::ClusterError;
use crate::upstream::{NodeAnswer, NodeRequest, Target, UpstreamError};

/// The shards that can answer about the call's index: those that hold it; all shards if the call has no index, or one that
/// isn't placed.
pub(super) fn shards_of(ctx: &Context, call: &Call) -> Result<Vec<ShardId>, BroadcastError> {
    let placed = call
        .index
        .as_deref()
        .and_then(|uid| ctx.cluster.placement(uid));
    let shards = placed.map_or_else(
        || ctx.cluster.shards(),
        |placement| placement.shards().to_vec(),
    );
    if shards.is_empty() {
        Err(ClusterError::NoShards.into())
    } else {
        Ok(shards)
    }
}

/// Passes the request to the shards in turn until one answers.
pub(super) async fn from_any(ctx: &Context, call: Call) -> Result<Answer, BroadcastError> {
    let shards = shards_of(ctx, &call)?;
    let request = NodeChange::of(ctx, call).await?;
    let mut last = BroadcastError::Cluster(ClusterError::NoShards);
    for shard in shards {
        match send(ctx, &request, shard).await {
            Ok(answer) => return Ok(answer.pass_on()),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Passes the request to the first shard's primary, or to any other node if the primary doesn't answer. Each node orders the
/// list differently, so its pages only fit together if they come from the same node.
pub(super) async fn from_primary(ctx: &Context, call: Call) -> Result<Answer, BroadcastError> {
    let primary = ctx.cluster.shards().into_iter().next();
    let Some(primary) = primary.and_then(|shard| ctx.cluster.primary(shard)) else {
        return from_any(ctx, call).await;
    };
    let request = NodeRequest::new(
        Target::Node(primary.address),
        call.method.clone(),
        call.path_and_query.clone(),
        &call.forwarded,
        ctx.search_timeout,
    );
    match ctx.upstream.send(request).await {
        Ok(answer) => Ok(answer.pass_on()),
        Err(_) => from_any(ctx, call).await,
    }
}

/// Passes the request to one shard after the other until one accepts it: what it is about is on only one of the shards.
pub(super) async fn from_one_of(ctx: &Context, call: Call) -> Result<Answer, BroadcastError> {
    let shards = shards_of(ctx, &call)?;
    let request = NodeChange::of(ctx, call).await?;
    let mut refusal = None;
    for shard in shards {
        let answer = send(ctx, &request, shard).await?;
        if answer.status.is_success() {
            return Ok(answer.pass_on());
        }
        refusal.get_or_insert(answer);
    }
    refusal
        .map(NodeAnswer::pass_on)
        .ok_or(BroadcastError::Cluster(ClusterError::NoShards))
}

/// The answers of the shards, or the answer of a shard that refused.
pub(super) enum Gathered {
    /// Every shard's JSON, in the order of the shards.
    All(Vec<(ShardId, Value)>),
    /// The first refusal.
    Refused(Answer),
}

/// Sends a read to each shard and waits for all answers.
pub(super) async fn from_all(
    ctx: &Context,
    request: &NodeChange,
    shards: &[ShardId],
) -> Result<Gathered, BroadcastError> {
    let answers = join_all(shards.iter().map(|shard| send(ctx, request, *shard))).await;
    let mut all = Vec::with_capacity(shards.len());
    for (shard, answer) in shards.iter().zip(answers) {
        let answer = answer?;
        if !answer.status.is_success() {
            return Ok(Gathered::Refused(answer.pass_on()));
        }
        let value = serde_json::from_slice(&answer.body)
            .map_err(|_| BroadcastError::Unreadable { shard: *shard })?;
        all.push((*shard, value));
    }
    Ok(Gathered::All(all))
}

async fn send(
    ctx: &Context,
    request: &NodeChange,
    shard: ShardId,
) -> Result<NodeAnswer, UpstreamError> {
    let target = Target::Shard(shard);
    let asked = request.command().to(target, ctx.search_timeout);
    ctx.upstream.send(asked).await
}
