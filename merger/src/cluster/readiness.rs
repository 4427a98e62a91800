//! What Envoy is told when it asks whether a node may serve reads.

use super::{Cluster, Life, NodeId};

/// The answer to a readiness check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It may serve reads.
    Ready,
    /// It may not.
    NotReady(&'static str),
    /// The merger can't tell yet: Envoy keeps what it believes.
    Unknown,
}

impl Cluster {
    /// Whether a node may serve reads, as Envoy shall be told. What is told is kept in mind: a replica steps back for a
    /// better one only where Envoy has long been told to use that one, so that no shard is ever without.
    pub fn readiness(&self, node: &NodeId) -> Readiness {
        let readiness = self.judge(node);
        match readiness {
            Readiness::Ready => self.pulse.told(node, true),
            Readiness::NotReady(_) => self.pulse.told(node, false),
            Readiness::Unknown => {}
        }
        readiness
    }

    fn judge(&self, node: &NodeId) -> Readiness {
        let Some(standing) = self.in_sync.standing(node) else {
            return Readiness::Unknown;
        };
        if !standing.is_in_sync() {
            return Readiness::NotReady("it is not in sync");
        }
        match self.pulse.life(node) {
            Life::Unknown => Readiness::Unknown,
            Life::Lost => Readiness::NotReady("its data is lost"),
            Life::Silent => Readiness::NotReady("it does not answer"),
            Life::Slow if self.relied_on(node).next().is_some() => {
                Readiness::NotReady("it is slow to answer")
            }
            Life::Up if self.steps_back(node) => Readiness::NotReady("it is indexing"),
            Life::Up | Life::Slow => Readiness::Ready,
        }
    }

    /// Whether the node is indexing while another replica, on which reads can rely, is not.
    fn steps_back(&self, node: &NodeId) -> bool {
        self.pulse.is_busy(node)
            && self
                .relied_on(node)
                .any(|other| !self.pulse.is_busy(&other))
    }

    /// The other replicas of the node's shard that reads can rely on.
    fn relied_on<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = NodeId> + 'a {
        let shard = self.topology().shard_of(node);
        let replicas = shard.map(|shard| self.replicas(shard)).unwrap_or_default();
        replicas
            .into_iter()
            .map(|other| other.id)
            .filter(move |other| other != node && self.pulse.is_relied_on(other))
    }
}
