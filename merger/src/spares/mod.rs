//! Takes spare nodes in for replicas that stay away, where Envoy reads its nodes from files (`weft config envoy --eds`).
//!
//! ```text
//! watch (leader): replica away, another one sound, a spare free ─► decide, store ─┐
//! keep files (every merger): what is stored, and this Envoy's files differ ◄──────┘ ─► write them
//! Envoy reads them ─► discovery finds a new, empty replica ─► resync ─► in sync
//! ```
//!
//! [`watch`] decides, [`apply`] is what a decision means for a file, and [`files`] writes. Invariants: only the leader decides, and
//! what it decided is stored before any file changes. A file that an operator changed afterwards stays as he left it.

mod apply;
mod files;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

pub use files::keep_files;
pub use watch::replace_absent;

pub(crate) use watch::free_spares;

/// What may be done with spare nodes.
#[derive(Debug, Clone)]
pub struct SpareOptions {
    /// The folder with the files of this merger's Envoy.
    pub folder: PathBuf,
    /// For how long a replica must be away before a spare takes its place; `None` for never.
    pub after: Option<Duration>,
    /// How often nodes are probed.
    pub probe_interval: Duration,
}
