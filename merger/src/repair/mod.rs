//! Keeps replicas equal: watches nodes, brings replicas back in sync, compares them, and learns of new nodes. Moves slots.
//! Reads what a backup copies.
//!
//! [`mod@discover`] follows Envoy's list of nodes, [`mod@watch`] probes each of them, [`resync`] brings back replicas that are out of sync,
//! [`mod@verify`] compares those that are in sync. [`moves`] brings slots of an index from one shard to another.

pub(crate) mod backup;
mod discover;
mod moves;
mod resync;
mod verify;
mod watch;

use std::sync::Arc;
use std::time::Duration;

pub use discover::discover;
pub use moves::{measure, move_slots};

pub(crate) use moves::{MoveError, Size, Survey, batch_documents, size_on};
pub(crate) use resync::Print;
pub use resync::{Resyncs, keep_in_sync};
pub use verify::{Verification, verify_now_and_then};
pub use watch::watch;

pub(crate) use verify::{last as last_verification, verify};

use crate::base::stands_on;
use crate::keys::Keys;
use crate::replication;

/// What it takes to keep replicas equal.
pub struct Context {
    /// Shard locks and everything that writes.
    pub replication: Arc<replication::Context>,
    /// The cache of API keys, which are the same on all nodes.
    pub keys: Arc<Keys>,
    /// How often nodes are checked, and how fast replicas are copied.
    pub options: RepairOptions,
    /// The running resyncs.
    pub resyncs: Resyncs,
    /// The report of the last comparison of all replicas.
    pub verification: Verification,
}

/// How often nodes are checked, and how fast replicas are copied.
#[derive(Debug, Clone)]
pub struct RepairOptions {
    /// How often Envoy is asked for shards and nodes.
    pub discovery_interval: Duration,
    /// How often each node is asked whether it is there and still has the same disk.
    pub probe_interval: Duration,
    /// How often all replicas of a shard are compared; zero for never.
    pub verify_interval: Duration,
    /// How many bytes a resync may copy per second; 0 means no limit.
    pub resync_bytes_per_second: u64,
    /// How many documents of an index two shards hold at the same time, at most, while slots are moved.
    pub move_batch: usize,
    /// How much fuller than the mean a shard may be, by bytes, before slots are moved without being asked for; `None` for never.
    pub rebalance_threshold: Option<f64>,
}

stands_on!(Context, replication, replication::Context);
