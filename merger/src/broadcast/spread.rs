//! Sends the same change to every replica of some shards, in each shard's order of writes.
//!
//! The first shard's replicas are asked first. If they refuse, the change is refused and nothing has been changed anywhere. A
//! later failure on another shard is reported by the task.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use serde_json::Value;
use weft_routing::operation::NamedOperation;
use weft_routing::placement::ShardId;

use super::BroadcastError;
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::{Call, ForwardedHeaders};
use crate::cluster::{ClusterError, NodeId, NodeRef, WriteMode};
use crate::replication::{
    Command, Missed, NotTaken, NotThere, Order, WriteGuard, knock, named, replicate, settle_doubt,
    stagger,
};
use crate::tasks::ShardTask;
use crate::upstream::NodeAnswer;
use crate::write::Plain;

/// A change that is the same for every node.
#[derive(Debug, Clone)]
pub(super) struct NodeChange {
    /// What it does.
    pub(super) named: NamedOperation,
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) forwarded: ForwardedHeaders,
    pub(super) headers: Vec<(http::HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

impl NodeChange {
    /// A request of Weft's own.
    pub(super) fn own(
        ctx: &Context,
        named: NamedOperation,
        method: Method,
        path_and_query: impl Into<String>,
        body: &Value,
    ) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self {
            named,
            method,
            path_and_query: path_and_query.into(),
            forwarded: ctx.own_authority(),
            headers: vec![(CONTENT_TYPE, json)],
            body: body.to_string().into(),
        }
    }

    /// The same request with another body.
    pub(super) fn with_body(&self, body: &Value) -> Self {
        Self {
            body: body.to_string().into(),
            ..self.clone()
        }
    }

    /// The client's request, without a body.
    pub(super) fn read(call: &Call) -> Self {
        Self {
            named: named(call),
            method: call.method.clone(),
            path_and_query: call.path_and_query.clone(),
            forwarded: call.forwarded.clone(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// The client's request, with its body read completely.
    pub(super) async fn of(ctx: &Context, call: Call) -> Result<Self, BroadcastError> {
        let idle = ctx.pace.idle;
        let encoding = call.header("content-encoding").map(str::to_owned);
        let content_type = call.headers.get(CONTENT_TYPE).cloned();
        let limit = ctx.max_body_bytes;
        let read = Self::read(&call);
        Ok(Self {
            headers: content_type
                .map(|value| (CONTENT_TYPE, value))
                .into_iter()
                .collect(),
            // Decompressed, since the merger reads the body to find the shards that it concerns.
            body: Plain::new(call.body, encoding.as_deref(), limit, idle)
                .whole()
                .await?,
            ..read
        })
    }

    /// The order that brings the change to all of a shard's replicas.
    fn order(&self, shard: ShardId, replicas: Vec<NodeRef>) -> Order {
        Order {
            shard,
            replicas,
            mode: WriteMode::Sync,
            command: Arc::new(self.command()),
            taken: Taken::new(),
        }
    }

    /// The request to each node.
    pub(super) fn command(&self) -> Command {
        Command {
            method: self.method.clone(),
            path_and_query: self.path_and_query.clone(),
            headers: self.headers.clone(),
            forwarded: self.forwarded.clone(),
            body: Box::new(self.body.clone()),
            is_task: false,
        }
    }
}

/// The result of sending a change to all shards.
pub(super) enum Spread {
    /// The first shard took it; `parts` says what happened on the others.
    Taken {
        parts: Vec<ShardTask>,
        /// The first node's answer.
        first: NodeAnswer,
    },
    /// The first shard's nodes refused it, and no other shard was asked.
    Refused(Answer),
}

/// Replicas that already have a change, with their answers.
pub(super) type Taken = Vec<(NodeId, NodeAnswer)>;

/// Which replicas get a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Every in-sync replica.
    Replicas,
    /// One replica of each shard.
    Primaries,
}

/// Sends a change to all of `shards`, in each shard's order of writes.
pub(super) async fn spread(
    ctx: &Arc<Context>,
    change: &NodeChange,
    shards: &[ShardId],
    reach: Reach,
) -> Result<Spread, BroadcastError> {
    let guard = ctx.locks.lock(shards).await;
    let each: Vec<_> = shards.iter().map(|shard| (*shard, change)).collect();
    spread_locked(ctx, &guard, &each, reach).await
}

/// Sends each shard its change, to the first shard first; the guard holds the locks of all of them.
pub(super) async fn spread_locked(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    each: &[(ShardId, &NodeChange)],
    reach: Reach,
) -> Result<Spread, BroadcastError> {
    let mut wanted = Vec::with_capacity(each.len());
    for (shard, change) in each {
        settle_doubt(ctx, *shard).await?;
        let mut replicas = ctx.cluster.replicas_or_none(*shard)?;
        // A change of settings makes nodes reindex, which keeps them busy for long.
        if change.named.operation.changes_settings() {
            stagger(&ctx.replication, *shard, u64::MAX);
        }
        let held_back = ctx.cluster.stagger.deferred(*shard);
        replicas.sort_by_key(|node| held_back.contains(&node.id));
        if reach == Reach::Primaries {
            replicas.truncate(1);
        }
        wanted.push((*shard, *change, replicas));
    }
    let shards: Vec<ShardId> = each.iter().map(|(shard, _)| *shard).collect();
    // A shard that hangs is noticed before anything is changed anywhere.
    knock(ctx, &shards).await.map_err(|error| match error {
        NotThere::Cluster(error) => BroadcastError::Cluster(error),
        NotThere::Unreachable { source, .. } => source.into(),
    })?;
    let mut wanted = wanted.into_iter();
    let Some((shard, change, replicas)) = wanted.next() else {
        return Err(ClusterError::NoShards.into());
    };
    for (shard, change) in each {
        ctx.cluster.note_write(*shard, &change.named, None);
    }
    if change.named.operation.changes_indexes() {
        ctx.writes.indexes_change();
    }
    let (part, first) =
        match replicate(&ctx.replication, guard, change.order(shard, replicas)).await {
            Ok(receipt) => (receipt.part, receipt.answer),
            Err(NotTaken::Refused(answer)) => return Ok(Spread::Refused(answer.pass_on())),
            Err(NotTaken::Cluster(error)) => return Err(error.into()),
            Err(NotTaken::Unanswered(missed)) if !missed.iter().any(Missed::may_have_it) => {
                let error = missed.into_iter().find_map(Missed::error);
                return Err(error.map_or(ClusterError::ShardEmpty(shard).into(), Into::into));
            }
            Err(error) => {
                let detail = error.to_string();
                return Err(BroadcastError::Unknown { shard, detail });
            }
        };
    let others = wanted.map(|(shard, change, replicas)| {
        to_shard(ctx, guard, change, shard, replicas, Taken::new())
    });
    let others: Vec<ShardTask> = try_join_all(others).await?;
    let parts = std::iter::once(part).chain(others).collect();
    Ok(Spread::Taken { parts, first })
}

/// Sends the change to those of one shard's replicas that aren't in `taken`.
pub(super) async fn to_shard(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    change: &NodeChange,
    shard: ShardId,
    replicas: Vec<NodeRef>,
    taken: Taken,
) -> Result<ShardTask, BroadcastError> {
    let order = Order {
        taken,
        ..change.order(shard, replicas)
    };
    match replicate(&ctx.replication, guard, order).await {
        Ok(receipt) => Ok(receipt.part),
        Err(NotTaken::Cluster(ClusterError::Store(error))) => Err(error.into()),
        Err(not_taken) => Ok(ShardTask::undelivered(shard, not_taken.to_string())),
    }
}
