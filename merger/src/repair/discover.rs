//! Asks Envoy's admin interface for shards and nodes at intervals.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use crate::cluster::Directory;
use crate::replication::reconcile;

/// How long Envoy's admin interface may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps the topology up to date; never ends. While Envoy doesn't answer, the last topology stays. Before the first topology is
/// used, replicas are compared, because the last merger may have stopped in the middle of a write.
pub async fn discover(ctx: Arc<Context>, directory: Arc<dyn Directory>) {
    let cluster = &ctx.cluster;
    let every = ctx.options.discovery_interval;
    let mut reconciled = false;
    let mut failing = false;
    loop {
        match tokio::time::timeout(TIMEOUT, directory.topology())
            .await
            .unwrap_or_else(|_| Err("no answer in time".into()))
        {
            Ok(topology) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("Envoy's admin interface answers again");
                }
                if !topology.shards().is_empty() && !std::mem::replace(&mut reconciled, true) {
                    reconcile(&ctx, &topology).await;
                }
                if let Err(error) = cluster.set_topology(topology).await {
                    tracing::error!(%error, "the topology changed and can't be stored; the last one stays");
                }
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "Envoy's admin interface gives no list of clusters; the last one stays");
            }
            Err(_) => {}
        }
        let none_yet = cluster.topology().shards().is_empty();
        tokio::time::sleep(if none_yet {
            every.min(Duration::from_millis(100))
        } else {
            every
        })
        .await;
    }
}
