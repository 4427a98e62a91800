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

use super::marks::{Known, Marks, NewestTask};
use super::{ClusterError, NodeId, Topology};
use crate::clock::now_utc;
use crate::store::{Change, Expect, Store, StoreError};

const PREFIX: &str = "replica/";
const EPOCH_KEY: &str = "in-sync-epoch";

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum SyncState {
    /// Holds every acknowledged write.
    InSync {
        /// The node's newest task when a resync brought it in, as stores of older mergers have it. Marks tell it now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
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

impl SyncState {
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
    /// Counts how often the node began anew: after a resync, or because a loss was accepted.
    #[serde(default)]
    incarnation: u32,
    /// It was admitted by a merger that knows marks, and has begun with what it had.
    #[serde(default)]
    has_marks: bool,
    #[serde(flatten)]
    standing: SyncState,
}

/// What became of the wish to take a replica out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is out now.
    Removed,
    /// It was out already.
    AlreadyOut,
    /// It is the last one in sync, and stays.
    RefusedLast,
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
    pub(crate) async fn open(store: Arc<dyn Store>) -> Result<Self, ClusterError> {
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
    pub fn sync_state(&self, node: &NodeId) -> Option<SyncState> {
        let state = self.read();
        state
            .replicas
            .get(node)
            .map(|replica| replica.standing.clone())
    }

    /// All replicas, as far as their marks need it.
    pub(crate) fn known(&self) -> Vec<Known> {
        let state = self.read();
        let known = |(node, replica): (&NodeId, &Replica)| Known {
            node: node.clone(),
            incarnation: replica.incarnation,
            first_contact: replica.has_marks,
            newest_after_resync: match replica.standing {
                SyncState::InSync { newest_task } => newest_task,
                SyncState::Out { .. } | SyncState::Drained { .. } => None,
            },
        };
        state.replicas.iter().map(known).collect()
    }

    /// Counts the changes.
    pub fn epoch(&self) -> u64 {
        self.read().epoch
    }

    /// Takes a node out: it missed or failed a write that another replica holds.
    ///
    /// # Errors
    /// The store failed: then the write must not be acknowledged.
    pub async fn remove_replica(&self, node: &NodeId, reason: &str) -> Result<Removal, StoreError> {
        let outcome = self.leave(node, SyncState::out(reason)).await?;
        match outcome {
            Removal::Removed => {
                tracing::warn!(%node, reason, "replica is out of sync: it serves no reads until it has caught up");
            }
            Removal::RefusedLast => {
                tracing::error!(%node, reason, "the last replica in sync can't be taken out");
            }
            Removal::AlreadyOut => {}
        }
        Ok(outcome)
    }

    /// Takes a node out for maintenance.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn drain(&self, node: &NodeId) -> Result<Removal, StoreError> {
        let since = now_utc();
        self.leave(node, SyncState::Drained { since }).await
    }

    /// Ends a maintenance: the node is to catch up.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn resume(&self, node: &NodeId) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let drained = matches!(self.sync_state(node), Some(SyncState::Drained { .. }));
        match self.replica(node).filter(|_| drained) {
            Some(replica) => {
                let standing = SyncState::out("catching up after maintenance");
                let replica = Replica {
                    standing,
                    ..replica
                };
                self.commit(vec![(node.clone(), replica)], Vec::new()).await
            }
            None => Ok(()),
        }
    }

    /// Takes a node in that was proved to hold what its shard's others hold, in a new incarnation with this as its newest task.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn bring_back(
        &self,
        node: &NodeId,
        newest_task: Option<NewestTask>,
        marks: &Marks,
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        // Drained meanwhile: it stays where the operator put it.
        let out = matches!(self.sync_state(node), Some(SyncState::Out { .. }));
        match self.replica(node).filter(|_| out) {
            Some(replica) => {
                self.begin_anew(node, replica, newest_task, marks, Vec::new())
                    .await
            }
            None => Ok(()),
        }
    }

    /// Lets a replica of a shard that has lost all others, or its own disk, begin anew with what it has: an operator accepts that. The
    /// others are out, and are brought back from it.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn accept_loss(
        &self,
        node: &NodeId,
        newest_task: Option<NewestTask>,
        marks: &Marks,
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let Some(replica) = self.replica(node) else {
            return Ok(());
        };
        let others = self.members(replica.shard).into_iter();
        let others = others.filter(|(id, in_sync)| *in_sync && id != node);
        let reason = format!("its data was lost, and an operator chose {node} as the model");
        let out = others.filter_map(|(id, _)| {
            let standing = SyncState::out(&reason);
            let replica = Replica {
                standing,
                ..self.replica(&id)?
            };
            Some((id, replica))
        });
        let out = out.collect();
        self.begin_anew(node, replica, newest_task, marks, out)
            .await
    }

    /// The replicas of a shard that are in sync, lost or not.
    pub(crate) fn members_in_sync(&self, shard: ShardId) -> Vec<NodeId> {
        let members = self.members(shard).into_iter();
        members
            .filter_map(|(id, in_sync)| in_sync.then_some(id))
            .collect()
    }

    /// Beside it, `others` change. The caller holds `changing`.
    async fn begin_anew(
        &self,
        node: &NodeId,
        replica: Replica,
        newest_task: Option<NewestTask>,
        marks: &Marks,
        mut others: Vec<(NodeId, Replica)>,
    ) -> Result<(), StoreError> {
        let incarnation = replica.incarnation.saturating_add(1);
        let replica = Replica {
            shard: replica.shard,
            incarnation,
            has_marks: true,
            standing: SyncState::InSync { newest_task: None },
        };
        let mark = Marks::change_for(node, incarnation, newest_task.clone());
        others.push((node.clone(), replica));
        self.commit(others, vec![mark]).await?;
        marks.begin(node, incarnation, newest_task);
        Ok(())
    }

    /// Gives every node of a topology a standing. What is new beside a replica in sync is out, and so is a node that was in sync
    /// and left while another stays: it will miss writes.
    pub(crate) async fn admit(&self, topology: &Topology) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let mut changes = Vec::new();
        for shard in topology.shards() {
            let nodes = topology.nodes(shard);
            let known = self.members(shard);
            for node in nodes {
                let (incarnation, standing) = match self.replica(&node.id) {
                    Some(replica) if replica.shard == shard => continue,
                    Some(replica) => (
                        replica.incarnation,
                        SyncState::out("it belonged to another shard"),
                    ),
                    None if known.is_empty() => (0, SyncState::InSync { newest_task: None }),
                    None => (0, SyncState::out("it is new")),
                };
                let replica = Replica {
                    shard,
                    incarnation,
                    has_marks: true,
                    standing,
                };
                changes.push((node.id.clone(), replica));
            }
            let here = |id: &NodeId| nodes.iter().any(|node| node.id == *id);
            let stays = known.iter().any(|(id, in_sync)| *in_sync && here(id));
            for (id, _) in known
                .iter()
                .filter(|(id, in_sync)| *in_sync && stays && !here(id))
            {
                let Some(replica) = self.replica(id) else {
                    continue;
                };
                let standing = SyncState::out("it left the cluster's configuration");
                let replica = Replica {
                    standing,
                    ..replica
                };
                changes.push((id.clone(), replica));
            }
        }
        if !changes.is_empty() {
            self.commit(changes, Vec::new()).await?;
        }
        Ok(())
    }

    async fn leave(&self, node: &NodeId, standing: SyncState) -> Result<Removal, StoreError> {
        let _changing = self.changing.lock().await;
        let Some(replica) = self.replica(node) else {
            return Ok(Removal::AlreadyOut);
        };
        let drains = matches!(standing, SyncState::Drained { .. });
        if !self.holds(node) && !drains {
            return Ok(Removal::AlreadyOut);
        }
        let another = self
            .members(replica.shard)
            .iter()
            .any(|(id, in_sync)| *in_sync && id != node);
        if !another {
            return Ok(Removal::RefusedLast);
        }
        let replica = Replica {
            standing,
            ..replica
        };
        self.commit(vec![(node.clone(), replica)], Vec::new())
            .await?;
        Ok(Removal::Removed)
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

    fn replica(&self, node: &NodeId) -> Option<Replica> {
        self.read().replicas.get(node).cloned()
    }

    /// Stores first, shows after; `extra` is stored with it. The caller holds `changing`.
    async fn commit(
        &self,
        changes: Vec<(NodeId, Replica)>,
        extra: Vec<Change>,
    ) -> Result<(), StoreError> {
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
        batch.extend(extra);
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
