//! Which replica a read goes to.

use std::time::Duration;

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

use super::{Cluster, NodeRef, NodeStatus};
use crate::upstream::Target;

/// Which replicas may answer a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// Any replica that is ready; Envoy chooses.
    #[default]
    Any,
    /// Each shard's primary.
    Primary,
    /// For each listed shard, a replica that has applied what the client wants to see. Other shards: any replica.
    Applied(HashMap<ShardId, Target>),
}

impl ReadFrom {
    /// Whether the read may go by what nodes said about an index before. Not if some replicas haven't applied yet what the client wants
    /// to see: they may have said it a moment ago.
    pub fn goes_by_memory(&self) -> bool {
        !matches!(self, Self::Applied(_))
    }
}

impl Cluster {
    /// The target of a read of a shard.
    pub fn target(&self, shard: ShardId, from: &ReadFrom) -> Target {
        let any = Target::Shard(shard);
        match from {
            ReadFrom::Any => any,
            // A single replica needs no choice, and this way Envoy can retry.
            ReadFrom::Primary if self.topology().nodes(shard).len() < 2 => any,
            ReadFrom::Primary => self
                .primary(shard)
                .map_or(any, |primary| Target::Node(primary.address)),
            ReadFrom::Applied(targets) => targets.get(&shard).cloned().unwrap_or(any),
        }
    }

    /// Whether the shard has several nodes and a replica in sync that answers. Envoy may not send reads to that replica yet.
    pub fn may_take_over(&self, shard: ShardId) -> bool {
        let answers = |node: &NodeRef| {
            matches!(
                self.health.status(&node.id),
                NodeStatus::Up | NodeStatus::Slow
            )
        };
        self.topology().nodes(shard).len() > 1 && self.replicas(shard).iter().any(answers)
    }

    /// After how long without an answer another replica of the shard is asked too; `None` if there is no other.
    pub fn hedge_after(&self, shard: ShardId) -> Option<Duration> {
        let another = self.topology().nodes(shard).len() > 1;
        another.then(|| self.latencies.hedge_after(shard))
    }
}
