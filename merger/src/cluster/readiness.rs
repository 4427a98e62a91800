//! Decides what Envoy is told when it asks whether a node may serve reads.

use super::health::{READS_LEAVE, READS_STAY};
use super::{Cluster, Listener, NodeId, NodeStatus};
use crate::clock::now_utc;

/// The answer to a readiness check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The node may serve reads.
    Ready,
    /// The node may serve reads if no other can: it is indexing or slow. The text says why.
    Degraded(&'static str),
    /// The node may not serve reads; the text says why.
    NotReady(&'static str),
    /// The merger can't tell yet, so Envoy keeps the node as it is.
    Unknown,
}

impl Cluster {
    /// Whether a node may serve reads. Notes that the Envoy at `listener` is told so.
    pub fn readiness(&self, node: &NodeId, listener: Listener) -> Readiness {
        let readiness = self.judge(node);
        match readiness {
            Readiness::Ready | Readiness::Degraded(_) => {
                self.health.record_readiness(node, listener, true)
            }
            Readiness::NotReady(_) => self.health.record_readiness(node, listener, false),
            Readiness::Unknown => {}
        }
        readiness
    }

    /// Whether reads of the shard go nowhere if this replica, which has just left the in-sync set, serves none any more: no Envoy was
    /// told yet that another one does. So it is for a moment after a node was judged for the first time or brought back.
    fn reads_would_end_without(&self, node: &NodeId) -> bool {
        let out_for = self.in_sync.out_for(node);
        let stays = out_for.is_some_and(|out_for| out_for < READS_STAY)
            && matches!(self.health.status(node), NodeStatus::Up | NodeStatus::Slow);
        if !stays {
            return false;
        }
        let topology = self.topology();
        let shard = topology.shard_of(node);
        let nodes = shard.map(|shard| topology.nodes(shard)).unwrap_or_default();
        let mut others = nodes.iter().filter(|other| self.in_sync.holds(&other.id));
        !others.any(|other| self.health.is_ready(&other.id))
    }

    fn applies_what_others_dont(&self, node: &NodeId) -> bool {
        let shard = self.topology().shard_of(node);
        shard.is_some_and(|shard| self.stagger.writes(shard, node))
    }

    /// Whether another replica that may serve reads answers much sooner.
    fn lags_behind(&self, node: &NodeId) -> bool {
        let shard = self.topology().shard_of(node);
        let replicas = shard.map(|shard| self.replicas(shard)).unwrap_or_default();
        let others = replicas
            .iter()
            .map(|replica| &replica.id)
            .filter(|other| *other != node && self.health.status(other) == NodeStatus::Up);
        self.health.lags_behind(node, others)
    }

    pub(super) fn judge(&self, node: &NodeId) -> Readiness {
        let Some(standing) = self.in_sync.sync_state(node) else {
            return Readiness::Unknown;
        };
        if !standing.is_in_sync() {
            return match self.reads_would_end_without(node) {
                true => Readiness::Unknown,
                false => Readiness::NotReady("it is not in sync"),
            };
        }
        let shard = self.topology().shard_of(node);
        if shard.is_some_and(|shard| self.in_doubt.blocks_reads(shard)) {
            return Readiness::NotReady("it lacks a change of indexes");
        }
        match self.health.status(node) {
            NodeStatus::Unknown => Readiness::Unknown,
            NodeStatus::Lost => Readiness::NotReady("its data is lost"),
            NodeStatus::Silent => Readiness::NotReady("it does not answer"),
            NodeStatus::Slow => Readiness::Degraded("it is slow to answer"),
            NodeStatus::Up if self.applies_what_others_dont(node) => {
                Readiness::Degraded("it applies what other replicas don't yet")
            }
            NodeStatus::Up if self.health.is_busy(node) => Readiness::Degraded("it is indexing"),
            NodeStatus::Up if self.leader_spares(node) => {
                Readiness::Degraded("the leader says that it is busy")
            }
            NodeStatus::Up if self.lags_behind(node) => {
                Readiness::Degraded("it answers much later than another replica")
            }
            NodeStatus::Up => Readiness::Ready,
        }
    }
}

impl Cluster {
    /// Whether a replica that is out of sync gets no reads any more. Until then, no write that it lacks may be acknowledged.
    pub fn reads_have_left(&self, node: &NodeId) -> bool {
        let standing = self.in_sync.sync_state(node);
        let long_ago = |since| now_utc() - since >= READS_LEAVE;
        let left = !self.health.is_ready(node)
            || standing.is_none_or(|standing| standing.out_since().is_none_or(long_ago));
        left && self.mergers.all_keep_to(self.in_sync.epoch())
    }
}
