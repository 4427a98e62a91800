//! What the cluster can't do.

use std::time::Duration;

use weft_routing::placement::ShardId;

use super::NodeId;
use super::backups::LEASE as BACKUP_LEASE;
use crate::call::ReadError;
use crate::store::StoreError;

/// Why the cluster can't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Envoy hasn't listed any shard yet.
    #[error("no shard is known: Envoy's admin interface lists no cluster with the shards' prefix")]
    NoShards,
    /// More shards were asked for than there are.
    #[error("{wanted} shards were asked for, and there are {known}")]
    TooManyShards {
        /// How many were asked for.
        wanted: u16,
        /// How many there are.
        known: usize,
    },
    /// Fewer shards than needed have as many replicas as were asked for.
    #[error(
        "{wanted} replicas a shard were asked for, and {fitting} of {needed} shards have as many"
    )]
    TooFewReplicas {
        /// How many replicas were asked for.
        wanted: u16,
        /// How many shards have at least so many replicas.
        fitting: usize,
        /// How many such shards are needed.
        needed: usize,
    },
    /// A shard of a placement isn't in Envoy's configuration, or has no node.
    #[error("shard-{} has no node", .0.0)]
    ShardEmpty(ShardId),
    /// No replica of a shard holds all acknowledged writes: none is in sync, or the last one lost its data.
    #[error("shard-{} has no replica in sync: see GET /_cluster/nodes", .0.0)]
    ShardLost(ShardId),
    /// A write must be taken by more replicas than are in sync.
    #[error("shard-{} has {in_sync} replicas in sync, and a write by quorum must be taken by {wanted}; nothing was written", .shard.0)]
    NoQuorum {
        /// The shard.
        shard: ShardId,
        /// How many are in sync.
        in_sync: usize,
        /// How many must take the write.
        wanted: usize,
    },
    /// A change of indexes was interrupted: the shard has it, or may have it, while other shards don't.
    #[error("shard-{} is locked while an interrupted index change is completed; nothing was written: retry", .0.0)]
    Held(ShardId),
    /// A write was interrupted, and no replica has said yet whether it took the write.
    #[error("shard-{}: a write was cut off, and no replica says what it has taken; nothing was written", .0.0)]
    InDoubt(ShardId),
    /// The last replica in sync can't be removed from the in-sync set.
    #[error(
        "`{0}` is the last replica of its shard that is in sync: nothing else holds its documents"
    )]
    LastReplica(NodeId),
    /// A node that must be asked doesn't answer.
    #[error("node `{0}` does not answer; nothing was changed")]
    Silent(NodeId),
    /// A request body is invalid; the text says why.
    #[error("{0}")]
    InvalidBody(String),
    /// A header that says how to do a read or write is invalid; the text says why.
    #[error("{0}")]
    InvalidWish(String),
    /// The merger has no task with this uid.
    #[error("Task `{0}` not found.")]
    UnknownTask(u32),
    /// A read must see a task that isn't applied yet.
    #[error("task {uid} was not applied within {} ms", within.as_millis())]
    NotApplied {
        /// The task's uid.
        uid: u32,
        /// How long the read waited.
        within: Duration,
    },
    /// The index doesn't exist.
    #[error("Index `{0}` not found.")]
    UnknownIndex(String),
    /// No such path below `/_cluster`, or not with this method.
    #[error("Weft knows no `{0}`")]
    UnknownPath(String),
    /// A shard that isn't in Envoy's configuration.
    #[error("shard `{0}` is not known")]
    UnknownShard(String),
    /// No move has this number.
    #[error("move `{0}` not found")]
    UnknownMove(String),
    /// The only shard that may hold anything can't be emptied.
    #[error("no other shard is there to take what shard-{} holds", .0.0)]
    LastShard(ShardId),
    /// The sizes of the indexes can't be read from the nodes.
    #[error("nothing can be planned now: {0}")]
    Unread(String),
    /// An index can't go to another strategy.
    #[error(transparent)]
    BadChange(#[from] weft_routing::strategy::BadChange),
    /// A node that isn't in Envoy's configuration.
    #[error("node `{0}` is not known")]
    UnknownNode(NodeId),
    /// No backup has this id: it has ended, or another merger leads.
    #[error("backup `{0}` not found: it has ended, or another merger leads now")]
    UnknownBackup(String),
    /// One backup at a time.
    #[error("another backup is being made; it ends by itself {} s after the last word of its client", BACKUP_LEASE.as_secs())]
    BackupRunning,
    /// The copy so far is of no use.
    #[error("the backup must begin anew: {0}")]
    BackupBroken(String),
    /// A node that a backup reads doesn't answer as it should.
    #[error("the backup can't be read now: {0}")]
    BackupUnread(String),
    /// With direct writes, nobody knows the order of writes.
    #[error("a backup needs all writes to go through the merger: set `--direct-writes false`")]
    BackupUnordered,
    /// A placement can't be read back.
    #[error("the placement of `{0}` is stored in a form that can't be read")]
    Corrupt(String),
    /// The client's body couldn't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
