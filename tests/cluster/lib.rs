//! Starts and breaks real clusters: real nodes, the real merger, a real Envoy with the real filter.
//!
//! ```no_run
//! # async fn example() -> Result<(), weft_cluster::HarnessError> {
//! let cluster = weft_cluster::Cluster::builder().shards(3).replicas(2).start().await?;
//! cluster.node(0, 1).kill()?;
//! # Ok(()) }
//! ```
//!
//! - [`Binaries`] finds the programs; one that is missing is an error that says how to build it, never a skipped test.
//! - [`Layout`] says which port is whose; [`PortBlock`] claims free ports for it.
//! - [`Process`] is one running program: killed, stopped, continued, restarted, wiped.
//! - [`Link`] is the line between Envoy and a node: silent, refusing, late, full of nonsense.
//! - [`Api`] asks a node or a cluster; [`Api::settle`] waits for a task.
//! - [`Cluster`] is all of them together, [`Single`] one node alone, to compare with.
//!
//! Invariant: nothing outlives its handle. Processes die when it is dropped, when the test panics, and (on Linux)
//! when the test's own process is killed. Only [`Lifetime::Detached`] is meant to stay, for `weft-lab up`.

mod api;
mod binaries;
mod cluster;
mod commands;
pub mod data;
mod error;
mod layout;
mod link;
pub mod oracle;
mod ports;
mod process;
mod single;
mod spawner;
mod stand_in;
mod wait;

pub use api::{Api, Reply};
pub use binaries::{Binaries, Node};
pub use cluster::{Cluster, ClusterBuilder};
pub use commands::ClusterPlan;
pub use error::HarnessError;
pub use layout::Layout;
pub use link::{Line, Link};
pub use ports::PortBlock;
pub use process::{Lifetime, Process, Program};
pub use single::Single;
pub use stand_in::{POISON, Seen, StandIn, StandInCluster};
pub use wait::{Deadline, until};
