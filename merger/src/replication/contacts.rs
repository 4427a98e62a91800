//! Checks that the nodes of a shard answer, before a write to several shards begins in vain.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, select_ok};
use hashbrown::HashMap;
use http::Method;
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use super::Context;
use crate::cluster::{ClusterError, NodeId, NodeRef};
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// How long a node may take to answer.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that answered within this time isn't asked again.
const LATELY: Duration = Duration::from_millis(500);

/// When each node last answered.
#[derive(Debug, Default)]
pub struct RecentContacts {
    heard: Mutex<HashMap<NodeId, Instant>>,
}

/// Why a shard can't be written to.
#[derive(Debug)]
pub(crate) enum NotThere {
    /// The shard has no replica that takes writes.
    Cluster(ClusterError),
    /// None of the shard's replicas answers.
    Unreachable {
        /// The shard.
        shard: ShardId,
        /// The error of the last replica.
        source: UpstreamError,
    },
}

impl RecentContacts {
    /// Notes that the node answered.
    pub(crate) fn note(&self, node: &NodeId) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(node.clone(), Instant::now());
    }

    fn lately(&self, node: &NodeId) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(node).is_some_and(|at| at.elapsed() < LATELY)
    }
}

/// Checks that at least one replica of each shard answers.
pub(crate) async fn knock(ctx: &Context, shards: &[ShardId]) -> Result<(), NotThere> {
    let knocks = shards.iter().map(|shard| knock_at(ctx, *shard));
    join_all(knocks).await.into_iter().collect()
}

async fn knock_at(ctx: &Context, shard: ShardId) -> Result<(), NotThere> {
    let replicas = ctx
        .cluster
        .replicas_or_none(shard)
        .map_err(NotThere::Cluster)?;
    let lately = |node: &NodeRef| ctx.contacts.lately(&node.id);
    if replicas.iter().any(lately) {
        return Ok(());
    }
    let knocks = replicas.iter().map(|node| {
        Box::pin(async {
            let target = Target::Node(node.address);
            let authority = ctx.own_authority();
            let request =
                NodeRequest::new(target, Method::GET, "/health", &authority, KNOCK_TIMEOUT);
            let answer = ctx.upstream.send(request).await;
            answer.map(|_| ctx.contacts.note(&node.id))
        })
    });
    // The first answer is enough, so a replica that hangs delays nothing.
    let first = select_ok(knocks).await;
    first.map_err(|source| NotThere::Unreachable { shard, source })?;
    Ok(())
}
