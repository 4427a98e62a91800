//! Where one index lies, and what became of it by being placed.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_routing::placement::{ShardId, SlotMap};

use super::changing::Changing;
use crate::cluster::WriteMode;

/// Where one index lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The index's uid.
    pub uid: String,
    /// The owner of each slot.
    pub slots: Arc<SlotMap>,
    /// The primary key, once it is known.
    pub primary_key: Option<String>,
    /// The task that deletes the index, as long as nothing is written after it.
    pub deleted_by: Option<u32>,
    /// The index's own write mode; `None` for the cluster's default.
    pub write_mode: Option<WriteMode>,
    /// On how many shards the index is to lie; `None` for all.
    pub shard_count: Option<u16>,
    /// Shards that may hold documents of slots that aren't theirs, because slots are moved: readers must ignore these documents.
    pub unsettled: BTreeSet<ShardId>,
    /// How far a change of strategy is, if one is under way.
    pub changing: Option<Changing>,
    /// Why the last change of strategy has led to nothing.
    pub change_error: Option<String>,
}

impl Placement {
    /// A new index.
    pub(crate) fn new(uid: &str, slots: Arc<SlotMap>, shard_count: Option<u16>) -> Self {
        Self {
            uid: uid.to_owned(),
            slots,
            primary_key: None,
            deleted_by: None,
            write_mode: None,
            shard_count,
            unsettled: BTreeSet::new(),
            changing: None,
            change_error: None,
        }
    }

    /// The shards that hold the index, in order.
    pub fn shards(&self) -> &[ShardId] {
        self.slots.shards()
    }

    /// The shards that hold the index only in preparation of a move: they own none of its slots yet, or not any more.
    pub fn guests(&self) -> impl Iterator<Item = ShardId> {
        let owns = |shard: &&ShardId| self.shards().contains(*shard);
        let guests = self.unsettled.iter().filter(move |shard| !owns(shard));
        guests.copied()
    }
}

/// The result of placing an index.
pub struct Placed {
    /// Where it lies.
    pub placement: Arc<Placement>,
    /// How the index was before.
    pub before: Before,
}

/// How an index was before it was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It did not exist.
    Absent,
    /// It existed, and a task that deletes it is under way.
    Dying,
    /// It existed.
    Alive,
}
