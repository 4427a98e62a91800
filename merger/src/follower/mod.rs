//! A merger that follows another one: it keeps up with the state in etcd and with the nodes, so that it can answer reads. Nothing
//! here changes a node or the state; it can't be reached from here.
//!
//! ```text
//! register ─► read the state ─► answer reads ─► look at the journal, apply what is new, tell, renew ─┬─► registration lost: again
//!                                                      ▲        every 50 ms                  │        └─► this merger may lead
//!                                                      └──────────────────────────────────────┘
//! ```
//!
//! [`state`] keeps up with what the leader has stored, [`nodes`] with Envoy's list of nodes and whether they answer.

mod nodes;
mod state;

use std::sync::Arc;
use std::time::Duration;

pub use nodes::{discover, watch};
pub use state::{ChangedKey, follow};

use crate::base::stands_on;
use crate::cluster::NodeStatus;
use crate::keys::Keys;
use crate::leadership::Membership;
use crate::search;
use crate::store::StateReader;

/// What it takes to keep up.
pub struct Context {
    /// What answers reads: its caches follow the leader's changes.
    pub search: Arc<search::Context>,
    /// The cache of API keys.
    pub keys: Arc<Keys>,
    /// The state in etcd.
    pub reader: StateReader,
    /// This merger's registration.
    pub membership: Membership,
    /// How often Envoy is asked for shards and nodes.
    pub discovery_interval: Duration,
    /// How often each node is asked whether it is there.
    pub probe_interval: Duration,
}

stands_on!(Context, search, search::Context);

impl Context {
    /// Whether this merger could lead well: its Envoy knows nodes, and at least one of them answers.
    pub fn reaches_nodes(&self) -> bool {
        let topology = self.cluster.topology();
        let mut nodes = topology.all_nodes();
        nodes.any(|(_, node)| {
            let status = self.cluster.health.status(&node.id);
            matches!(status, NodeStatus::Up | NodeStatus::Slow)
        })
    }

    /// Nodes that are out of sync, and that answer this merger: nobody is to take their place, even if the leader doesn't hear them.
    fn hears(&self) -> Vec<String> {
        let topology = self.cluster.topology();
        let heard = topology.all_nodes().filter(|(_, node)| {
            !self.cluster.in_sync.holds(&node.id) && self.cluster.health.answers(&node.id)
        });
        heard.map(|(_, node)| node.id.to_string()).collect()
    }

    /// Whether it is known of each node whether it answers.
    pub fn has_looked_at_nodes(&self) -> bool {
        let topology = self.cluster.topology();
        let mut nodes = topology.all_nodes().peekable();
        nodes.peek().is_some()
            && nodes.all(|(_, node)| self.cluster.health.status(&node.id) != NodeStatus::Unknown)
    }
}
