//! Which shards and nodes there are, which indexes lie where, which replicas hold every acknowledged write.
//!
//! [`discovery`] learns the topology from Envoy; [`placements`] holds where indexes lie and publishes the routing table;
//! [`in_sync`] holds who may answer.
//!
//! Invariant: only this module changes an epoch or an in-sync set.

mod discovery;
mod in_sync;
mod placements;
mod topology;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_routing::placement::{ShardId, SlotMap};

pub use discovery::discover;
pub use in_sync::InSync;
pub use placements::{Placement, Placements};
pub use topology::Topology;

use crate::store::{Store, StoreError};

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
    /// A placement can't be read back.
    #[error("the placement of `{0}` is stored in a form that can't be read")]
    Corrupt(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The cluster's state. Cheap to share.
pub struct Cluster {
    default_shard_count: u16,
    topology: tokio::sync::watch::Sender<Arc<Topology>>,
    /// Where indexes lie.
    pub placements: Placements,
    /// Who may answer.
    pub in_sync: InSync,
}

impl Cluster {
    /// Reads what the store holds. `lease_ms` and `direct_writes` go into the routing table.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn open(
        store: Arc<dyn Store>,
        lease_ms: u32,
        direct_writes: bool,
        default_shard_count: u16,
    ) -> Result<Self, ClusterError> {
        let in_sync = InSync::open(Arc::clone(&store)).await?;
        let placements = Placements::open(store, lease_ms, direct_writes).await?;
        let (topology, _) = tokio::sync::watch::channel(Arc::new(Topology::default()));
        Ok(Self {
            default_shard_count,
            topology,
            placements,
            in_sync,
        })
    }

    /// The topology as last learned.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    /// Follows changes of the topology.
    pub fn watch_topology(&self) -> tokio::sync::watch::Receiver<Arc<Topology>> {
        self.topology.subscribe()
    }

    async fn set_topology(&self, topology: Topology) -> Result<(), StoreError> {
        if **self.topology.borrow() == topology {
            return Ok(());
        }
        self.placements
            .set_single_replica(topology.single_replica_shards())
            .await?;
        tracing::info!(shards = ?topology.summary(), "topology changed");
        self.topology.send_replace(Arc::new(topology));
        Ok(())
    }

    /// All shards that Envoy knows, in order.
    pub fn shards(&self) -> Vec<ShardId> {
        self.topology.borrow().shards()
    }

    /// The replicas of a shard that take writes: the primary first, replicas that are out of sync left out.
    pub fn replicas(&self, shard: ShardId) -> Vec<NodeRef> {
        let topology = self.topology();
        topology
            .nodes(shard)
            .iter()
            .filter(|node| self.in_sync.holds(&node.id))
            .cloned()
            .collect()
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

    /// Places an index on `shard_count` shards (or the default) of at least `replicas` replicas; gives the placement that
    /// there is, if there is one.
    ///
    /// # Errors
    /// There are fewer such shards than asked for, or the store failed.
    pub async fn create_placement(
        &self,
        index_uid: &str,
        shard_count: Option<u16>,
        replicas: u16,
    ) -> Result<Arc<Placement>, ClusterError> {
        if let Some(placement) = self.placements.get(index_uid) {
            return Ok(placement);
        }
        let (fitting, count) = self.fitting(shard_count, replicas)?;
        self.placements.create(index_uid, &fitting, count).await
    }

    /// The slots of an index that isn't placed, as [`create_placement`](Self::create_placement) would deal them now.
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
        let default = self.default_shard_count.min(known);
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
