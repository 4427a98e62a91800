//! A change of strategy that is under way: documents go from where the old strategy places them to where the new one does.
//!
//! Each document has an old owner, by the old slots, and a new one, by the new slots. While the change lasts, the slots are
//! intervals, one for each pair of an old and a new owner, and the hash of the id chooses within the interval. So when a change
//! begins, the slots of a pair are the old owner's, and when it ends they are the new owner's, and no document has changed its
//! owner by either. In between they are moved as any slots are.
//!
//! The slot of a document depends on both maps and on nothing that changes while slots move.

use std::sync::Arc;

use super::Strategy;
use crate::document_id::DocumentId;
use crate::placement::{ShardId, SlotMap};
use crate::slot::{SLOT_COUNT, Slot, hash_among};
use crate::value::{RoutingField, RoutingValue};

/// From where to where the documents of an index go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    old: Arc<SlotMap>,
    new: Arc<SlotMap>,
}

/// Why an index can't go from one strategy to another directly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// There are more pairs of shards than slots.
    #[error(
        "there are {old} shards before and {new} afterwards, and no more than {SLOT_COUNT} pairs of them are possible"
    )]
    TooManyPairs {
        /// How many shards own slots now.
        old: usize,
        /// How many are to own some.
        new: usize,
    },
    /// Both strategies place documents by a field, and not by the same.
    #[error("documents can't go from one field to another directly")]
    TwoFields,
    /// One of the two is a change already.
    #[error("a change of strategy is under way")]
    UnderWay,
}

impl Change {
    /// A change from the old slots to the new ones.
    ///
    /// # Errors
    /// See [`BadChange`].
    pub fn new(old: Arc<SlotMap>, new: Arc<SlotMap>) -> Result<Self, BadChange> {
        let is_change = |map: &SlotMap| matches!(map.strategy(), Strategy::Change(_));
        if is_change(&old) || is_change(&new) {
            return Err(BadChange::UnderWay);
        }
        let counts = (old.shards().len(), new.shards().len());
        if counts.0.saturating_mul(counts.1) > usize::from(SLOT_COUNT) {
            let (old, new) = counts;
            return Err(BadChange::TooManyPairs { old, new });
        }
        match (old.field(), new.field()) {
            (Some(one), Some(other)) if one != other => Err(BadChange::TwoFields),
            _ => Ok(Self { old, new }),
        }
    }

    /// Where documents were placed before.
    #[must_use]
    pub fn old(&self) -> &Arc<SlotMap> {
        &self.old
    }

    /// Where documents are placed afterwards.
    #[must_use]
    pub fn new_slots(&self) -> &Arc<SlotMap> {
        &self.new
    }

    /// The field whose value tells the slot, beside the id. Also with one old shard, where it tells nothing: documents that are
    /// written meanwhile must have it if the index goes back.
    pub(super) fn field(&self) -> Option<&RoutingField> {
        self.new.field().or(self.old.field())
    }

    /// The slot of a document; `None` if it lacks the value that tells.
    pub(super) fn slot_of(
        &self,
        id: &DocumentId<'_>,
        value: Option<&RoutingValue>,
    ) -> Option<Slot> {
        let from = self.old.shard_of_document(id, value)?;
        let to = self.new.shard_of_document(id, value)?;
        let (first, end) = self.interval(from, to)?;
        Some(Slot(first + hash_among(id, end - first)))
    }

    /// Each slot with its old and its new owner, in order of the slots.
    fn pairs(&self) -> impl Iterator<Item = (ShardId, ShardId)> {
        let old = self.old.shards().iter();
        let pairs = old.flat_map(|from| self.new.shards().iter().map(|to| (*from, *to)));
        pairs.flat_map(|(from, to)| {
            let (first, end) = self.interval(from, to).unwrap_or_default();
            (first..end).map(move |_| (from, to))
        })
    }

    /// The first slot of a pair, and the first beyond its slots.
    fn interval(&self, from: ShardId, to: ShardId) -> Option<(u16, u16)> {
        let (old, new) = (self.old.shards(), self.new.shards());
        let (row, column) = (old.binary_search(&from).ok()?, new.binary_search(&to).ok()?);
        let pair = u64::try_from(row * new.len() + column).ok()?;
        let count = u64::try_from(old.len() * new.len()).ok()?;
        let bound = |pair: u64| u16::try_from(pair * u64::from(SLOT_COUNT) / count).ok();
        Some((bound(pair)?, bound(pair + 1)?))
    }
}

impl SlotMap {
    /// The slots of an index whose change begins: each document lies where it lay.
    #[must_use]
    pub fn begun(change: &Arc<Change>) -> Self {
        Self::of_pairs(change, |(from, _)| from)
    }

    /// The slots of an index whose change is about to end: each document lies where it is to lie.
    #[must_use]
    pub fn arrived(change: &Arc<Change>) -> Self {
        Self::of_pairs(change, |(_, to)| to)
    }

    fn of_pairs(change: &Arc<Change>, owner: impl Fn((ShardId, ShardId)) -> ShardId) -> Self {
        let owners = change.pairs().map(owner).collect();
        // There are as many pairs as slots; the fallback is unreachable and keeps the function total.
        let map = Self::from_owners(owners).unwrap_or_else(|_| Self::clone(&change.old));
        map.by(Strategy::Change(Arc::clone(change)))
    }

    /// The change of strategy that is under way, if any.
    #[must_use]
    pub fn change(&self) -> Option<&Arc<Change>> {
        match self.strategy() {
            Strategy::Change(change) => Some(change),
            Strategy::Hash | Strategy::Range(_) | Strategy::Field(_) => None,
        }
    }
}
