//! The ids of the documents in some slots.

use std::collections::{BTreeMap, BTreeSet};

use weft_routing::document_id::DocumentId;
use weft_routing::placement::SlotMap;
use weft_routing::slot::Slot;

use super::MoveError;
use crate::cluster::Noted;
use crate::repair::resync::{Remote, Scan};

/// The ids of the documents in some slots, by slot.
#[derive(Debug, Default)]
pub(super) struct IdsBySlot(BTreeMap<Slot, BTreeSet<String>>);

impl IdsBySlot {
    /// Reads all ids of an index on a node, and keeps those whose slots in `map` are `wanted`. First waits until the node has
    /// applied what it has taken.
    pub(super) async fn read(
        remote: &Remote<'_>,
        index: &str,
        primary_key: &str,
        map: &SlotMap,
        wanted: impl Fn(Slot) -> bool,
    ) -> Result<Self, MoveError> {
        remote.applied().await?;
        let mut ids = Self::default();
        let mut scan = Scan::of_ids(remote, index, primary_key);
        while let Some(page) = scan.next().await? {
            for (print, _) in page {
                let id = DocumentId::from_text(&print.id).ok();
                let slot = id.and_then(|id| map.slot_of(&id));
                if let Some(slot) = slot.filter(|slot| wanted(*slot)) {
                    ids.0.entry(slot).or_default().insert(print.id);
                }
            }
        }
        Ok(ids)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// Adds what was written meanwhile.
    pub(super) fn add(&mut self, noted: &Noted) {
        for (slot, ids) in &noted.ids {
            self.0.entry(*slot).or_default().extend(ids.iter().cloned());
        }
    }

    /// The ids in these slots.
    pub(super) fn of(&self, slots: &[Slot]) -> Vec<String> {
        let ids = slots.iter().filter_map(|slot| self.0.get(slot)).flatten();
        ids.cloned().collect()
    }

    /// All ids.
    pub(super) fn all(&self) -> Vec<String> {
        self.0.values().flatten().cloned().collect()
    }

    /// The first of these slots, as many as have no more documents than `most` together, and at least one.
    pub(super) fn batch(&self, slots: &[Slot], most: usize) -> Vec<Slot> {
        let (mut batch, mut count) = (Vec::new(), 0);
        for slot in slots {
            let documents = self.0.get(slot).map_or(0, BTreeSet::len);
            if !batch.is_empty() && count + documents > most {
                break;
            }
            count += documents;
            batch.push(*slot);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_whole_slots_and_no_more_documents_than_it_may() {
        let ids = |slot: u16, count: usize| {
            let ids = (0..count).map(|n| format!("{slot}-{n}"));
            (Slot(slot), ids.collect())
        };
        let all = IdsBySlot([ids(1, 3), ids(2, 4), ids(5, 9)].into_iter().collect());
        let slots: Vec<Slot> = [1, 2, 3, 5].into_iter().map(Slot).collect();
        assert_eq!(all.batch(&slots, 7), slots[..3]);
        assert_eq!(all.batch(&slots[3..], 7), [Slot(5)], "one at least");
        assert_eq!(all.batch(&slots, 6), [Slot(1)]);
        assert_eq!(all.len(), 16);
        assert_eq!(all.of(&[Slot(3), Slot(1)]).len(), 3);
        assert!(all.batch(&[], 5).is_empty());
    }
}
