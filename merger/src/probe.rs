//! Asks each node for its newest task, to learn whether it is there and whether its disk is still the same.

use std::time::Duration;

use serde::Deserialize;

use crate::base::Base;
use crate::cluster::{Cluster, NodeId, NodeRef, Probe};
use crate::upstream::{TaskListError, UpstreamError};

/// How long a node may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Calls `begin` once for each node that the topology has or gets; never ends.
pub(crate) async fn for_each_node(cluster: &Cluster, mut begin: impl FnMut(NodeId)) {
    let mut topology = cluster.watch_topology();
    let mut known: hashbrown::HashSet<NodeId> = hashbrown::HashSet::new();
    loop {
        let now = topology.borrow_and_update().clone();
        for (_, node) in now.all_nodes() {
            if known.insert(node.id.clone()) {
                begin(node.id.clone());
            }
        }
        if topology.changed().await.is_err() {
            return;
        }
    }
}

#[derive(Deserialize)]
struct LocalTask {
    uid: u32,
}

/// Asks a node for its newest task.
pub(crate) async fn probe(ctx: &Base, node: &NodeRef) -> Probe {
    let authority = ctx.own_authority();
    let newest =
        ctx.upstream
            .tasks::<LocalTask>(node.address, "limit=1", &authority, PROBE_TIMEOUT);
    match newest.await {
        Ok(tasks) => Probe::Answer(tasks.first().map(|task| task.uid)),
        Err(TaskListError::Upstream(
            UpstreamError::NoEgress { .. } | UpstreamError::NotLeading { .. },
        )) => Probe::ProxyDown,
        Err(TaskListError::Upstream(UpstreamError::Unreachable { detail, .. }))
            if is_connection_failure(&detail) =>
        {
            Probe::ConnectionFailed
        }
        Err(error) => Probe::Invalid(error.to_string()),
    }
}

/// Whether Envoy says that the connection failed or was cut, rather than that its connection pool was full.
fn is_connection_failure(detail: &str) -> bool {
    !detail.contains("overflow")
}
