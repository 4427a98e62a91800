//! Asks a node which tasks it still has to do: unlike the registry, the node also knows tasks that aren't registered yet.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use tokio::time::Instant;
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

/// Asks nodes again and again until `ask` finds what is wanted, with the pause `every` in between. `None` if it isn't found within
/// `within`: nodes tell nobody of what they do, so there is nothing to be woken by.
///
/// # Errors
/// The first error of `ask`.
pub async fn ask_until<T, E, F>(
    within: Duration,
    every: Duration,
    ask: impl Fn() -> F,
) -> Result<Option<T>, E>
where
    F: Future<Output = Result<Option<T>, E>>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = ask().await? {
            return Ok(Some(found));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        tokio::time::sleep(every).await;
    }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const EVERY: Duration = Duration::from_secs(1);

    /// Asks a node that has the answer at the `ready`th time, for at most ten seconds. Also returns how often it was asked.
    async fn ask(ready: u32, fails: u32) -> (Result<Option<u32>, &'static str>, u32) {
        let asked = Cell::new(0);
        let answer = ask_until(EVERY * 10, EVERY, || async {
            asked.set(asked.get() + 1);
            match asked.get() {
                now if now == fails => Err("no"),
                now => Ok((now == ready).then_some(now)),
            }
        });
        (answer.await, asked.get())
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_are_asked_until_they_have_the_answer_or_refuse_or_take_too_long() {
        let begun = Instant::now();
        assert_eq!(ask(1, 0).await, (Ok(Some(1)), 1));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(ask(4, 0).await, (Ok(Some(4)), 4));
        assert_eq!(begun.elapsed(), EVERY * 3);
        assert_eq!(ask(4, 2).await, (Err("no"), 2));
        let begun = Instant::now();
        let (answer, _) = ask(100, 0).await;
        assert_eq!(answer, Ok(None));
        assert!(begun.elapsed() >= EVERY * 10 && begun.elapsed() < EVERY * 12);
    }
}
