//! Slots: the buckets of the hash space. A document id hashes to a slot; a slot belongs to one shard.
//!
//! The hash decides where every stored document is, so it can never change. The constants in `tests/routing/hashes.rs` check
//! this, natively and compiled to wasm.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::document_id::DocumentId;
use crate::value::RoutingValue;

/// The number of slots in the hash space. Part of the storage format.
pub const SLOT_COUNT: u16 = 4096;

/// A slot, `0..SLOT_COUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u16);

/// The slot of a document that is placed by hash: its canonical id's xxh3, scaled to [`SLOT_COUNT`] with 128-bit arithmetic (no `usize`).
#[must_use]
pub fn slot_of(id: &DocumentId<'_>) -> Slot {
    scale(xxh3_64(id.as_str().as_bytes()))
}

/// The slot of documents whose routing field has this value.
#[must_use]
pub fn slot_of_value(value: &RoutingValue) -> Slot {
    scale(xxh3_64(value.as_str().as_bytes()))
}

/// A number below `count` by the same hash: which of some neighbouring slots a document has.
pub(crate) fn hash_among(id: &DocumentId<'_>, count: u16) -> u16 {
    scale_to(xxh3_64(id.as_str().as_bytes()), count)
}

fn scale(hash: u64) -> Slot {
    Slot(scale_to(hash, SLOT_COUNT))
}

fn scale_to(hash: u64, count: u16) -> u16 {
    let scaled = (u128::from(hash) * u128::from(count)) >> 64;
    // Always below the count; the fallback is unreachable and keeps the function total.
    u16::try_from(scaled).unwrap_or(count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_hash_space_are_the_first_and_the_last_slot() {
        assert_eq!(scale(0), Slot(0));
        assert_eq!(scale(u64::MAX), Slot(SLOT_COUNT - 1));
        assert_eq!(scale(1 << 63), Slot(SLOT_COUNT / 2));
    }

    #[test]
    fn a_number_and_its_text_share_a_slot() {
        let number = DocumentId::from_json("42").unwrap();
        let text = DocumentId::from_json("\"42\"").unwrap();
        let path = DocumentId::from_text("42").unwrap();
        assert_eq!(slot_of(&number), slot_of(&text));
        assert_eq!(slot_of(&number), slot_of(&path));
    }
}
