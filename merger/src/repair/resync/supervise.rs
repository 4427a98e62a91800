//! Finds replicas that are out of sync but answer, and resyncs them one after the other in each shard.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use super::{Resync, ResyncError};
use crate::clock::now_utc;
use crate::cluster::{NodeId, NodeRef, NodeStatus, SyncState};
use crate::repair::Context;

/// The pause between searches for replicas that are out.
const LOOK: Duration = Duration::from_millis(200);
/// The pause after a failed resync of a replica; it doubles each time.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// How many shards may have a resync at the same time.
const AT_ONCE: usize = 2;

/// When to try a replica again after a failed resync.
struct Rest {
    until: Instant,
    length: Duration,
}

/// Brings back the replicas that are out; never ends.
pub async fn keep_in_sync(ctx: Arc<Context>) {
    let mut rests: HashMap<NodeId, Rest> = HashMap::new();
    let mut running: HashMap<ShardId, (NodeId, tokio::task::JoinHandle<bool>)> = HashMap::new();
    loop {
        let done: Vec<ShardId> = running
            .iter()
            .filter(|(_, (_, handle))| handle.is_finished())
            .map(|(shard, _)| *shard)
            .collect();
        for shard in done {
            let Some((node, handle)) = running.remove(&shard) else {
                continue;
            };
            match handle.await {
                Ok(true) => drop(rests.remove(&node)),
                Ok(false) | Err(_) => rest(&mut rests, &node),
            }
        }
        let topology = ctx.cluster.topology();
        if !topology.all_nodes().any(|(_, node)| is_out(&ctx, node))
            && let Err(error) = ctx.tasks.forget_removals(now_utc()).await
        {
            tracing::warn!(%error, "marks of removed documents can't be deleted");
        }
        for shard in topology.shards() {
            if running.len() >= AT_ONCE {
                break;
            }
            let held = ctx.cluster.in_doubt.blocks_writes(shard);
            if held || running.contains_key(&shard) || !ctx.cluster.has_settled(shard) {
                continue;
            }
            let rested = |node: &NodeRef| {
                let rest = rests.get(&node.id);
                rest.is_none_or(|rest| rest.until <= Instant::now())
            };
            let target = topology.nodes(shard).iter().find(|node| {
                is_out(&ctx, node) && ctx.cluster.health.answers(&node.id) && rested(node)
            });
            let source = ctx
                .cluster
                .replicas(shard)
                .into_iter()
                .find(|node| ctx.cluster.health.status(&node.id) == NodeStatus::Up);
            if let (Some(target), Some(source)) = (target.cloned(), source) {
                let node = target.id.clone();
                let handle = tokio::spawn(bring_back(Arc::clone(&ctx), shard, source, target));
                running.insert(shard, (node, handle));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn is_out(ctx: &Context, node: &NodeRef) -> bool {
    let standing = ctx.cluster.in_sync.sync_state(&node.id);
    matches!(standing, Some(SyncState::Out { .. }))
}

fn rest(rests: &mut HashMap<NodeId, Rest>, node: &NodeId) {
    let length = rests
        .get(node)
        .map_or(FIRST_REST, |rest| (rest.length * 2).min(LONGEST_REST));
    let until = Instant::now() + length;
    rests.insert(node.clone(), Rest { until, length });
}

/// Runs one resync; true if the replica is in sync again.
async fn bring_back(ctx: Arc<Context>, shard: ShardId, source: NodeRef, target: NodeRef) -> bool {
    let progress = ctx.resyncs.begin(&target.id);
    let begun = Instant::now();
    tracing::info!(node = %target.id, from = %source.id, "resync begins");
    let resync = Resync {
        ctx: &ctx,
        shard,
        source: &source,
        target: &target,
        progress: &progress,
    };
    let outcome = resync.run().await;
    ctx.metrics
        .resynced_documents
        .inc_by(progress.differences());
    let (label, ms) = (
        if outcome.is_ok() { "done" } else { "failed" },
        begun.elapsed().as_millis(),
    );
    ctx.metrics.resyncs.with_label_values(&[label]).inc();
    match outcome {
        Ok(()) => {
            tracing::info!(node = %target.id, documents = progress.differences(), ms, "resync done");
            ctx.resyncs.end(&target.id, None);
            let stopped = ctx.resyncs.stopped();
            ctx.metrics
                .stopped_resyncs
                .set(i64::try_from(stopped).unwrap_or(i64::MAX));
            true
        }
        Err(error) => {
            match &error {
                ResyncError::Unexplained { .. } => {
                    tracing::error!(node = %target.id, %error, ms, "resync stopped");
                }
                _ => {
                    tracing::warn!(node = %target.id, %error, ms, "resync failed; it will be tried again");
                }
            }
            ctx.resyncs.end(&target.id, Some(&error));
            let stopped = ctx.resyncs.stopped();
            ctx.metrics
                .stopped_resyncs
                .set(i64::try_from(stopped).unwrap_or(i64::MAX));
            false
        }
    }
}
