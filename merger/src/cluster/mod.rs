//! Which shards and nodes there are, which indexes lie where, which replicas hold every acknowledged write: state, and no request to a
//! node.
//!
//! [`discovery`] learns the topology from Envoy; [`placements`] holds where indexes lie and publishes the routing table;
//! [`in_sync`] holds which replicas may answer, [`marks`] up to where each node's tasks are accounted for, [`health`] how each node is at
//! the moment; [`readiness`] makes of these what Envoy is told. [`in_doubt`], [`queues`], [`stagger`] and [`dirty`] are what
//! replication notes while it works.
//!
//! Invariant: only this module changes an epoch or an in-sync set.

mod dirty;
mod discovery;
mod health;
mod in_doubt;
mod in_sync;
mod latency;
mod marks;
mod placements;
mod queues;
mod read_from;
mod readiness;
mod stagger;
mod topology;
mod write_mode;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weft_routing::Origins;
use weft_routing::placement::{ShardId, SlotMap};

pub use dirty::Dirty;
pub use discovery::{AskError, Directory, EnvoyAdmin};
pub use health::{HealthMonitor, Listener, NodeStatus};
pub use in_doubt::{InDoubt, ReadPolicy};
pub use in_sync::{InSync, Removal, SyncState};
pub use latency::Latencies;
pub use marks::{Mark, Marks, NewestTask, NodeTask, Order};
pub use placements::{Before, Placement, Placements};
pub use queues::{QueuePlace, ReplicaQueues};
pub use read_from::ReadFrom;
pub use readiness::Readiness;
pub use stagger::Stagger;
pub use topology::Topology;
pub use write_mode::WriteMode;

pub(crate) use dirty::{Documents, Written};
pub(crate) use health::{Probe, READS_FOLLOW};
pub(crate) use in_doubt::Doubt;
pub(crate) use stagger::Groups;

use crate::base::{Base, stands_on};
use crate::call::ReadError;
use crate::store::{Store, StoreError};

/// The cluster's state, and what it stands on.
pub struct Context {
    /// Options, limits and the way to the nodes.
    pub base: Arc<Base>,
    /// Shards, nodes, placements.
    pub cluster: Arc<Cluster>,
}

stands_on!(Context, base, Base);

/// A node's name: its host name in Envoy's configuration, or `ip:port` where it has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for NodeId {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node and where it listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeRef {
    /// The name.
    pub id: NodeId,
    /// The address, as Envoy resolved it.
    pub address: SocketAddr,
}

/// Why the cluster's state is not what was wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Envoy hasn't told of any shard yet.
    #[error("no shard is known: Envoy's admin interface lists no cluster with the shards' prefix")]
    NoShards,
    /// More shards were asked for than there are.
    #[error("{wanted} shards were asked for, and there are {known}")]
    TooManyShards {
        /// What was asked for.
        wanted: u16,
        /// What there is.
        known: usize,
    },
    /// No shard has as many replicas as were asked for.
    #[error(
        "{wanted} replicas a shard were asked for, and {fitting} of {needed} shards have as many"
    )]
    TooFewReplicas {
        /// Replicas asked for.
        wanted: u16,
        /// Shards that have as many.
        fitting: usize,
        /// Shards needed.
        needed: usize,
    },
    /// A shard of a placement isn't in Envoy's configuration, or has no node.
    #[error("shard-{} has no node", .0.0)]
    ShardEmpty(ShardId),
    /// No replica of a shard holds what was acknowledged: none is in sync, or the last one lost its data.
    #[error("shard-{} has no replica in sync: see GET /_cluster/nodes", .0.0)]
    ShardLost(ShardId),
    /// A write wants more replicas to take it than are in sync.
    #[error("shard-{} has {in_sync} replicas in sync, and a write by quorum must be taken by {wanted}; nothing was written", .shard.0)]
    NoQuorum {
        /// The shard.
        shard: ShardId,
        /// How many are in sync.
        in_sync: usize,
        /// How many must take it.
        wanted: usize,
    },
    /// A change of indexes was cut off, and the shard has it, or may have it, while others haven't.
    #[error("shard-{} is locked while an interrupted index change is completed; nothing was written: retry", .0.0)]
    Held(ShardId),
    /// A write was cut off, and no replica says yet whether it took it.
    #[error("shard-{}: a write was cut off, and no replica says what it has taken; nothing was written", .0.0)]
    InDoubt(ShardId),
    /// The last replica of a shard that is in sync can't be spared.
    #[error(
        "`{0}` is the last replica of its shard that is in sync: nothing else holds its documents"
    )]
    LastReplica(NodeId),
    /// A node that must be asked doesn't answer.
    #[error("node `{0}` does not answer; nothing was changed")]
    Silent(NodeId),
    /// A body that isn't what it should be.
    #[error("{0}")]
    InvalidBody(String),
    /// A header that says how a read or write is to be done.
    #[error("{0}")]
    InvalidWish(String),
    /// No such task.
    #[error("Task `{0}` not found.")]
    UnknownTask(u32),
    /// A task that a read shall see isn't applied yet.
    #[error("task {uid} was not applied within {} ms", within.as_millis())]
    NotApplied {
        /// The task.
        uid: u32,
        /// How long the read waited.
        within: Duration,
    },
    /// No such index.
    #[error("Index `{0}` not found.")]
    UnknownIndex(String),
    /// There is nothing below `/_cluster` of this name, or not with this method.
    #[error("Weft knows no `{0}`")]
    UnknownPath(String),
    /// A node that isn't in Envoy's configuration.
    #[error("node `{0}` is not known")]
    UnknownNode(NodeId),
    /// A placement can't be read back.
    #[error("the placement of `{0}` is stored in a form that can't be read")]
    Corrupt(String),
    /// The client's body.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How indexes are placed, written and published where nothing else is said.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// On how many shards an index is placed; 0 means all.
    pub default_shard_count: u16,
    /// How many replicas must have taken a write.
    pub write_mode: WriteMode,
    /// Whether filters send writes to shards of one node by themselves.
    pub direct_writes: bool,
    /// After how long without an answer a node is down.
    pub down_after: Duration,
    /// How long filters may go by a table that is no more.
    pub lease: Duration,
    /// Pages of which origins may read answers.
    pub cors_origins: Origins,
}

/// The cluster's state. Cheap to share.
pub struct Cluster {
    topology: tokio::sync::watch::Sender<Arc<Topology>>,
    /// Where indexes lie.
    pub placements: Placements,
    /// Who may answer.
    pub in_sync: InSync,
    /// How each node is.
    pub health: HealthMonitor,
    /// Up to where each node's tasks are accounted for.
    pub marks: Arc<Marks>,
    /// How long reads took lately.
    pub latencies: Latencies,
    /// What is written while replicas are brought back.
    pub dirty: Dirty,
    /// Shards whose replicas may differ by a write that failed.
    pub in_doubt: InDoubt,
    /// The order of writes to each replica.
    pub queues: ReplicaQueues,
    /// Which replicas are held back while others apply large writes.
    pub stagger: Stagger,
    options: ClusterOptions,
    /// When shards last got a node beside others.
    grew: Mutex<HashMap<ShardId, Instant>>,
}

impl Cluster {
    /// Reads what the store holds.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn open(
        store: Arc<dyn Store>,
        options: ClusterOptions,
    ) -> Result<Self, ClusterError> {
        let lease_ms = u32::try_from(options.lease.as_millis()).unwrap_or(u32::MAX);
        let in_sync = InSync::open(Arc::clone(&store)).await?;
        let marks = Marks::open(Arc::clone(&store), in_sync.known()).await?;
        let placements = Placements::open(
            store,
            lease_ms,
            options.direct_writes,
            options.cors_origins.clone(),
        )
        .await?;
        let (topology, _) = tokio::sync::watch::channel(Arc::new(Topology::default()));
        Ok(Self {
            topology,
            placements,
            in_sync,
            health: HealthMonitor::default(),
            marks: Arc::new(marks),
            latencies: Latencies::default(),
            dirty: Dirty::default(),
            in_doubt: InDoubt::default(),
            queues: ReplicaQueues::default(),
            stagger: Stagger::default(),
            grew: Mutex::default(),
            options,
        })
    }

    /// Whether filters send writes to shards of one node by themselves.
    pub fn direct_writes(&self) -> bool {
        self.options.direct_writes
    }

    /// After how long without an answer a node is down.
    pub fn down_after(&self) -> Duration {
        self.options.down_after
    }

    /// How long filters may go by a table that is no more.
    pub fn lease(&self) -> Duration {
        self.options.lease
    }

    /// The topology as last learned.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    /// Follows changes of the topology.
    pub fn watch_topology(&self) -> tokio::sync::watch::Receiver<Arc<Topology>> {
        self.topology.subscribe()
    }

    pub(crate) async fn set_topology(&self, topology: Topology) -> Result<(), StoreError> {
        if **self.topology.borrow() == topology {
            return Ok(());
        }
        self.placements
            .set_single_replica(topology.single_replica_shards())
            .await?;
        let known = |node: &NodeId| self.in_sync.sync_state(node).is_some();
        let new: Vec<NodeId> = topology
            .all_nodes()
            .filter(|(_, node)| !known(&node.id))
            .map(|(_, node)| node.id.clone())
            .collect();
        self.in_sync.admit(&topology).await?;
        new.iter().for_each(|node| self.marks.meet(node));
        self.note_growth(&topology);
        tracing::info!(shards = ?topology.summary(), "topology changed");
        self.topology.send_replace(Arc::new(topology));
        Ok(())
    }

    /// All shards that Envoy knows, in order.
    pub fn shards(&self) -> Vec<ShardId> {
        self.topology.borrow().shards()
    }

    /// The replicas of a shard that take writes: the primary first, replicas that are out of sync or lost left out.
    pub fn replicas(&self, shard: ShardId) -> Vec<NodeRef> {
        let topology = self.topology();
        let mut replicas: Vec<NodeRef> = topology
            .nodes(shard)
            .iter()
            .filter(|node| self.in_sync.holds(&node.id))
            .filter(|node| self.health.status(&node.id) != NodeStatus::Lost)
            .filter(|node| !self.marks.waits(&node.id))
            .cloned()
            .collect();
        // The first that answers is the primary; one that is silent is so no more.
        replicas.sort_by_key(|node| self.health.status(&node.id) == NodeStatus::Silent);
        replicas
    }

    /// The same, if there are any.
    ///
    /// # Errors
    /// There are none.
    pub fn replicas_or_none(&self, shard: ShardId) -> Result<Vec<NodeRef>, ClusterError> {
        let replicas = self.replicas(shard);
        match replicas.is_empty() {
            false => Ok(replicas),
            true if self.topology().nodes(shard).is_empty() => Err(ClusterError::ShardEmpty(shard)),
            true => Err(ClusterError::ShardLost(shard)),
        }
    }

    /// Notes shards that have several nodes now and had fewer, or that this merger has not seen before: by the table of its last run,
    /// filters may have sent them writes.
    fn note_growth(&self, topology: &Topology) {
        let before = self.topology();
        let mut grew = self.grew.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in topology.shards() {
            if topology.nodes(shard).len() > 1 && before.nodes(shard).len() < 2 {
                grew.insert(shard, Instant::now());
            }
        }
    }

    /// Whether every filter knows by now that a shard has more than one node, and sends it no writes by itself.
    pub(crate) fn has_settled(&self, shard: ShardId) -> bool {
        let grew = self.grew.lock().unwrap_or_else(PoisonError::into_inner);
        !self.options.direct_writes
            || grew
                .get(&shard)
                .is_none_or(|at| at.elapsed() > self.options.lease)
    }

    /// Whether the node answered within the heartbeats that it may miss.
    pub fn is_up(&self, node: &NodeId) -> bool {
        self.health.silence(node) < self.options.down_after
    }

    /// The primary of a shard: it orders writes and answers for tasks.
    pub fn primary(&self, shard: ShardId) -> Option<NodeRef> {
        self.replicas(shard).into_iter().next()
    }

    /// Where a node listens now.
    pub fn address(&self, node: &NodeId) -> Option<SocketAddr> {
        self.topology.borrow().find(node).map(|found| found.address)
    }

    /// Where an index lies.
    pub fn placement(&self, index_uid: &str) -> Option<Arc<Placement>> {
        self.placements.get(index_uid)
    }

    /// The slots of an index that isn't placed, as they would be dealt now: on `shard_count` shards (or the default) of at least
    /// `replicas` replicas.
    ///
    /// # Errors
    /// There are fewer such shards than asked for.
    pub fn propose(
        &self,
        index_uid: &str,
        shard_count: Option<u16>,
        replicas: u16,
    ) -> Result<Arc<SlotMap>, ClusterError> {
        let (fitting, count) = self.fitting(shard_count, replicas)?;
        self.placements.propose(index_uid, &fitting, count)
    }

    /// The shards that an index may be placed on, and on how many of them it shall be.
    fn fitting(
        &self,
        shard_count: Option<u16>,
        replicas: u16,
    ) -> Result<(Vec<ShardId>, usize), ClusterError> {
        let topology = self.topology();
        let all = topology.shards();
        if all.is_empty() {
            return Err(ClusterError::NoShards);
        }
        // The default is a wish: a smaller cluster gives what it has.
        let known = u16::try_from(all.len()).unwrap_or(u16::MAX);
        let default = self.options.default_shard_count.min(known);
        let wanted = shard_count.or(Some(default)).filter(|count| *count > 0);
        if let Some(wanted) = wanted
            && usize::from(wanted) > all.len()
        {
            return Err(ClusterError::TooManyShards {
                wanted,
                known: all.len(),
            });
        }
        let fitting: Vec<ShardId> = all
            .iter()
            .copied()
            .filter(|shard| topology.nodes(*shard).len() >= usize::from(replicas))
            .collect();
        let count = wanted.map_or(fitting.len(), usize::from);
        if fitting.len() < count || fitting.is_empty() {
            return Err(ClusterError::TooFewReplicas {
                wanted: replicas,
                fitting: fitting.len(),
                needed: count.max(1),
            });
        }
        Ok((fitting, count))
    }
}
