//! Keeps replicas equal: watches nodes, brings replicas back, compares them, and learns of new nodes.
//!
//! [`discover`] follows Envoy's list of nodes, [`watch`] probes each of them, [`resync`] brings back replicas that are out of sync,
//! [`verify`] compares those that are in sync.

mod discover;
mod resync;
mod verify;
mod watch;

use std::sync::Arc;

pub use discover::discover;
pub use resync::{Resyncs, keep_in_sync};
pub use verify::{Verification, verify_now_and_then};
pub use watch::watch;

pub(crate) use verify::{last as last_verification, verify};

use crate::base::stands_on;
use crate::keys::Keys;
use crate::replication;

/// What replicas are kept equal with.
pub struct Context {
    /// Locks, and the way to write.
    pub replication: Arc<replication::Context>,
    /// The API keys, which are the same on all nodes.
    pub keys: Arc<Keys>,
    /// Resyncs under way.
    pub resyncs: Resyncs,
    /// The last comparison of all replicas.
    pub verification: Verification,
}

stands_on!(Context, replication, replication::Context);
