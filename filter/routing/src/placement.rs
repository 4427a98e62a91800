//! Placement: which shard owns which slot, and which shards hold an index.
//!
//! Slots are assigned by rendezvous hashing (Thaler and Ravishankar, 1998) with bounded load: shares differ by at most one
//! slot. A new shard takes its share and nothing else moves; the slots of a removed shard are spread and nothing else moves.

mod anew;

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::document_id::DocumentId;
use crate::slot::{SLOT_COUNT, Slot, slot_of_value};
use crate::strategy::Strategy;
use crate::value::{RoutingField, RoutingValue};

/// A shard: a replica set, one Envoy cluster, named as [`ShardNames`](crate::ShardNames) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u16);

impl std::fmt::Display for ShardId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// There is no shard, but a slot map needs at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a placement needs at least one shard")]
pub struct NoShards;

/// The owner of every slot, and how documents get their slots. Never empty, and always of [`SLOT_COUNT`] slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMap {
    strategy: Strategy,
    owners: Box<[ShardId]>,
    /// The owners, each once, ascending.
    shards: Box<[ShardId]>,
}

/// Every how many slots an owner goes into the hash of a map.
const HASHED: usize = 127;

impl Hash for SlotMap {
    /// A table of 100,000 indexes hashes as many maps, so only some owners go in. Those that are moved are mostly many.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.strategy.hash(state);
        self.shards.hash(state);
        for owner in self.owners.iter().step_by(HASHED) {
            owner.hash(state);
        }
    }
}

impl SlotMap {
    /// Assigns all slots to `shards` (in any order, repetitions ignored). Shares differ by at most one slot.
    ///
    /// # Errors
    /// `shards` is empty.
    pub fn deal(shards: &[ShardId]) -> Result<Self, NoShards> {
        let shards = distinct(shards);
        let count = u32::try_from(shards.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return Err(NoShards);
        }
        let base = u32::from(SLOT_COUNT) / count;
        // The number of shards that may hold one slot more than the others.
        let mut extras = u32::from(SLOT_COUNT) % count;
        let mut loads = vec![0_u32; shards.len()];
        let mut owners = Vec::with_capacity(usize::from(SLOT_COUNT));
        for slot in slots() {
            let best = shards
                .iter()
                .zip(loads.iter_mut())
                .filter(|(_, load)| **load < base || (**load == base && extras > 0))
                .max_by_key(|(shard, _)| (affinity(slot, **shard), **shard));
            if let Some((shard, load)) = best {
                if *load == base {
                    extras -= 1;
                }
                *load += 1;
                owners.push(*shard);
            }
        }
        Self::from_owners(owners)
    }

    /// Assigns all slots to `shards` as suits the strategy: by range, each shard gets neighbouring slots, so that as few ranges
    /// as possible lie on more than one shard. Shares differ by at most one slot.
    ///
    /// # Errors
    /// `shards` is empty.
    pub fn deal_by(strategy: &Strategy, shards: &[ShardId]) -> Result<Self, NoShards> {
        let dealt = match strategy {
            Strategy::Hash | Strategy::Field(_) => Self::deal(shards)?,
            Strategy::Range(_) => Self::in_intervals(&distinct(shards))?,
            // Who owns what is told by where its documents were and are to be, and no longer by the shards.
            Strategy::Change(change) => return Ok(Self::begun(change)),
        };
        Ok(dealt.by(strategy.clone()))
    }

    /// The same owners for documents that get their slots by `strategy`.
    #[must_use]
    pub fn by(self, strategy: Strategy) -> Self {
        Self { strategy, ..self }
    }

    fn in_intervals(shards: &[ShardId]) -> Result<Self, NoShards> {
        let count = u64::try_from(shards.len()).unwrap_or(u64::MAX);
        let owner = |slot: Slot| {
            // The same division as that of slots among ranges, so that as many ranges as shards lie on one shard each.
            let place = ((u64::from(slot.0) + 1) * count).div_ceil(u64::from(SLOT_COUNT)) - 1;
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            shards.get(place).copied()
        };
        let owners = match count {
            0 => return Err(NoShards),
            _ => slots().filter_map(owner).collect(),
        };
        Self::from_owners(owners)
    }

    /// Assigns every slot to one shard.
    #[must_use]
    pub fn single(shard: ShardId) -> Self {
        Self {
            strategy: Strategy::Hash,
            owners: vec![shard; usize::from(SLOT_COUNT)].into(),
            shards: vec![shard].into(),
        }
    }

    /// A map from the owner of each slot, in order, for documents that are placed by hash.
    ///
    /// # Errors
    /// The number of owners isn't [`SLOT_COUNT`].
    pub fn from_owners(owners: Vec<ShardId>) -> Result<Self, NoShards> {
        if owners.len() != usize::from(SLOT_COUNT) {
            return Err(NoShards);
        }
        let shards = distinct(&owners).into();
        Ok(Self {
            strategy: Strategy::Hash,
            owners: owners.into(),
            shards,
        })
    }

    /// Gives some slots to another shard: one step of moving them.
    #[must_use]
    pub fn with_owner_of_all(&self, slots: &[Slot], owner: ShardId) -> Self {
        let mut owners = self.owners.to_vec();
        for slot in slots {
            if let Some(entry) = owners.get_mut(usize::from(slot.0)) {
                *entry = owner;
            }
        }
        Self::from_owners(owners).map_or_else(|_| self.clone(), |map| map.by(self.strategy.clone()))
    }

    /// The slots spread over `shards` (in any order, repetitions ignored), so that shares differ by at most one slot and as few
    /// slots as possible change their owner.
    ///
    /// # Errors
    /// `shards` is empty.
    pub fn levelled(&self, shards: &[ShardId]) -> Result<Self, NoShards> {
        let shards = distinct(shards);
        if shards.is_empty() {
            return Err(NoShards);
        }
        let mut owned: Vec<(ShardId, Vec<Slot>)> = shards
            .iter()
            .map(|shard| (*shard, self.slots_of(*shard).collect()))
            .collect();
        // The shards with the most slots keep one more than the others.
        owned.sort_by_key(|(shard, slots)| (std::cmp::Reverse(slots.len()), *shard));
        let (base, extras) = (
            usize::from(SLOT_COUNT) / shards.len(),
            usize::from(SLOT_COUNT) % shards.len(),
        );
        let share = |place: usize| base + usize::from(place < extras);
        let is_free = |shard: &ShardId| !shards.contains(shard);
        let mut free: Vec<Slot> = slots()
            .filter(|slot| is_free(&self.shard_of_slot(*slot)))
            .collect();
        for (place, (shard, slots)) in owned.iter_mut().enumerate() {
            // The slots that a shard gives away are those that it prefers least.
            slots.sort_by_key(|slot| (std::cmp::Reverse(affinity(*slot, *shard)), *slot));
            free.extend(slots.drain(share(place).min(slots.len())..));
        }
        free.sort_unstable();
        let mut lacking: Vec<(ShardId, usize)> = owned
            .iter()
            .enumerate()
            .map(|(place, (shard, slots))| (*shard, share(place) - slots.len()))
            .filter(|(_, lacks)| *lacks > 0)
            .collect();
        let mut owners = self.owners.to_vec();
        for slot in free {
            let best = lacking
                .iter_mut()
                .filter(|(_, lacks)| *lacks > 0)
                .max_by_key(|(shard, _)| (affinity(slot, *shard), *shard));
            if let Some((shard, lacks)) = best
                && let Some(owner) = owners.get_mut(usize::from(slot.0))
            {
                *owner = *shard;
                *lacks -= 1;
            }
        }
        Ok(Self::from_owners(owners)?.by(self.strategy.clone()))
    }

    /// The shards that own at least one slot, ascending; never empty.
    #[must_use]
    pub fn shards(&self) -> &[ShardId] {
        &self.shards
    }

    /// The only shard, if there is just one.
    #[must_use]
    pub fn only_shard(&self) -> Option<ShardId> {
        match &*self.shards {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// The owner of a slot (of the last slot, for a number beyond it).
    #[must_use]
    pub fn shard_of_slot(&self, slot: Slot) -> ShardId {
        let last = self.owners.last().copied().unwrap_or(ShardId(0));
        self.owners
            .get(usize::from(slot.0))
            .copied()
            .unwrap_or(last)
    }

    /// How documents get their slots.
    #[must_use]
    pub fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// The field whose value tells where a document lies; `None` if its id does.
    #[must_use]
    pub fn field(&self) -> Option<&RoutingField> {
        self.strategy.field()
    }

    /// The slot of the document with this id; `None` if its id doesn't tell.
    #[must_use]
    pub fn slot_of(&self, id: &DocumentId<'_>) -> Option<Slot> {
        self.strategy.slot_of(id)
    }

    /// The owner of the document with this id; `None` if its id doesn't tell, and there are several shards.
    #[must_use]
    pub fn shard_of(&self, id: &DocumentId<'_>) -> Option<ShardId> {
        let by_id = || self.slot_of(id).map(|slot| self.shard_of_slot(slot));
        self.only_shard().or_else(by_id)
    }

    /// The owner of the document with this id and this value of the routing field; `None` if it lacks what tells, and there are
    /// several shards.
    #[must_use]
    pub fn shard_of_document(
        &self,
        id: &DocumentId<'_>,
        value: Option<&RoutingValue>,
    ) -> Option<ShardId> {
        let told = || self.strategy.slot_of_document(id, value);
        let owner = || told().map(|slot| self.shard_of_slot(slot));
        self.only_shard().or_else(owner)
    }

    /// The owner of the documents whose routing field has this value, of an index that lies by that field. While its strategy
    /// changes, a value alone doesn't tell.
    #[must_use]
    pub fn shard_of_value(&self, value: &RoutingValue) -> ShardId {
        self.shard_of_slot(slot_of_value(value))
    }

    /// The slots of a shard, ascending.
    pub fn slots_of(&self, shard: ShardId) -> impl Iterator<Item = Slot> {
        slots()
            .zip(self.owners.iter())
            .filter(move |(_, owner)| **owner == shard)
            .map(|(slot, _)| slot)
    }

    /// The owner of each slot, in order of the slots.
    #[must_use]
    pub fn owners(&self) -> &[ShardId] {
        &self.owners
    }
}

/// The shards that hold an index: `count` of `all`, by rendezvous hashing of its uid, ascending.
/// More shards for the same index are a superset of fewer; `count` beyond `all` gives all, 0 gives none.
#[must_use]
pub fn choose_shards(index_uid: &str, all: &[ShardId], count: usize) -> Vec<ShardId> {
    let mut ranked = distinct(all);
    ranked.sort_by_key(|shard| {
        let score = xxh3_64_with_seed(index_uid.as_bytes(), u64::from(shard.0));
        (std::cmp::Reverse(score), *shard)
    });
    ranked.truncate(count);
    ranked.sort_unstable();
    ranked
}

/// The hash by which a slot prefers shards: higher means preferred.
fn affinity(slot: Slot, shard: ShardId) -> u64 {
    let [slot_low, slot_high] = slot.0.to_le_bytes();
    let [shard_low, shard_high] = shard.0.to_le_bytes();
    xxh3_64(&[slot_low, slot_high, shard_low, shard_high])
}

fn slots() -> impl Iterator<Item = Slot> {
    (0..SLOT_COUNT).map(Slot)
}

fn distinct(shards: &[ShardId]) -> Vec<ShardId> {
    let mut distinct = shards.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}
