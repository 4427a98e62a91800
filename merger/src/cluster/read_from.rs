//! Which replica a read goes to.

use std::time::Duration;

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

use super::{Cluster, NodeRef, NodeStatus};
use crate::upstream::Target;

/// Which replicas may answer a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// Any that is ready; Envoy chooses.
    #[default]
    Any,
    /// Each shard's primary.
    Primary,
    /// These, for the shards that are named: they have applied what the client wants to see.
    Applied(HashMap<ShardId, Target>),
}

impl Cluster {
    /// Whom a read of a shard is for.
    pub fn target(&self, shard: ShardId, from: &ReadFrom) -> Target {
        let any = Target::Shard(shard);
        match from {
            ReadFrom::Any => any,
            // A replica that is alone needs no choice, and Envoy's retries are better than none.
            ReadFrom::Primary if self.topology().nodes(shard).len() < 2 => any,
            ReadFrom::Primary => self
                .primary(shard)
                .map_or(any, |primary| Target::Node(primary.address)),
            ReadFrom::Applied(targets) => targets.get(&shard).cloned().unwrap_or(any),
        }
    }

    /// Whether a replica in sync answers that reads may not have come to yet, since the shard has others.
    pub fn may_take_over(&self, shard: ShardId) -> bool {
        let answers = |node: &NodeRef| {
            matches!(
                self.health.status(&node.id),
                NodeStatus::Up | NodeStatus::Slow
            )
        };
        self.topology().nodes(shard).len() > 1 && self.replicas(shard).iter().any(answers)
    }

    /// After how long without an answer another replica of the shard is asked too; `None` where there is no other.
    pub fn hedge_after(&self, shard: ShardId) -> Option<Duration> {
        let another = self.topology().nodes(shard).len() > 1;
        another.then(|| self.latencies.hedge_after(shard))
    }
}
