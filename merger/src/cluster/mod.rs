//! The cluster's state: which shards and nodes exist, which indexes lie where, and which replicas hold every acknowledged write.
//! Nothing here sends a request to a node.
//!
//! A merger that leads changes this state and stores it. One that [follows](following) applies what the leader has stored.
//!
//! [`discovery`] learns the topology from Envoy. [`placements`] holds where indexes lie and publishes the routing table.
//! [`in_sync`] holds which replicas may answer. [`marks`] holds up to which task each node is accounted for, and [`health`] the
//! node's current status. [`readiness`] derives from these what Envoy is told. Replication notes its state in [`in_doubt`],
//! [`queues`], [`stagger`] and [`dirty`]. [`moves`] holds which slots go to other shards, [`spares`] which spare nodes
//! stand in for replicas that stayed away. [`changes`] is how others wait for a change of this state.
//!
//! Invariant: only this module changes an epoch or an in-sync set.

mod announced;
mod backups;
mod changes;
mod dirty;
mod discovery;
mod error;
mod following;
mod fullness;
mod health;
mod in_doubt;
mod in_sync;
mod jobs;
mod latency;
mod leader_view;
mod marks;
mod mergers;
mod moves;
mod placements;
mod placing;
mod queues;
mod read_from;
mod readiness;
mod spares;
mod stagger;
mod topology;
mod traffic;
mod write_mode;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weft_routing::Origins;
use weft_routing::operation::NamedOperation;
use weft_routing::placement::ShardId;
use weft_routing::strategy::Strategy;

pub use dirty::Dirty;
pub use discovery::{AskError, Directory, EnvoyAdmin};
pub use error::ClusterError;
pub use fullness::Fullness;
pub use health::{HealthMonitor, Listener, NodeStatus};
pub use in_doubt::{InDoubt, ReadPolicy};
pub use in_sync::{InSync, Removal, SyncState};
pub use latency::Latencies;
pub use marks::{Mark, Marks, NewestTask, NodeTask, Order};
pub use mergers::{Epochs, Mergers};
pub use placements::{Before, Changing, Placement, Placements, Stage};
pub use placing::Wanted;
pub(crate) use placing::{boundary, wish_for};
pub use queues::{QueuePlace, ReplicaQueues};
pub use read_from::ReadFrom;
pub use readiness::Readiness;
pub use stagger::Stagger;
pub use topology::{Spare, Topology};
pub use traffic::{Flow, Traffic};
pub use write_mode::WriteMode;

pub(crate) use announced::{Announced, Announcements, LOOKED_WITHIN};
pub(crate) use backups::{Backups, Candidate, InUse, LEASE as BACKUP_LEASE, Touched, Writes};
pub(crate) use changes::{Changes, until};
pub(crate) use dirty::{Documents, Written};
pub(crate) use following::Changed;
pub(crate) use health::{Probe, READS_FOLLOW, READS_LEAVE};
pub(crate) use in_doubt::Doubt;
pub(crate) use jobs::{JobKind, JobReport, JobState, Jobs, note_vanished_jobs};
pub(crate) use leader_view::{LeaderView, VIEW_KEY};
pub(crate) use moves::{
    Held, Move, MoveOptions, MoveState, Moves, Noted, Planned, Renamed, Slotting, Step, Told,
    forecast, plan, steps_between,
};
pub(crate) use placements::owns;
pub(crate) use spares::{Choice, Member, Replacement, Replacements, choose};
pub(crate) use stagger::Groups;

use crate::base::{Base, stands_on};
use crate::ids::Ids;
use crate::store::{Store, StoreError};

/// The cluster's state, and the base that it builds on.
pub struct Context {
    /// Options, limits and the client that reaches the nodes.
    pub base: Arc<Base>,
    /// Shards, nodes, placements.
    pub cluster: Arc<Cluster>,
}

stands_on!(Context, base, Base);

impl Context {
    /// Notes in the metrics how long a shard took.
    pub fn note_shard(&self, shard: ShardId, flow: Flow, took: Duration) {
        let shard = shard.0.to_string();
        let seconds = &self.metrics.shard_seconds;
        let seconds = seconds.with_label_values(&[shard.as_str(), flow.name()]);
        seconds.observe(took.as_secs_f64());
    }
}

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
    /// The address and port, as Envoy resolved them.
    pub address: SocketAddr,
}

/// How indexes are placed, written and published unless a request says otherwise.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// On how many shards an index is placed; 0 means all.
    pub default_shard_count: u16,
    /// How documents get their slots.
    pub default_strategy: Strategy,
    /// How many replicas must have taken a write before it is acknowledged.
    pub write_mode: WriteMode,
    /// Whether filters send writes to shards of one node by themselves.
    pub direct_writes: bool,
    /// After how long without an answer a node is down.
    pub down_after: Duration,
    /// How long filters may keep using a routing table that was replaced.
    pub lease: Duration,
    /// The origins whose pages may read answers.
    pub cors_origins: Origins,
}

/// What a merger knows whether it leads or follows, and keeps when that changes.
#[derive(Clone, Default)]
pub struct Shared {
    /// What is known of nodes, and what its Envoys were told of them.
    pub health: Arc<HealthMonitor>,
    /// The other mergers.
    pub mergers: Arc<Mergers>,
    /// What went to each shard.
    pub traffic: Arc<Traffic>,
}

/// The state of the cluster, shared by all parts of the merger.
pub struct Cluster {
    topology: tokio::sync::watch::Sender<Arc<Topology>>,
    /// Where indexes lie.
    pub placements: Placements,
    /// Which replicas are in sync and so may answer.
    pub in_sync: InSync,
    /// Each node's current status.
    pub health: Arc<HealthMonitor>,
    /// Up to which task each node is accounted for.
    pub marks: Arc<Marks>,
    /// How long reads took lately.
    pub latencies: Latencies,
    /// How many reads and writes went to each shard, and how long they took.
    pub traffic: Arc<Traffic>,
    /// How full each shard is.
    pub fullness: Fullness,
    /// What is written to a shard while a resync brings one of its replicas back.
    pub dirty: Dirty,
    /// Shards whose replicas may differ because a write failed.
    pub in_doubt: InDoubt,
    /// Slots that go from one shard to another.
    pub(crate) moves: Arc<Moves>,
    /// The backup that is being made.
    pub(crate) backups: Arc<Backups>,
    /// Backups, restores and imports, as their programs tell of them.
    pub(crate) jobs: Jobs,
    /// Spare nodes that have taken the place of replicas.
    pub(crate) replacements: Replacements,
    /// The order of writes to each replica.
    pub queues: ReplicaQueues,
    /// Which replicas wait with large writes while others apply them.
    pub stagger: Stagger,
    /// Changes of nodes that are no tasks.
    pub(crate) announced: Announcements,
    /// The other mergers, if several share the state and this one leads.
    pub mergers: Arc<Mergers>,
    /// What the leader says of nodes and shards, if this merger follows.
    followed: RwLock<LeaderView>,
    options: ClusterOptions,
    /// When a shard last went from one node to several.
    grew: Mutex<HashMap<ShardId, Instant>>,
}

impl Cluster {
    /// Reads the cluster's state from the store, for a merger that changes it.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn open(
        store: Arc<dyn Store>,
        options: ClusterOptions,
        shared: Shared,
    ) -> Result<Self, ClusterError> {
        let cluster = Self::follow(store, options, shared).await?;
        cluster.placements.begin().await?;
        Ok(cluster)
    }

    /// Reads the cluster's state, for a merger that follows the changes of another one.
    ///
    /// # Errors
    /// The state can't be read.
    pub async fn follow(
        store: Arc<dyn Store>,
        options: ClusterOptions,
        shared: Shared,
    ) -> Result<Self, ClusterError> {
        let lease_ms = u32::try_from(options.lease.as_millis()).unwrap_or(u32::MAX);
        let in_sync = InSync::open(Arc::clone(&store)).await?;
        let marks = Marks::open(Arc::clone(&store), in_sync.known()).await?;
        let moves = Moves::open(Arc::clone(&store)).await?;
        let replacements = Replacements::open(Arc::clone(&store)).await?;
        let jobs = Jobs::open(Arc::clone(&store)).await?;
        let placements = Placements::read(
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
            health: shared.health,
            marks: Arc::new(marks),
            latencies: Latencies::default(),
            traffic: shared.traffic,
            fullness: Fullness::default(),
            dirty: Dirty::default(),
            in_doubt: InDoubt::default(),
            moves: Arc::new(moves),
            backups: Arc::default(),
            jobs,
            replacements,
            queues: ReplicaQueues::default(),
            stagger: Stagger::default(),
            announced: Announcements::default(),
            mergers: shared.mergers,
            followed: RwLock::default(),
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

    /// How long filters may keep using a routing table that was replaced.
    pub fn lease(&self) -> Duration {
        self.options.lease
    }

    /// The topology that Envoy last reported.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    /// A receiver that is told of every change of the topology.
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

    /// Notes a write that is about to be sent to a shard, for resyncs, moves and backups. The caller has the shard's lock.
    pub(crate) fn note_write(&self, shard: ShardId, write: &NamedOperation, ids: Option<&Ids>) {
        self.moves.logs.note(shard, write, ids);
        self.note_move(shard, write, ids);
    }

    /// The same for a write of a move, which knows itself what it writes.
    pub(crate) fn note_move(&self, shard: ShardId, write: &NamedOperation, ids: Option<&Ids>) {
        self.dirty.note(shard, write, ids);
        self.backups.note(write, ids);
    }

    /// All shards that Envoy knows, in order.
    pub fn shards(&self) -> Vec<ShardId> {
        self.topology.borrow().shards()
    }

    /// The replicas of a shard that take writes, the primary first. Replicas that are out of sync or lost are left out.
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
        // The first replica that answers is the primary: a silent replica loses that role.
        replicas.sort_by_key(|node| self.health.status(&node.id) == NodeStatus::Silent);
        replicas
    }

    /// The same as [`replicas`](Self::replicas), but an error if the list is empty.
    ///
    /// # Errors
    /// The shard has no node, or none of its replicas can take writes.
    pub fn replicas_or_none(&self, shard: ShardId) -> Result<Vec<NodeRef>, ClusterError> {
        let replicas = self.replicas(shard);
        match replicas.is_empty() {
            false => Ok(replicas),
            true if self.topology().nodes(shard).is_empty() => Err(ClusterError::ShardEmpty(shard)),
            true => Err(ClusterError::ShardLost(shard)),
        }
    }

    /// Notes when a shard gets several nodes, or is first seen with several. By the routing table of the merger's last run,
    /// filters may still send such a shard writes by themselves.
    fn note_growth(&self, topology: &Topology) {
        let before = self.topology();
        let mut grew = self.grew.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in topology.shards() {
            if topology.nodes(shard).len() > 1 && before.nodes(shard).len() < 2 {
                grew.insert(shard, Instant::now());
            }
        }
    }

    /// Whether every filter knows by now that a shard has more than one node, and no longer sends it writes by itself.
    pub(crate) fn has_settled(&self, shard: ShardId) -> bool {
        let grew = self.grew.lock().unwrap_or_else(PoisonError::into_inner);
        !self.options.direct_writes
            || grew
                .get(&shard)
                .is_none_or(|at| at.elapsed() > self.options.lease)
    }

    /// Whether the node has answered within [`down_after`](Self::down_after).
    pub fn is_up(&self, node: &NodeId) -> bool {
        self.health.silence(node) < self.options.down_after
    }

    /// The primary of a shard: the first of its [`replicas`](Self::replicas). Other replicas are compared with it, and the merger
    /// asks it where one answer must count.
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
}
