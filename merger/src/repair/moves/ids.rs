//! The ids of the documents in some slots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use weft_routing::slot::Slot;

use super::MoveError;
use crate::cluster::{Noted, Slotting, Told};
use crate::repair::resync::{Remote, Scan};

/// The ids of the documents in some slots, by slot.
#[derive(Debug, Default)]
pub(super) struct IdsBySlot {
    slots: BTreeMap<Slot, BTreeSet<Arc<str>>>,
    /// Where each id is in `slots`: a document that is written may get another slot.
    places: HashMap<Arc<str>, Slot>,
}

/// What is read of an index on a node.
pub(super) struct Reading<'a> {
    pub(super) remote: Remote<'a>,
    pub(super) index: &'a str,
    pub(super) slotting: Slotting<'a>,
}

impl IdsBySlot {
    /// Reads the ids of all documents of an index on a node, and keeps those whose slots are `wanted`. First waits until the node
    /// has applied what it has taken. `unplaced` says what becomes of a document that lacks what tells its slot.
    pub(super) async fn read(
        &mut self,
        from: &Reading<'_>,
        wanted: impl Fn(Slot) -> bool,
        unplaced: impl Fn(&Told) -> Result<(), MoveError>,
    ) -> Result<(), MoveError> {
        from.remote.applied().await?;
        let (slotting, fields) = (from.slotting, from.slotting.fields());
        let mut scan = Scan::of_fields(&from.remote, from.index, &fields);
        while let Some(page) = scan.next().await? {
            for (_, document) in page {
                let Some(told) = slotting.of(&document) else {
                    continue;
                };
                if told.slot.is_none() {
                    unplaced(&told)?;
                }
                self.put(&told.id, told.slot.filter(|slot| wanted(*slot)));
            }
        }
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Notes in which slot a document is; `None` if it is in none that is wanted, or gone.
    pub(super) fn put(&mut self, id: &str, slot: Option<Slot>) {
        let before = self.places.get(id).copied();
        if before == slot {
            return;
        }
        if let Some(before) = before {
            self.places.remove(id);
            if let Some(ids) = self.slots.get_mut(&before) {
                ids.remove(id);
            }
        }
        if let Some(slot) = slot {
            let id: Arc<str> = id.into();
            self.slots.entry(slot).or_default().insert(Arc::clone(&id));
            self.places.insert(id, slot);
        }
    }

    /// Adds what was written meanwhile, as far as the ids tell the slots.
    pub(super) fn add(&mut self, noted: &Noted) {
        for (slot, ids) in &noted.ids {
            for id in ids {
                self.put(id, Some(*slot));
            }
        }
    }

    /// The ids in these slots.
    pub(super) fn of(&self, slots: &[Slot]) -> Vec<String> {
        let ids = slots.iter().filter_map(|slot| self.slots.get(slot));
        ids.flatten().map(|id| id.to_string()).collect()
    }

    /// How many ids are in these slots.
    pub(super) fn count(&self, slots: &[Slot]) -> usize {
        let ids = slots.iter().filter_map(|slot| self.slots.get(slot));
        ids.map(BTreeSet::len).sum()
    }

    /// Those of these slots in which nothing was written, and from which nothing was taken; none if that can't be told.
    pub(super) fn at_rest(&self, slots: &[Slot], noted: &Noted) -> Vec<Slot> {
        if noted.unplaced {
            return Vec::new();
        }
        let left = noted.anywhere.iter();
        let left = left.filter_map(|id| self.places.get(id.as_str()).copied());
        let left: BTreeSet<Slot> = left.collect();
        let is_written = |slot: &Slot| {
            let by_id = noted.ids.get(slot).is_some_and(|ids| !ids.is_empty());
            by_id || left.contains(slot) || noted.brought.contains(slot)
        };
        let rests = slots.iter().copied().filter(|slot| !is_written(slot));
        rests.collect()
    }

    /// That half of these slots, by documents, in which less was written; all if there is one slot only. `written` says how much.
    pub(super) fn colder_half(&self, slots: &[Slot], written: &BTreeMap<Slot, usize>) -> Vec<Slot> {
        let first = self.batch(slots, self.count(slots) / 2);
        let second = slots.get(first.len()..).unwrap_or_default();
        let heat = |slots: &[Slot]| -> usize {
            let counts = slots.iter().filter_map(|slot| written.get(slot));
            counts.sum()
        };
        match !second.is_empty() && heat(second) < heat(&first) {
            true => second.to_vec(),
            false => first,
        }
    }

    /// Forgets the ids in these slots, which are moved.
    pub(super) fn forget(&mut self, slots: &[Slot]) {
        for slot in slots {
            for id in self.slots.remove(slot).unwrap_or_default() {
                self.places.remove(&id);
            }
        }
    }

    /// All ids.
    pub(super) fn all(&self) -> Vec<String> {
        self.places.keys().map(|id| id.to_string()).collect()
    }

    /// The first of these slots, as many as have no more documents than `most` together, and at least one.
    pub(super) fn batch(&self, slots: &[Slot], most: usize) -> Vec<Slot> {
        let (mut batch, mut count) = (Vec::new(), 0);
        for slot in slots {
            let documents = self.slots.get(slot).map_or(0, BTreeSet::len);
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
        let mut all = IdsBySlot::default();
        for (slot, count) in [(1, 3), (2, 4), (5, 9)] {
            for n in 0..count {
                all.put(&format!("{slot}-{n}"), Some(Slot(slot)));
            }
        }
        let slots: Vec<Slot> = [1, 2, 3, 5].into_iter().map(Slot).collect();
        assert_eq!(all.batch(&slots, 7), slots[..3]);
        assert_eq!(all.batch(&slots[3..], 7), [Slot(5)], "one at least");
        assert_eq!(all.batch(&slots, 6), [Slot(1)]);
        assert_eq!(all.len(), 16);
        assert_eq!(all.of(&[Slot(3), Slot(1)]).len(), 3);
        assert!(all.batch(&[], 5).is_empty());
        assert_eq!(all.count(&slots), 16);
        all.forget(&slots[1..3]);
        assert_eq!((all.len(), all.count(&slots)), (12, 12));
    }

    #[test]
    fn slots_rest_in_which_nothing_was_written() {
        let mut all = IdsBySlot::default();
        let slots: Vec<Slot> = (1..=4).map(Slot).collect();
        all.put("a", Some(Slot(1)));
        let mut noted = Noted::default();
        assert_eq!(all.at_rest(&slots, &noted), slots);
        noted
            .ids
            .insert(Slot(2), BTreeSet::from(["new".to_owned()]));
        noted.ids.insert(Slot(4), BTreeSet::new());
        noted
            .ids
            .insert(Slot(9), BTreeSet::from(["other".to_owned()]));
        let rests = [Slot(1), Slot(3), Slot(4)];
        assert_eq!(all.at_rest(&slots, &noted), rests);
        noted.anywhere.insert("a".to_owned());
        noted.anywhere.insert("was in no moving slot".to_owned());
        noted.brought.insert(Slot(3));
        assert_eq!(all.at_rest(&slots, &noted), [Slot(4)]);
        noted.unplaced = true;
        assert!(all.at_rest(&slots, &noted).is_empty());
    }

    #[test]
    fn what_is_written_all_the_time_is_left_behind() {
        let mut all = IdsBySlot::default();
        for slot in 1..=8 {
            all.put(&format!("{slot}"), Some(Slot(slot)));
        }
        let slots: Vec<Slot> = (1..=8).map(Slot).collect();
        let hot = BTreeMap::from([(Slot(3), 2), (Slot(7), 1)]);
        assert_eq!(all.colder_half(&slots, &hot), slots[4..]);
        assert_eq!(all.colder_half(&slots[..4], &hot), slots[..2]);
        assert_eq!(all.colder_half(&slots[2..4], &hot), [Slot(4)]);
        assert_eq!(all.colder_half(&slots[2..3], &hot), [Slot(3)]);
        assert_eq!(all.colder_half(&slots, &BTreeMap::new()), slots[..4]);
        let none: Vec<Slot> = vec![Slot(20), Slot(21)];
        assert_eq!(all.colder_half(&none, &hot), none, "they cost nothing");
    }

    #[test]
    fn a_document_is_in_one_slot_at_a_time() {
        let mut all = IdsBySlot::default();
        all.put("a", Some(Slot(1)));
        all.put("b", Some(Slot(1)));
        all.put("a", Some(Slot(2)));
        all.put("a", Some(Slot(2)));
        assert_eq!((all.len(), all.of(&[Slot(1)])), (2, vec!["b".to_owned()]));
        assert_eq!(all.of(&[Slot(2)]), ["a"]);
        all.put("a", None);
        all.put("c", None);
        assert_eq!((all.len(), all.all()), (1, vec!["b".to_owned()]));
    }
}
