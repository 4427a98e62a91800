//! The replicas that hold every acknowledged write, durably.
//!
//! ```text
//!   first of its shard ──► InSync ──── missed or failed a write, went back, differs ───► Out
//!                            ▲ │                                                         ▲ │
//!                            │ └──── drain ────► Drained ──── resume ────────────────────┘ │
//!                            └───────────────── resync, verified ──────────────────────────┘
//!   new beside a replica in sync ──► Out
//! ```
//!
//! Invariants: a replica is stored as out before the write that it missed is acknowledged. The last replica of a shard that
//! is in sync stays so, whatever happens to it: nothing else holds its documents. Every change has an epoch of its own and
//! goes through only if no other change came between.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use weft_routing::placement::ShardId;

use super::{ClusterError, NodeId, Topology};
use crate::clock::now_utc;
use crate::store::{Change, Expect, Store, StoreError};

const PREFIX: &str = "replica/";
const EPOCH_KEY: &str = "in-sync-epoch";

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Standing {
    /// Holds every acknowledged write.
    InSync {
        /// The node's newest task when it came in, where that was after a resync: its own tasks are in no record.
        #[serde(default)]
        newest_task: Option<u32>,
    },
    /// Does not, or may not.
    Out {
        /// Why.
        reason: String,
        /// Since when.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
    },
    /// Taken out for maintenance, until somebody resumes it.
    Drained {
        /// Since when.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
    },
}

impl Standing {
    fn out(reason: &str) -> Self {
        Self::Out {
            reason: reason.to_owned(),
            since: now_utc(),
        }
    }

    /// Since when the replica is not in sync, if it isn't.
    pub fn out_since(&self) -> Option<OffsetDateTime> {
        match self {
            Self::InSync { .. } => None,
            Self::Out { since, .. } | Self::Drained { since } => Some(*since),
        }
    }

    /// Whether the replica is in sync.
    pub fn is_in_sync(&self) -> bool {
        matches!(self, Self::InSync { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Replica {
    shard: ShardId,
    #[serde(flatten)]
    standing: Standing,
}

/// What became of the wish to take a replica out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenOut {
    /// It is out now.
    Now,
    /// It was out already.
    Before,
    /// It is the last one in sync, and stays.
    Last,
}

/// Who may answer and who may not.
pub struct InSync {
    store: Arc<dyn Store>,
    state: RwLock<State>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    /// The store's version of the epoch's key.
    version: u64,
    replicas: BTreeMap<NodeId, Replica>,
}

impl InSync {
    pub(super) async fn open(store: Arc<dyn Store>) -> Result<Self, ClusterError> {
        let mut state = State::default();
        if let Some(stored) = store.get(EPOCH_KEY).await? {
            state.version = stored.version;
            state.epoch = serde_json::from_slice(&stored.value)
                .map_err(|_| ClusterError::Corrupt(EPOCH_KEY.to_owned()))?;
        }
        for (key, stored) in store.range(PREFIX).await? {
            let replica = serde_json::from_slice(&stored.value)
                .map_err(|_| ClusterError::Corrupt(key.clone()))?;
            let name = key.strip_prefix(PREFIX).unwrap_or_default().to_owned();
            state.replicas.insert(NodeId::from(name), replica);
        }
        Ok(Self {
            store,
            state: RwLock::new(state),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    /// Whether the node holds every acknowledged write, as far as is known.
    pub fn holds(&self, node: &NodeId) -> bool {
        self.read()
            .replicas
            .get(node)
            .is_some_and(|replica| replica.standing.is_in_sync())
    }

    /// Where the node stands; `None` for one that was never seen.
    pub fn standing(&self, node: &NodeId) -> Option<Standing> {
        let state = self.read();
        state
            .replicas
            .get(node)
            .map(|replica| replica.standing.clone())
    }

    /// The newest task that each replica had when a resync brought it in.
    pub(super) fn newest_tasks(&self) -> Vec<(NodeId, u32)> {
        let state = self.read();
        let newest = |(node, replica): (&NodeId, &Replica)| match replica.standing {
            Standing::InSync {
                newest_task: Some(newest),
            } => Some((node.clone(), newest)),
            _ => None,
        };
        state.replicas.iter().filter_map(newest).collect()
    }

    /// Counts the changes.
    pub fn epoch(&self) -> u64 {
        self.read().epoch
    }

    /// Takes a node out: it missed or failed a write that another replica holds.
    ///
    /// # Errors
    /// The store failed: then the write must not be acknowledged.
    pub async fn take_out(&self, node: &NodeId, reason: &str) -> Result<TakenOut, StoreError> {
        let outcome = self.leave(node, Standing::out(reason)).await?;
        match outcome {
            TakenOut::Now => {
                tracing::warn!(%node, reason, "replica is out of sync: it serves no reads until it has caught up");
            }
            TakenOut::Last => {
                tracing::error!(%node, reason, "the last replica in sync can't be taken out");
            }
            TakenOut::Before => {}
        }
        Ok(outcome)
    }

    /// Takes a node out for maintenance.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn drain(&self, node: &NodeId) -> Result<TakenOut, StoreError> {
        let since = now_utc();
        self.leave(node, Standing::Drained { since }).await
    }

    /// Ends a maintenance: the node is to catch up.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn resume(&self, node: &NodeId) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let drained = matches!(self.standing(node), Some(Standing::Drained { .. }));
        match self.shard(node).filter(|_| drained) {
            Some(shard) => {
                let standing = Standing::out("catching up after maintenance");
                self.commit(vec![(node.clone(), Replica { shard, standing })])
                    .await
            }
            None => Ok(()),
        }
    }

    /// Takes a node in that was proved to hold what its shard's others hold.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn bring_back(
        &self,
        node: &NodeId,
        newest_task: Option<u32>,
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        // Drained meanwhile: it stays where the operator put it.
        let out = matches!(self.standing(node), Some(Standing::Out { .. }));
        match self.shard(node).filter(|_| out) {
            Some(shard) => {
                let standing = Standing::InSync { newest_task };
                self.commit(vec![(node.clone(), Replica { shard, standing })])
                    .await
            }
            None => Ok(()),
        }
    }

    /// Gives every node of a topology a standing. What is new beside a replica in sync is out, and so is who was in sync
    /// and left while another stays: it will miss writes.
    /// Gives the shards that have a new node beside others.
    pub(super) async fn admit(&self, topology: &Topology) -> Result<Vec<ShardId>, StoreError> {
        let _changing = self.changing.lock().await;
        let (mut changes, mut grew) = (Vec::new(), Vec::new());
        for shard in topology.shards() {
            let nodes = topology.nodes(shard);
            let known = self.members(shard);
            for node in nodes {
                let (place, standing) = match self.read().replicas.get(&node.id) {
                    Some(replica) if replica.shard == shard => continue,
                    Some(_) => (shard, Standing::out("it belonged to another shard")),
                    None if known.is_empty() => (shard, Standing::InSync { newest_task: None }),
                    None => {
                        grew.push(shard);
                        (shard, Standing::out("it is new"))
                    }
                };
                changes.push((
                    node.id.clone(),
                    Replica {
                        shard: place,
                        standing,
                    },
                ));
            }
            let here = |id: &NodeId| nodes.iter().any(|node| node.id == *id);
            let stays = known.iter().any(|(id, in_sync)| *in_sync && here(id));
            for (id, _) in known
                .iter()
                .filter(|(id, in_sync)| *in_sync && stays && !here(id))
            {
                let standing = Standing::out("it left the cluster's configuration");
                changes.push((id.clone(), Replica { shard, standing }));
            }
        }
        if !changes.is_empty() {
            self.commit(changes).await?;
        }
        Ok(grew)
    }

    async fn leave(&self, node: &NodeId, standing: Standing) -> Result<TakenOut, StoreError> {
        let _changing = self.changing.lock().await;
        let Some(shard) = self.shard(node) else {
            return Ok(TakenOut::Before);
        };
        let drains = matches!(standing, Standing::Drained { .. });
        if !self.holds(node) && !drains {
            return Ok(TakenOut::Before);
        }
        let another = self
            .members(shard)
            .iter()
            .any(|(id, in_sync)| *in_sync && id != node);
        if !another {
            return Ok(TakenOut::Last);
        }
        self.commit(vec![(node.clone(), Replica { shard, standing })])
            .await?;
        Ok(TakenOut::Now)
    }

    /// The nodes ever seen in a shard, and whether they are in sync.
    fn members(&self, shard: ShardId) -> Vec<(NodeId, bool)> {
        let state = self.read();
        let of_shard = state
            .replicas
            .iter()
            .filter(|(_, replica)| replica.shard == shard);
        of_shard
            .map(|(id, replica)| (id.clone(), replica.standing.is_in_sync()))
            .collect()
    }

    fn shard(&self, node: &NodeId) -> Option<ShardId> {
        self.read().replicas.get(node).map(|replica| replica.shard)
    }

    /// Stores first, shows after. The caller holds `changing`.
    async fn commit(&self, changes: Vec<(NodeId, Replica)>) -> Result<(), StoreError> {
        let (epoch, version) = {
            let state = self.read();
            (state.epoch + 1, state.version)
        };
        let expect = if version == 0 {
            Expect::Absent
        } else {
            Expect::Version(version)
        };
        let mut batch = vec![Change::put_if(
            EPOCH_KEY,
            epoch.to_string().into_bytes(),
            expect,
        )];
        for (node, replica) in &changes {
            let value = serde_json::to_vec(replica).unwrap_or_default();
            batch.push(Change::put(format!("{PREFIX}{node}"), value));
        }
        self.store.commit(batch).await?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.epoch = epoch;
        state.version = version + 1;
        state.replicas.extend(changes);
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
