//! The slots of an index that is to lie by another strategy, so that not more documents than necessary change their shard.

use super::{NoShards, ShardId, SlotMap, slots};
use crate::slot::Slot;
use crate::strategy::{IdRange, Ranges, Strategy};

impl SlotMap {
    /// The slots of this index by another strategy, over `shards` (in any order, repetitions ignored). From ranges to other ranges,
    /// documents stay where they are as far as shares that differ by at most one slot allow it. Otherwise the slots are dealt.
    ///
    /// # Errors
    /// `shards` is empty.
    pub fn dealt_anew(&self, strategy: &Strategy, shards: &[ShardId]) -> Result<Self, NoShards> {
        match (self.strategy(), strategy) {
            (Strategy::Range(old), Strategy::Range(new)) => {
                let owners = slots().map(|slot| self.owner_in(old, new, slot)).collect();
                let split = Self::from_owners(owners)?.by(strategy.clone());
                split.levelled(shards)
            }
            _ => Self::deal_by(strategy, shards),
        }
    }

    /// Who owns now what most of the documents in a slot of the new ranges have as their slot: the same part of the old range
    /// with the new range's first id.
    fn owner_in(&self, old: &Ranges, new: &Ranges, slot: Slot) -> ShardId {
        let place = new.iter().take_while(|range| range.first <= slot).last();
        let before = place.and_then(|range| {
            let holder = old.iter().take_while(|held| held.from <= range.from).last();
            holder.map(|holder| same_part(&range, &holder, slot))
        });
        self.shard_of_slot(before.unwrap_or(slot))
    }
}

/// The slot of `old` that is as far along as `slot` is in `new`: the hash of an id goes that far in either.
fn same_part(new: &IdRange<'_>, old: &IdRange<'_>, slot: Slot) -> Slot {
    let along = u32::from(slot.0.saturating_sub(new.first.0));
    // The middle of the slot, since seams of owners don't fall together where there are more or fewer slots.
    let part = (2 * along + 1) * u32::from(old.slots) / (2 * u32::from(new.slots));
    let last = old.slots.saturating_sub(1);
    let part = u16::try_from(part).unwrap_or(last).min(last);
    Slot(old.first.0 + part)
}
