//! Which program has which port: all ports are counted up from one base port, as in `weft config envoy --port`.

use serde::{Deserialize, Serialize};

use crate::HarnessError;
use crate::ports::is_free;

/// The distance of the first node's port from the base port.
const NODE_PORTS: u32 = 10;

/// The ports of a cluster on the loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    port: u16,
    shards: u16,
    replicas: u16,
}

impl Layout {
    /// A layout, if all of its ports exist.
    pub fn new(port: u16, shards: u16, replicas: u16) -> Result<Self, HarnessError> {
        let layout = Self {
            port,
            shards,
            replicas,
        };
        if port == 0 || u32::from(port) + layout.width() > 65536 {
            return Err(HarnessError::PortRange {
                port,
                needed: layout.width(),
                shards,
                replicas,
            });
        }
        Ok(layout)
    }

    /// Number of shards.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Nodes in each shard.
    pub fn replicas(&self) -> u16 {
        self.replicas
    }

    /// The base port, for clients.
    pub fn edge(&self) -> u16 {
        self.port
    }

    /// The port of Envoy's admin interface.
    pub fn admin(&self) -> u16 {
        self.port + 1
    }

    /// The port at which the merger reaches the nodes.
    pub fn egress(&self) -> u16 {
        self.port + 2
    }

    /// The merger's port.
    pub fn merger(&self) -> u16 {
        self.port + 3
    }

    /// A node's port.
    pub fn node(&self, shard: u16, replica: u16) -> u16 {
        // This can't overflow: `new` has checked the last port.
        self.port + 10 + shard * self.replicas + replica
    }

    /// All nodes as (shard, replica), in the order of their ports.
    pub fn nodes(&self) -> impl Iterator<Item = (u16, u16)> + use<> {
        let replicas = self.replicas;
        (0..self.shards).flat_map(move |shard| (0..replicas).map(move |replica| (shard, replica)))
    }

    /// The name by which Envoy and the merger know the node.
    pub fn node_name(shard: u16, replica: u16) -> String {
        format!("shard-{shard}-node-{replica}")
    }

    /// Every port, with the name of the program that listens on it.
    pub fn ports(&self) -> Vec<(u16, String)> {
        let own = [
            (self.edge(), "the edge, where clients arrive"),
            (self.admin(), "Envoy's admin interface"),
            (self.egress(), "Envoy's egress listener"),
            (self.merger(), "the merger"),
        ];
        own.into_iter()
            .map(|(port, name)| (port, name.to_owned()))
            .chain(self.nodes().map(|(shard, replica)| {
                (self.node(shard, replica), Self::node_name(shard, replica))
            }))
            .collect()
    }

    /// How many ports the layout spans.
    pub fn width(&self) -> u32 {
        NODE_PORTS + u32::from(self.shards) * u32::from(self.replicas)
    }

    /// Fails if a port is taken, and says which.
    pub fn check_free(&self) -> Result<(), HarnessError> {
        for (port, purpose) in self.ports() {
            if !is_free(port) {
                return Err(HarnessError::PortTaken { port, purpose });
            }
        }
        Ok(())
    }
}
