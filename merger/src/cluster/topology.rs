//! Shards and their nodes, as Envoy's `/clusters?format=json` lists them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use weft_routing::ShardNames;
use weft_routing::placement::ShardId;

use super::{NodeId, NodeRef};

/// The cluster of nodes that belong to no shard.
const SPARE: &str = "spare";

/// All shards with their nodes, each shard's in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    shards: BTreeMap<ShardId, Vec<NodeRef>>,
    spares: Vec<Spare>,
}

/// A node that belongs to no shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spare {
    /// The node.
    pub node: NodeRef,
    /// Envoy, which asks it now and then, gets answers.
    pub ready: bool,
}

#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    cluster_statuses: Vec<ClusterStatus>,
}

#[derive(Deserialize)]
struct ClusterStatus {
    name: String,
    #[serde(default)]
    host_statuses: Vec<HostStatus>,
}

#[derive(Deserialize)]
struct HostStatus {
    address: Address,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    health_status: HealthStatus,
}

/// What is false is left out.
#[derive(Default, Deserialize)]
#[serde(default)]
struct HealthStatus {
    failed_active_health_check: bool,
    pending_active_hc: bool,
}

#[derive(Deserialize)]
struct Address {
    socket_address: Option<SocketAddress>,
}

#[derive(Deserialize)]
struct SocketAddress {
    address: IpAddr,
    port_value: u16,
}

impl Topology {
    /// Reads Envoy's list; clusters of these names are shards.
    ///
    /// # Errors
    /// The JSON is not what Envoy prints.
    pub fn from_envoy(json: &[u8], names: &ShardNames) -> Result<Self, serde_json::Error> {
        let clusters: Clusters = serde_json::from_slice(json)?;
        let mut shards = BTreeMap::new();
        let mut spares = Vec::new();
        for cluster in clusters.cluster_statuses {
            if cluster.name == SPARE {
                spares = cluster
                    .host_statuses
                    .into_iter()
                    .filter_map(spare)
                    .collect();
                spares.sort_by(|a: &Spare, b| a.node.id.cmp(&b.node.id));
                continue;
            }
            let Some(shard) = names.shard(&cluster.name) else {
                continue;
            };
            let mut nodes: Vec<NodeRef> =
                cluster.host_statuses.into_iter().filter_map(node).collect();
            nodes.sort_by(|a, b| a.id.cmp(&b.id).then(a.address.cmp(&b.address)));
            nodes.dedup_by(|a, b| a.id == b.id);
            shards.insert(shard, nodes);
        }
        Ok(Self { shards, spares })
    }

    /// All shards, in order.
    pub fn shards(&self) -> Vec<ShardId> {
        self.shards.keys().copied().collect()
    }

    /// The nodes of a shard, in the order of their names.
    pub fn nodes(&self, shard: ShardId) -> &[NodeRef] {
        self.shards.get(&shard).map_or(&[], Vec::as_slice)
    }

    /// All nodes with their shards.
    pub fn all_nodes(&self) -> impl Iterator<Item = (ShardId, &NodeRef)> {
        self.shards
            .iter()
            .flat_map(|(shard, nodes)| nodes.iter().map(|node| (*shard, node)))
    }

    /// A node by its name.
    pub fn find(&self, id: &NodeId) -> Option<&NodeRef> {
        self.shards.values().flatten().find(|node| node.id == *id)
    }

    /// The shard that a node belongs to.
    pub fn shard_of(&self, id: &NodeId) -> Option<ShardId> {
        self.all_nodes()
            .find(|(_, node)| node.id == *id)
            .map(|(shard, _)| shard)
    }

    /// The nodes that belong to no shard, or did so until a moment ago, in the order of their names.
    pub fn spares(&self) -> &[Spare] {
        &self.spares
    }

    /// Those that answer.
    pub(crate) fn ready_spares(&self) -> impl Iterator<Item = &NodeRef> {
        let ready = self.spares.iter().filter(|spare| spare.ready);
        ready.map(|spare| &spare.node)
    }

    pub(crate) fn single_replica_shards(&self) -> BTreeSet<ShardId> {
        self.shards
            .iter()
            .filter(|(_, nodes)| nodes.len() == 1)
            .map(|(shard, _)| *shard)
            .collect()
    }

    pub(crate) fn summary(&self) -> Vec<String> {
        self.shards
            .iter()
            .map(|(shard, nodes)| {
                let names: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
                format!("shard-{}: {}", shard.0, names.join(", "))
            })
            .chain(self.spares.iter().map(|spare| {
                let state = if spare.ready { "" } else { " (doesn't answer)" };
                format!("{SPARE}: {}{state}", spare.node.id)
            }))
            .collect()
    }
}

fn spare(host: HostStatus) -> Option<Spare> {
    let health = &host.health_status;
    let ready = !health.failed_active_health_check && !health.pending_active_hc;
    let node = node(host)?;
    Some(Spare { node, ready })
}

fn node(host: HostStatus) -> Option<NodeRef> {
    let socket = host.address.socket_address?;
    let address = SocketAddr::new(socket.address, socket.port_value);
    let name = if host.hostname.is_empty() {
        address.to_string()
    } else {
        host.hostname
    };
    Some(NodeRef {
        id: NodeId::from(name),
        address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_the_clusters_of_that_name_and_nodes_their_hosts() {
        let json = br#"{"cluster_statuses": [
            {"name": "merger", "host_statuses": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}]},
            {"name": "shard-x"},
            {"name": "shard-1", "added_via_api": false},
            {"name": "shard-0", "host_statuses": [
                {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 7712}}, "hostname": "b", "weight": 1},
                {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 7711}}, "hostname": "a"},
                {"address": {"socket_address": {"address": "::1", "port_value": 7}}},
                {"address": {"pipe": {"path": "/x"}}}]}]}"#;
        let topology = Topology::from_envoy(json, &ShardNames::default()).unwrap();
        assert_eq!(topology.shards(), [ShardId(0), ShardId(1)]);
        let names: Vec<&str> = topology
            .nodes(ShardId(0))
            .iter()
            .map(|node| node.id.as_str())
            .collect();
        assert_eq!(names, ["[::1]:7", "a", "b"]);
        assert!(topology.nodes(ShardId(1)).is_empty());
    }

    #[test]
    fn spares_belong_to_no_shard_and_count_if_they_answer() {
        let json = br#"{"cluster_statuses": [{"name": "shard-0"}, {"name": "spare", "host_statuses": [
            {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 2}}, "hostname": "t", "health_status": {"failed_active_health_check": true}},
            {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 3}}, "hostname": "u", "health_status": {"pending_active_hc": true}},
            {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}, "hostname": "s", "health_status": {"eds_health_status": "HEALTHY"}}]}]}"#;
        let topology = Topology::from_envoy(json, &ShardNames::default()).unwrap();
        let names = |nodes: Vec<&NodeRef>| {
            nodes
                .iter()
                .map(|node| node.id.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(topology.ready_spares().collect()), ["s"]);
        assert_eq!(
            names(topology.spares().iter().map(|spare| &spare.node).collect()),
            ["s", "t", "u"]
        );
        assert_eq!(topology.all_nodes().count(), 0);
        assert_eq!(topology.find(&NodeId::from("s".to_owned())), None);
    }
}
