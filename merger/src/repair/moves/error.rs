//! Why a move stops.

use weft_routing::placement::ShardId;

use crate::cluster::{ClusterError, Slotting};
use crate::repair::resync::ResyncError;
use crate::replication::NotTaken;
use crate::store::StoreError;

/// Why a move can't go on now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    /// A node didn't answer as it should, or refused.
    #[error(transparent)]
    Node(Box<ResyncError>),
    /// A write didn't reach enough replicas.
    #[error("shard-{}: {source}", .shard.0)]
    NotTaken {
        /// The shard.
        shard: ShardId,
        /// What happened.
        source: Box<NotTaken>,
    },
    /// A shard isn't usable.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No replica of the shard answers.
    #[error("no replica of shard-{} answers", .0.0)]
    NotUp(ShardId),
    /// The settings of the new shard can't be made equal.
    #[error("the settings of `{index}` can't be set on shard-{}", .shard.0)]
    Settings {
        /// The index.
        index: String,
        /// The new shard.
        shard: ShardId,
    },
    /// Documents still differ after they were copied several times.
    #[error("{0} documents differ though they were copied")]
    StillDiffers(usize),
    /// A document lacks what tells its slot, as after an edition by function on one shard.
    #[error(
        "document `{id}` of `{index}` has no usable value in `{field}`, which tells where it belongs"
    )]
    Unplaced {
        /// The index.
        index: String,
        /// The document.
        id: String,
        /// The routing field.
        field: String,
    },
    /// A turn took too long.
    #[error("the nodes are too slow for a turn")]
    TooSlow,
    /// The index was swapped, renamed or changed otherwise: the move begins again with what it finds.
    #[error("the index has changed meanwhile")]
    Changed,
    /// The index is gone.
    #[error("the index is gone")]
    Gone,
    /// Somebody cancelled the move.
    #[error("it was cancelled")]
    Cancelled,
    /// The merger stops, or leads no more.
    #[error("the merger stops")]
    Stopping,
    /// All moves are paused.
    #[error("moves are paused")]
    Paused,
}

impl MoveError {
    /// A document lacks what tells its slot.
    pub(super) fn unplaced(index: &str, id: &str, slotting: Slotting<'_>) -> Self {
        let field = slotting.strategy().field();
        Self::Unplaced {
            index: index.to_owned(),
            id: id.to_owned(),
            field: field.map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl From<ResyncError> for MoveError {
    fn from(error: ResyncError) -> Self {
        Self::Node(Box::new(error))
    }
}
