//! The same request to every in-sync replica of a shard, and what becomes of those that don't take it.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{NodeId, NodeRef, TakenOut};
use crate::app::App;
use crate::store::StoreError;

/// How much longer than the first replica the others may take, as a multiple of its time, beside the fixed patience.
const PATIENCE_FACTOR: u32 = 2;

/// Takes a replica out, and lets its shard's tasks go on without it.
///
/// # Errors
/// The store failed: nothing that the replica missed may be acknowledged.
pub async fn take_out(app: &App, node: &NodeId, reason: &str) -> Result<TakenOut, StoreError> {
    let outcome = app.cluster.in_sync.take_out(node, reason).await?;
    if outcome == TakenOut::Now {
        app.metrics.taken_out.inc();
        app.tasks.abandon(node).await;
    }
    Ok(outcome)
}

/// Sends to all `replicas` at once. When one has taken it, the others have a bounded time left; `None` for who was late.
pub async fn to_each<T, E, F>(
    app: &App,
    replicas: &[NodeRef],
    taken: impl Fn(&T) -> bool,
    send: impl Fn(NodeRef) -> F,
) -> Vec<(NodeRef, Option<Result<T, E>>)>
where
    F: Future<Output = Result<T, E>>,
{
    let patience = Duration::from_millis(app.options.replica_patience_ms);
    let begun = Instant::now();
    let mut running: FuturesUnordered<_> = replicas
        .iter()
        .enumerate()
        .map(|(place, node)| {
            let sending = send(node.clone());
            async move { (place, sending.await) }
        })
        .collect();
    let mut answers: Vec<Option<Result<T, E>>> = replicas.iter().map(|_| None).collect();
    let mut until: Option<Instant> = None;
    loop {
        let next = match until {
            None => running.next().await,
            Some(until) => match tokio::time::timeout_at(until, running.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        let Some((place, answer)) = next else { break };
        if until.is_none() && answer.as_ref().is_ok_and(&taken) {
            until = Some(Instant::now() + patience + begun.elapsed() * PATIENCE_FACTOR);
        }
        if let Some(slot) = answers.get_mut(place) {
            *slot = Some(answer);
        }
    }
    replicas.iter().cloned().zip(answers).collect()
}
