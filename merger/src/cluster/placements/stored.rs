//! A placement as it is stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_routing::placement::{ShardId, SlotMap};

use super::Placement;
use crate::cluster::WriteMode;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    slots: StoredSlots,
    primary_key: Option<String>,
    deleted_by: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    write_mode: Option<WriteMode>,
    /// Missing where an earlier version stored the placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shard_count: Option<ShardCount>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    unsettled: BTreeSet<ShardId>,
}

/// On how many shards an index is to lie.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum ShardCount {
    All,
    Some(u16),
}

/// Slots that are still as dealt are stored as the list of shards, so that thousands of small indexes stay small.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredSlots {
    Dealt(Vec<u16>),
    Owners(Vec<u16>),
}

pub(super) fn encode(placement: &Placement) -> Vec<u8> {
    let shards: Vec<u16> = placement.shards().iter().map(|shard| shard.0).collect();
    let dealt = SlotMap::deal(placement.shards()).is_ok_and(|dealt| dealt == *placement.slots);
    let slots = if dealt {
        StoredSlots::Dealt(shards)
    } else {
        StoredSlots::Owners(
            placement
                .slots
                .owners()
                .iter()
                .map(|shard| shard.0)
                .collect(),
        )
    };
    let stored = Stored {
        slots,
        primary_key: placement.primary_key.clone(),
        deleted_by: placement.deleted_by,
        write_mode: placement.write_mode,
        shard_count: Some(
            placement
                .shard_count
                .map_or(ShardCount::All, ShardCount::Some),
        ),
        unsettled: placement.unsettled.clone(),
    };
    serde_json::to_vec(&stored).unwrap_or_default()
}

pub(super) fn decode(uid: &str, bytes: &[u8]) -> Option<Placement> {
    let stored: Stored = serde_json::from_slice(bytes).ok()?;
    let shards = |numbers: Vec<u16>| numbers.into_iter().map(ShardId).collect::<Vec<_>>();
    let slots = match stored.slots {
        StoredSlots::Dealt(numbers) => SlotMap::deal(&shards(numbers)),
        StoredSlots::Owners(numbers) => SlotMap::from_owners(shards(numbers)),
    };
    let slots = slots.ok()?;
    Some(Placement {
        uid: uid.to_owned(),
        primary_key: stored.primary_key,
        deleted_by: stored.deleted_by,
        write_mode: stored.write_mode,
        shard_count: match stored.shard_count {
            Some(ShardCount::Some(count)) => Some(count),
            Some(ShardCount::All) => None,
            // An index on one shard was meant to be small.
            None => (slots.shards().len() == 1).then_some(1),
        },
        unsettled: stored.unsettled,
        slots: Arc::new(slots),
    })
}
