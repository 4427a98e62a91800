//! A move, and how moves are carried out, as they are stored.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use weft_routing::placement::ShardId;
use weft_routing::slot::Slot;

/// How fast a move copies unless somebody says otherwise, so that searches stay fast.
const DEFAULT_BYTES_PER_SECOND: u64 = 8 << 20;

/// Where a move stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MoveState {
    /// Others come first, or all moves are paused.
    Waiting,
    /// The new shard gets the index, and filters leave the index to the merger.
    Preparing,
    /// Documents are copied to the new shard.
    Copying,
    /// A batch of slots changes its owner.
    HandingOver,
    /// What may be left on either shard is removed.
    Settling,
    /// All slots are moved.
    Done,
    /// It was cancelled, or its index is gone. What was moved before stays moved.
    Cancelled,
}

/// A move.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Move {
    /// Its number.
    pub(crate) id: u64,
    /// The index's uid.
    pub(crate) index: String,
    /// The shard that gives slots away.
    pub(crate) from: ShardId,
    /// The shard that gets them.
    pub(crate) to: ShardId,
    /// The slots, ascending, those already moved included.
    #[serde(with = "super::spans")]
    pub(crate) slots: Vec<Slot>,
    /// Where it stands.
    pub(crate) state: MoveState,
    /// How many documents there are to move: reckoned at first, counted when the shard was read.
    pub(crate) documents: u64,
    /// How many were brought to the new shard, those not moved yet included.
    #[serde(default)]
    pub(crate) copied: u64,
    /// How many are moved.
    pub(crate) moved: u64,
    /// How many of them the old shard has deleted.
    #[serde(default)]
    pub(crate) removed: u64,
    /// How many bytes were copied.
    pub(crate) bytes: u64,
    /// Whether somebody wants it cancelled.
    #[serde(default)]
    pub(crate) cancelled: bool,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    /// When it began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) finished_at: Option<OffsetDateTime>,
    /// Why the last attempt failed; it is tried again.
    pub(crate) error: Option<String>,
}

impl Move {
    /// Whether it is over.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, MoveState::Done | MoveState::Cancelled)
    }
}

/// How moves are carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MoveOptions {
    /// Whether nothing is moved for now.
    pub(crate) paused: bool,
    /// How many moves run at once, each of another index.
    pub(crate) max_concurrent: usize,
    /// How many bytes each move may copy per second; `None` for no limit.
    pub(crate) bytes_per_second: Option<u64>,
    /// How many documents of an index two shards hold at the same time, at most; `None` for what `--move-batch` says.
    pub(crate) batch_documents: Option<usize>,
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            paused: false,
            max_concurrent: 2,
            bytes_per_second: Some(DEFAULT_BYTES_PER_SECOND),
            batch_documents: None,
        }
    }
}
