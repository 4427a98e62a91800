//! Which nodes there are, and whether they answer, as this merger's own Envoy has it.
//!
//! Whether a node's disk is the right one is the leader's to judge. A follower sees only that a node's newest task has gone back
//! since it looked last: then the node gets no reads here until the leader has brought it back in sync.

use std::sync::Arc;

use tokio::time::{Instant, sleep, timeout};

use super::Context;
use crate::cluster::{Directory, NodeId, NodeRef, Probe};
use crate::probe::{for_each_node, probe};
use crate::supervise::supervise;

/// How long Envoy's admin interface may take to answer.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Keeps the topology up to date; never ends.
pub async fn discover(ctx: Arc<Context>, directory: Arc<dyn Directory>) {
    let every = ctx.discovery_interval;
    let mut failing = false;
    loop {
        let found = timeout(TIMEOUT, directory.topology()).await;
        match found.unwrap_or_else(|_| Err("no answer in time".into())) {
            Ok(topology) => {
                failing = false;
                ctx.cluster.follow_topology(topology);
            }
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%error, "Envoy's admin interface gives no list of clusters; the last one stays");
            }
            Err(_) => {}
        }
        let none_yet = ctx.cluster.topology().shards().is_empty();
        sleep(match none_yet {
            true => every.min(std::time::Duration::from_millis(100)),
            false => every,
        })
        .await;
    }
}

/// Watches all nodes of the topology; never ends.
pub async fn watch(ctx: Arc<Context>) {
    for_each_node(&ctx.cluster, |id| {
        supervise(&ctx, &ctx.metrics.panics, "watch-node", move |ctx| {
            watch_node(ctx, id.clone())
        });
    })
    .await;
}

async fn watch_node(ctx: Arc<Context>, id: NodeId) {
    let (mut newest, mut shown) = (None, None);
    loop {
        let topology = ctx.cluster.topology();
        if let Some(node) = topology.find(&id) {
            let asked = Instant::now();
            let heard = look(&ctx, node, &mut newest).await;
            forget_answers_before(&ctx, node, (&heard, asked), &mut shown);
        }
        sleep(ctx.probe_interval).await;
    }
}

/// Probes a node once. `newest` is the newest task that it was seen with.
async fn look(ctx: &Context, node: &NodeRef, newest: &mut Option<u32>) -> Probe {
    let (cluster, id) = (&ctx.cluster, &node.id);
    if !cluster.in_sync.holds(id) {
        // It may begin another life, with fewer tasks.
        *newest = None;
    }
    let asked = Instant::now();
    let heard = probe(ctx, node).await;
    let goes_on = match heard {
        Probe::Answer(found) => {
            cluster.health.note_probe_time(id, asked.elapsed());
            found >= *newest && (cluster.health.is_trusted(id) || cluster.leader_has_judged(id))
        }
        _ => false,
    };
    if let (Probe::Answer(found), true) = (&heard, goes_on) {
        *newest = *found;
    }
    cluster.health.note(id, &heard, goes_on);
    // Only the leader knows which nodes have work. What this merger knew when it led holds no more.
    cluster.health.note_work(id, false);
    heard
}

/// Notes that answers to searches may not hold any more if a node has another newest task than `shown`, or was never looked at: the
/// leader, or somebody else, has written to it.
fn forget_answers_before(
    ctx: &Context,
    node: &NodeRef,
    (heard, asked): (&Probe, Instant),
    shown: &mut Option<Option<u32>>,
) {
    let Probe::Answer(newest) = heard else { return };
    if *shown != Some(*newest) {
        *shown = Some(*newest);
        ctx.search.upstream.changing().touch_node(node.address);
    }
    ctx.search.remembered.heard.probed(node.address, asked);
}
