//! The files from which Envoy reads a cluster's endpoints (EDS), where it was told to: what they look like, and how one node in
//! them takes another's place. `weft config shards` writes them first, and the merger changes them when a spare node is taken.
//!
//! [`Assignment`] is the content of a file and does no I/O. [`files`] reads and writes. Invariant: a file is always whole. It is
//! written beside its place and moved there, which is also what Envoy notices.

mod assignment;
pub mod files;

pub use assignment::{Assignment, Check, Endpoint, UnreadableFile};

use weft_routing::placement::ShardId;

/// Envoy's cluster of nodes that belong to no shard yet.
pub const SPARE: &str = "spare";

/// The file with the shards' clusters (CDS), in the folder that Envoy watches.
pub const CLUSTERS_FILE: &str = "clusters.yaml";

/// The file with the spare nodes.
pub const SPARE_FILE: &str = "spare.json";

/// The file with a shard's nodes. It is called by the shard's number, whatever the cluster is called.
pub fn shard_file(shard: ShardId) -> String {
    format!("shard-{}.json", shard.0)
}
