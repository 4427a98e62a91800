//! What the leader knows of nodes and doesn't store, as far as followers must know it to answer reads: in the state, under one key.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLockReadGuard};

use serde::{Deserialize, Serialize};
use weft_routing::placement::ShardId;

use super::{Cluster, NodeId, NodeStatus, ReadPolicy, Readiness};

/// The key under which it is stored.
pub(crate) const VIEW_KEY: &str = "view";

/// In whose name a follower refuses reads of shards.
const LEADER: &str = "the leader";

/// The leader's view of nodes and shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LeaderView {
    /// Nodes that lost data which no other replica holds.
    lost: BTreeSet<NodeId>,
    /// Nodes that the leader has not judged yet.
    unjudged: BTreeSet<NodeId>,
    /// Nodes that get reads only if no other replica can answer: they index, or apply what others don't yet.
    degraded: BTreeSet<NodeId>,
    /// Shards that refuse reads: they lack a change of indexes that others have.
    refused: BTreeSet<ShardId>,
}

impl Cluster {
    /// What followers must know, if this merger leads.
    pub(crate) fn leader_view(&self) -> LeaderView {
        let mut view = LeaderView::default();
        for (_, node) in self.topology().all_nodes() {
            let id = &node.id;
            let set = match self.health.status(id) {
                NodeStatus::Lost => &mut view.lost,
                NodeStatus::Unknown => &mut view.unjudged,
                _ if matches!(self.judge(id), Readiness::Degraded(_)) => &mut view.degraded,
                _ => continue,
            };
            set.insert(id.clone());
        }
        let shards = self.topology().shards().into_iter();
        let refused = shards.filter(|shard| self.in_doubt.blocks_reads(*shard));
        view.refused = refused.collect();
        view
    }

    /// Follows the leader's view.
    pub(super) fn adopt(&self, view: LeaderView) {
        let before = self.followed().clone();
        for node in before.lost.difference(&view.lost) {
            self.health.begins_anew(node);
        }
        for node in &view.lost {
            self.health.mark_data_lost(node);
        }
        match view.refused.is_empty() {
            true => self.in_doubt.release(LEADER),
            false => self
                .in_doubt
                .hold(LEADER, view.refused.clone(), ReadPolicy::Refuse),
        }
        let mut followed = self
            .followed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *followed = view;
    }

    /// Whether the leader has judged the node.
    pub(crate) fn leader_has_judged(&self, node: &NodeId) -> bool {
        !self.followed().unjudged.contains(node)
    }

    /// Whether the leader calls the node degraded.
    pub(super) fn leader_spares(&self, node: &NodeId) -> bool {
        self.followed().degraded.contains(node)
    }

    fn followed(&self) -> RwLockReadGuard<'_, LeaderView> {
        self.followed.read().unwrap_or_else(PoisonError::into_inner)
    }
}
