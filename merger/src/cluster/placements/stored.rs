//! A placement as it is stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_routing::document_id::DocumentId;
use weft_routing::placement::{ShardId, SlotMap};
use weft_routing::strategy::{Change, IdKey, Ranges, Strategy};
use weft_routing::value::RoutingField;

use super::{Changing, Placement, Stage};
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    /// The strategy that follows the change under way, as slots on no certain shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    then: Option<StoredSlots>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change_error: Option<String>,
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
    /// A variant of its own, so that a version that doesn't know ranges refuses the placement and guesses nothing.
    ByRange {
        boundaries: Vec<String>,
        slots: Box<StoredSlots>,
    },
    /// Likewise for versions that don't know routing fields.
    ByField {
        field: String,
        slots: Box<StoredSlots>,
    },
    /// Likewise for versions that don't know changes of strategy.
    Change {
        old: Box<StoredSlots>,
        new: Box<StoredSlots>,
        slots: Box<StoredSlots>,
    },
}

impl StoredSlots {
    fn of(slots: &SlotMap) -> Self {
        let numbers = |shards: &[ShardId]| shards.iter().map(|shard| shard.0).collect();
        let dealt = SlotMap::deal_by(slots.strategy(), slots.shards());
        let owners = match dealt.is_ok_and(|dealt| dealt == *slots) {
            true => Self::Dealt(numbers(slots.shards())),
            false => Self::Owners(numbers(slots.owners())),
        };
        match slots.strategy() {
            Strategy::Hash => owners,
            Strategy::Range(ranges) => Self::ByRange {
                boundaries: ranges.boundaries().iter().map(IdKey::to_string).collect(),
                slots: Box::new(owners),
            },
            Strategy::Field(field) => Self::ByField {
                field: field.to_string(),
                slots: Box::new(owners),
            },
            Strategy::Change(change) => Self::Change {
                old: Box::new(Self::of(change.old())),
                new: Box::new(Self::of(change.new_slots())),
                slots: Box::new(owners),
            },
        }
    }

    fn of_strategy(strategy: &Strategy) -> Self {
        Self::of(&SlotMap::single(ShardId(0)).by(strategy.clone()))
    }

    fn read(self, strategy: &Strategy) -> Option<SlotMap> {
        let shards = |numbers: Vec<u16>| numbers.into_iter().map(ShardId).collect::<Vec<_>>();
        match self {
            Self::Dealt(numbers) => SlotMap::deal_by(strategy, &shards(numbers)).ok(),
            Self::Owners(numbers) => {
                let slots = SlotMap::from_owners(shards(numbers)).ok()?;
                Some(slots.by(strategy.clone()))
            }
            Self::ByRange { boundaries, slots } => {
                let key = |text: &String| Some(IdKey::of(&DocumentId::from_text(text).ok()?));
                let boundaries = boundaries.iter().map(key).collect::<Option<Vec<_>>>()?;
                slots.read(&Strategy::Range(Ranges::new(boundaries).ok()?))
            }
            Self::ByField { field, slots } => {
                slots.read(&Strategy::Field(RoutingField::new(&field).ok()?))
            }
            Self::Change { old, new, slots } => {
                let map = |stored: Self| stored.read(&Strategy::Hash).map(Arc::new);
                let change = Change::new(map(*old)?, map(*new)?).ok()?;
                slots.read(&Strategy::Change(Arc::new(change)))
            }
        }
    }
}

pub(super) fn encode(placement: &Placement) -> Vec<u8> {
    let stored = Stored {
        slots: StoredSlots::of(&placement.slots),
        primary_key: placement.primary_key.clone(),
        deleted_by: placement.deleted_by,
        write_mode: placement.write_mode,
        shard_count: Some(
            placement
                .shard_count
                .map_or(ShardCount::All, ShardCount::Some),
        ),
        unsettled: placement.unsettled.clone(),
        stage: placement.changing.as_ref().map(|changing| changing.stage),
        then: placement
            .changing
            .as_ref()
            .and_then(|changing| changing.then.as_ref())
            .map(StoredSlots::of_strategy),
        change_error: placement.change_error.clone(),
    };
    serde_json::to_vec(&stored).unwrap_or_default()
}

pub(super) fn decode(uid: &str, bytes: &[u8]) -> Option<Placement> {
    let stored: Stored = serde_json::from_slice(bytes).ok()?;
    let slots = stored.slots.read(&Strategy::Hash)?;
    let then = match stored.then {
        None => None,
        Some(then) => Some(then.read(&Strategy::Hash)?.strategy().clone()),
    };
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
        changing: slots.change().map(|_| Changing {
            // It is looked again rather than moved what can't be placed.
            stage: stored.stage.unwrap_or(Stage::Checking),
            then,
        }),
        change_error: stored.change_error,
        slots: Arc::new(slots),
    })
}
