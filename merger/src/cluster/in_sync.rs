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
//! Invariants: a replica is stored as out before the write that it missed is acknowledged. The last replica in sync of a shard
//! stays in sync, whatever happens to it, because no other replica holds its documents. Every change has an epoch of its own, and
//! is committed only if no other change came in between.

mod state;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use weft_routing::placement::ShardId;

use self::state::State;
use super::marks::{Known, Marks, NewestTask};
use super::{Changes, ClusterError, NodeId, Topology};
use crate::clock::now_utc;
use crate::store::{Change, Expect, Store, StoreError};

pub(super) const PREFIX: &str = "replica/";
pub(super) const EPOCH_KEY: &str = "in-sync-epoch";

/// Whether a replica holds every acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum SyncState {
    /// Holds every acknowledged write.
    InSync {
        /// The node's newest task when a resync brought it back, as older mergers stored it. Now the mark holds it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        newest_task: Option<u32>,
    },
    /// Lacks acknowledged writes, or may lack some.
    Out {
        /// Why the replica is out.
        reason: String,
        /// The time since which this has been so.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
    },
    /// Removed for maintenance, until an operator resumes it.
    Drained {
        /// The time since which this has been so.
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

    /// Since when the replica has been out of sync; `None` if it is in sync.
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
    /// How often the node began a new incarnation: after a resync, or because an operator accepted a loss.
    #[serde(default)]
    incarnation: u32,
    /// The node was admitted, or began a new incarnation, under a merger that knows marks.
    #[serde(default)]
    has_marks: bool,
    #[serde(flatten)]
    standing: SyncState,
}

/// The outcome of removing a replica from the in-sync set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The replica is out now.
    Removed,
    /// The replica was out already, or was never seen.
    AlreadyOut,
    /// The replica is the last one in sync, and stays in sync.
    RefusedLast,
}

/// The sync state of every replica, in memory and in the store.
pub struct InSync {
    store: Arc<dyn Store>,
    state: RwLock<State>,
    /// Lets only one change run at a time.
    changing: tokio::sync::Mutex<()>,
    /// Tells of changes of the in-sync set.
    pub(crate) changes: Changes,
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
            changes: Changes::default(),
        })
    }

    /// Whether the node holds every acknowledged write, as far as is known.
    pub fn holds(&self, node: &NodeId) -> bool {
        self.read()
            .replicas
            .get(node)
            .is_some_and(|replica| replica.standing.is_in_sync())
    }

    /// The node's sync state; `None` if the node was never seen.
    pub fn sync_state(&self, node: &NodeId) -> Option<SyncState> {
        let state = self.read();
        state
            .replicas
            .get(node)
            .map(|replica| replica.standing.clone())
    }

    /// How long ago the node left the set, as far as this process has seen it.
    pub(super) fn out_for(&self, node: &NodeId) -> Option<Duration> {
        self.read().out_for(node)
    }

    /// All replicas, with the facts that [`Marks::open`] needs.
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

    /// The epoch of the in-sync set; each change adds one.
    pub fn epoch(&self) -> u64 {
        self.read().epoch
    }

    /// Removes a node that missed or failed a write that another replica holds.
    ///
    /// # Errors
    /// The store failed. The write must not be acknowledged then.
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

    /// Removes a node for maintenance.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn drain(&self, node: &NodeId) -> Result<Removal, StoreError> {
        let since = now_utc();
        self.leave(node, SyncState::Drained { since }).await
    }

    /// Ends the node's maintenance: the node is out of sync until it catches up.
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

    /// Puts a node back in sync, after a check that it holds the same as the shard's other replicas. It begins a new incarnation
    /// with `newest_task` as its newest task.
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
        // A node that was drained meanwhile stays drained.
        let out = matches!(self.sync_state(node), Some(SyncState::Out { .. }));
        match self.replica(node).filter(|_| out) {
            Some(replica) => {
                self.begin_anew(node, replica, newest_task, marks, Vec::new())
                    .await
            }
            None => Ok(()),
        }
    }

    /// Lets a replica begin a new incarnation with the data that it has, because an operator accepted the loss: its shard lost
    /// all other replicas, or the replica lost its own disk. The others are marked as out, and a resync brings them back from it.
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

    /// The replicas of a shard that are in sync, including lost ones.
    pub(crate) fn members_in_sync(&self, shard: ShardId) -> Vec<NodeId> {
        let members = self.members(shard).into_iter();
        members
            .filter_map(|(id, in_sync)| in_sync.then_some(id))
            .collect()
    }

    /// Begins a new incarnation of the node and stores the changes to `others` with it. The caller holds `changing`.
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

    /// Gives every new node of a topology a sync state. A new node of a shard that has known replicas is out. A node that was in
    /// sync but left the topology is out too, if another replica in sync stays: it will miss writes.
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

    /// All nodes ever seen in a shard, and whether each is in sync.
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

    /// Stores the changes and `extra` first, and then updates memory. The caller holds `changing`.
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
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.epoch = epoch;
            state.version = version + 1;
            for (node, replica) in changes {
                state.put(node, replica);
            }
        }
        self.changes.tell();
        Ok(())
    }

    /// The keys of all that may be gone when the state is read again.
    pub(super) fn keys(&self) -> Vec<String> {
        let state = self.read();
        let nodes = state.replicas.keys();
        nodes.map(|node| format!("{PREFIX}{node}")).collect()
    }

    /// Applies in memory what the leader has stored; other entries are ignored.
    ///
    /// # Errors
    /// The key of an entry that can't be read. Nothing is applied then.
    pub(super) fn apply(&self, changed: &[super::Changed]) -> Result<(), String> {
        let (mut epoch, mut replicas) = (None, Vec::new());
        for (key, value) in changed {
            let unreadable = |_| key.clone();
            if let Some(node) = key.strip_prefix(PREFIX) {
                let replica = value.as_deref().map(serde_json::from_slice::<Replica>);
                let replica = replica.transpose().map_err(unreadable)?;
                replicas.push((NodeId::from(node.to_owned()), replica));
            } else if let (true, Some(value)) = (key == EPOCH_KEY, value) {
                epoch = Some(serde_json::from_slice(value).map_err(unreadable)?);
            }
        }
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.epoch = epoch.unwrap_or(state.epoch);
            for (node, replica) in replicas {
                match replica {
                    Some(replica) => state.put(node, replica),
                    None => state.remove(&node),
                }
            }
        }
        self.changes.tell();
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
