//! Spare nodes, and the places that they have taken, as operators see them.

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::cluster::Cluster;

/// The spare nodes that Envoy lists.
pub(super) fn list(cluster: &Cluster) -> Vec<Value> {
    let topology = cluster.topology();
    let spares = topology.spares().iter();
    let spares = spares.filter(|spare| topology.find(&spare.node.id).is_none());
    spares
        .map(|spare| json!({"id": spare.node.id, "address": spare.node.address, "ready": spare.ready}))
        .collect()
}

/// Which spares stand in whose place.
pub(super) fn replacements(cluster: &Cluster) -> Vec<Value> {
    let all = cluster.replacements.all();
    all.iter()
        .map(|one| {
            json!({
                "shard": one.shard,
                "out": one.names.last(),
                "in": one.spare,
                "since": one.since.format(&Rfc3339).ok(),
                "state": if one.taking { "taking" } else { "done" },
            })
        })
        .collect()
}
