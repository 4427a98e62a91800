//! Which program has which port: all ports are counted up from one base port, as in `weft config envoy --port`.
//!
//! With several mergers, the i-th pair of Envoy and merger has a block of ports of its own, 100 × i above the base port, and the
//! i-th member of etcd has two ports in the same block. Nodes are shared: their ports are in the first block.

use serde::{Deserialize, Serialize};

use crate::HarnessError;
use crate::ports::is_free;

/// The distance of the first node's port from the base port.
const NODE_PORTS: u32 = 10;
/// The distance between the blocks of two pairs.
const BLOCK: u16 = 100;
/// The distance of the ports of a member of etcd from the start of its block: for clients, and for other members.
const ETCD_PORTS: [u16; 2] = [5, 6];

/// The ports of a cluster on the loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    port: u16,
    shards: u16,
    replicas: u16,
    #[serde(default = "one")]
    mergers: u16,
    #[serde(default)]
    etcd: u16,
}

fn one() -> u16 {
    1
}

impl Layout {
    /// A layout with one merger and no etcd, if all of its ports exist.
    pub fn new(port: u16, shards: u16, replicas: u16) -> Result<Self, HarnessError> {
        let layout = Self {
            port,
            shards,
            replicas,
            mergers: 1,
            etcd: 0,
        };
        layout.check()
    }

    /// The same cluster with this many pairs of Envoy and merger, and this many members of etcd.
    pub fn with_mergers(self, mergers: u16, etcd: u16) -> Result<Self, HarnessError> {
        let layout = Self {
            mergers: mergers.max(1),
            etcd,
            ..self
        };
        layout.check()
    }

    /// The same cluster with one shard more.
    pub fn with_another_shard(self) -> Result<Self, HarnessError> {
        self.with_shards(self.shards + 1)
    }

    /// The same cluster with this many shards.
    pub fn with_shards(self, shards: u16) -> Result<Self, HarnessError> {
        let layout = Self { shards, ..self };
        layout.check()
    }

    fn check(self) -> Result<Self, HarnessError> {
        let nodes = u32::from(self.shards) * u32::from(self.replicas);
        if self.blocks() > 1 && NODE_PORTS + nodes > u32::from(BLOCK) {
            return Err(HarnessError::TooManyNodes {
                nodes,
                most: u32::from(BLOCK) - NODE_PORTS,
            });
        }
        if self.port == 0 || u32::from(self.port) + self.width() > 65536 {
            return Err(HarnessError::PortRange {
                port: self.port,
                needed: self.width(),
                shards: self.shards,
                replicas: self.replicas,
            });
        }
        Ok(self)
    }

    /// Number of shards.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Nodes in each shard.
    pub fn replicas(&self) -> u16 {
        self.replicas
    }

    /// Pairs of Envoy and merger.
    pub fn mergers(&self) -> u16 {
        self.mergers
    }

    /// Members of etcd.
    pub fn etcd_members(&self) -> u16 {
        self.etcd
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

    /// The ports of one pair of Envoy and merger, as those of the only pair of a cluster.
    pub fn pair(&self, pair: u16) -> Self {
        // This can't overflow: `check` has checked the last port.
        Self {
            port: self.port + BLOCK * pair,
            mergers: 1,
            etcd: 0,
            ..*self
        }
    }

    /// The ports of a member of etcd: for clients, and for other members.
    pub fn etcd(&self, member: u16) -> (u16, u16) {
        let [clients, members] = ETCD_PORTS;
        let block = self.port + BLOCK * member;
        (block + clients, block + members)
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
        let pairs = (0..self.mergers).flat_map(|pair| {
            let own = self.pair(pair);
            [
                (own.edge(), "the edge, where clients arrive".to_owned()),
                (own.admin(), "Envoy's admin interface".to_owned()),
                (own.egress(), "Envoy's egress listener".to_owned()),
                (own.merger(), "the merger".to_owned()),
            ]
        });
        let etcd = (0..self.etcd).flat_map(|member| {
            let (clients, members) = self.etcd(member);
            [
                (clients, format!("{}, for clients", self.etcd_name(member))),
                (members, format!("{}, for members", self.etcd_name(member))),
            ]
        });
        let nodes = self
            .nodes()
            .map(|(shard, replica)| (self.node(shard, replica), Self::node_name(shard, replica)));
        pairs.chain(etcd).chain(nodes).collect()
    }

    /// The name of a merger's process.
    pub fn merger_name(&self, pair: u16) -> String {
        numbered("merger", pair, self.mergers)
    }

    /// The name of an Envoy's process.
    pub fn envoy_name(&self, pair: u16) -> String {
        numbered("envoy", pair, self.mergers)
    }

    /// The name of the process of a member of etcd.
    pub fn etcd_name(&self, member: u16) -> String {
        numbered("etcd", member, self.etcd)
    }

    fn blocks(&self) -> u16 {
        self.mergers.max(self.etcd)
    }

    /// How many ports the layout spans.
    pub fn width(&self) -> u32 {
        // The last block may hold all of its kinds of ports, whether they are used or not.
        u32::from(self.blocks() - 1) * u32::from(BLOCK)
            + NODE_PORTS
            + u32::from(self.shards) * u32::from(self.replicas)
    }

    /// Fails if a node's port is taken.
    pub fn check_node_free(&self, shard: u16, replica: u16) -> Result<(), HarnessError> {
        let port = self.node(shard, replica);
        match is_free(port) {
            true => Ok(()),
            false => Err(HarnessError::PortTaken {
                port,
                purpose: Self::node_name(shard, replica),
            }),
        }
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

/// The plain name if there is only one.
fn numbered(name: &str, number: u16, count: u16) -> String {
    if count > 1 {
        format!("{name}-{number}")
    } else {
        name.to_owned()
    }
}
