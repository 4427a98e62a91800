//! Asks a node which tasks it still has to do: unlike the registry, the node also knows tasks that aren't registered yet.

use http::Method;
use serde::Deserialize;
use weft_routing::placement::ShardId;

use crate::cluster::ClusterError;
use crate::tasks::Context;
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// Why it is unknown what a node still has to do.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The shard has no primary.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The primary gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

#[derive(Deserialize)]
struct Listed {
    total: u64,
}

/// Whether a shard's primary still has tasks that add documents to an index, remove some, or may give its name to another
/// index.
///
/// # Errors
/// The primary can't be asked, or gives no answer.
pub async fn are_pending(ctx: &Context, shard: ShardId, uid: &str) -> Result<bool, Unknown> {
    const DOCUMENTS: &str =
        "documentAdditionOrUpdate,documentEdition,documentDeletion,indexDeletion";
    const OPEN: &str = "statuses=enqueued,processing&limit=1";
    for path in [
        format!("/tasks?indexUids={uid}&types={DOCUMENTS}&{OPEN}"),
        format!("/tasks?types=indexSwap,indexUpdate&{OPEN}"),
    ] {
        let listed: Option<Listed> = ask_primary(ctx, shard, path).await?;
        if listed.is_none_or(|listed| listed.total > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads from a shard's primary. `None` if it refuses, for example because the index doesn't exist.
///
/// # Errors
/// The primary gives no answer.
pub async fn ask_primary<T: serde::de::DeserializeOwned>(
    ctx: &Context,
    shard: ShardId,
    path: String,
) -> Result<Option<T>, Unknown> {
    let primary = ctx.cluster.primary(shard);
    let primary = primary.ok_or(ClusterError::ShardLost(shard))?;
    let target = Target::Node(primary.address);
    let timeout = ctx.search_timeout;
    let request = NodeRequest::new(target, Method::GET, path, &ctx.own_authority(), timeout);
    let answer = ctx.upstream.send(request).await?;
    let found = answer.status.is_success();
    Ok(found
        .then(|| serde_json::from_slice(&answer.body).ok())
        .flatten())
}
