//! What is in memory of the in-sync set.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Replica;
use crate::cluster::NodeId;

#[derive(Default)]
pub(super) struct State {
    pub(super) epoch: u64,
    /// The store's version of the epoch's key.
    pub(super) version: u64,
    pub(super) replicas: BTreeMap<NodeId, Replica>,
    /// When replicas left the set, as far as this process has seen it.
    left: BTreeMap<NodeId, Instant>,
}

impl State {
    /// Notes how a replica stands.
    pub(super) fn put(&mut self, node: NodeId, replica: Replica) {
        let is_in = replica.standing.is_in_sync();
        let before = self.replicas.insert(node.clone(), replica);
        match before {
            Some(before) if before.standing.is_in_sync() && !is_in => {
                self.left.insert(node, Instant::now());
            }
            _ if is_in => drop(self.left.remove(&node)),
            _ => {}
        }
    }

    /// Forgets a replica.
    pub(super) fn remove(&mut self, node: &NodeId) {
        self.replicas.remove(node);
        self.left.remove(node);
    }

    /// How long ago the node left the set, as far as this process has seen it.
    pub(super) fn out_for(&self, node: &NodeId) -> Option<Duration> {
        self.left.get(node).map(Instant::elapsed)
    }
}
