//! Starts and breaks real clusters: real nodes, the real merger, a real Envoy with the real filter.
//!
//! ```no_run
//! # async fn example() -> Result<(), weft_cluster::HarnessError> {
//! let cluster = weft_cluster::Cluster::builder().shards(3).replicas(2).start().await?;
//! cluster.node(0, 1).kill()?;
//! # Ok(()) }
//! ```
//!
//! - [`Binaries`] finds the programs. A missing program is an error that says how to build it, never a skipped test.
//! - [`Layout`] gives each program its port; [`PortBlock`] claims free ports for it.
//! - [`Process`] is one running program that can be killed, stopped, continued, restarted and wiped.
//! - [`Link`] is a relay between Envoy and a node, or a merger and etcd, that can be silent, refuse, delay, or answer with garbage.
//! - [`Pair`] is one Envoy with its merger; a cluster has one, or several that share an etcd and the nodes.
//! - [`Api`] sends requests to a node or a cluster; [`Api::settle`] waits for a task.
//! - [`Cluster`] is all of them together; [`Single`] is one node alone, for comparisons.
//!
//! Invariant: nothing outlives its handle. Processes die when it is dropped, when the test panics, and (on Linux)
//! when the test's own process is killed. Only [`Lifetime::Detached`] is meant to stay, for `weft-lab up`.

mod api;
mod binaries;
mod builder;
mod cluster;
mod commands;
pub mod data;
mod error;
mod etcd;
mod growth;
mod layout;
mod link;
pub mod oracle;
mod pair;
mod ports;
mod process;
mod single;
mod spawner;
mod stand_in;
mod supervisor;
mod wait;

pub use api::{Api, Reply};
pub use binaries::{Binaries, Node};
pub use builder::ClusterBuilder;
pub use cluster::{Cluster, hosts};
pub use commands::{ClusterPlan, EGRESS_SOCKET, Edit, MERGER_SOCKET, Sockets};
pub use error::HarnessError;
pub use growth::Watched;
pub use layout::Layout;
pub use link::{Line, Link};
pub use pair::Pair;
pub use ports::PortBlock;
pub use process::{Lifetime, Process, Program};
pub use single::Single;
pub use stand_in::{POISON, Searches, Seen, StandIn, StandInCluster, StandInOptions, Takes};
pub use wait::{Deadline, until};
