//! A list of document ids in one piece of memory, because a large write has as many ids as documents.

use std::collections::BTreeSet;

use weft_routing::slot::Slot;

/// Document ids, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    text: String,
    /// The end of each id in `text`.
    ends: Vec<usize>,
    /// See [`slots`](Self::slots).
    slots: Option<BTreeSet<Slot>>,
}

impl Ids {
    /// No ids yet. Those that follow are of documents whose slots after the write are known.
    pub(crate) fn placed() -> Self {
        Self {
            slots: Some(BTreeSet::new()),
            ..Self::default()
        }
    }

    /// The slots to which the write brings documents with these ids, which don't tell their slots. `None` if it isn't known, or if the
    /// ids tell.
    pub(crate) fn slots(&self) -> Option<&BTreeSet<Slot>> {
        self.slots.as_ref()
    }

    /// Notes that the write brings a document with one of these ids to this slot. Without effect if not all slots are known.
    pub(crate) fn goes_to(&mut self, slot: Slot) {
        if let Some(slots) = &mut self.slots {
            slots.insert(slot);
        }
    }

    /// The ids of several writes, one after the other.
    pub(crate) fn concat<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut together = Self::placed();
        for ids in all {
            together.extend(ids.iter());
            together.slots = match (together.slots, &ids.slots) {
                (Some(slots), Some(more)) => Some(&slots | more),
                _ => None,
            };
        }
        together
    }

    /// Each of these ids once, ascending.
    pub(crate) fn each_once(&self) -> Self {
        if self.len() < 2 {
            return self.clone();
        }
        let ids: BTreeSet<&str> = self.iter().collect();
        Self {
            slots: self.slots.clone(),
            ..ids.into_iter().collect()
        }
    }

    /// Appends an id.
    pub fn push(&mut self, id: &str) {
        self.text.push_str(id);
        self.ends.push(self.text.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let id = self.text.get(start..*end).unwrap_or_default();
            start = *end;
            id
        })
    }
}

impl<T: AsRef<str>> Extend<T> for Ids {
    fn extend<I: IntoIterator<Item = T>>(&mut self, ids: I) {
        for id in ids {
            self.push(id.as_ref());
        }
    }
}

impl<T: AsRef<str>> FromIterator<T> for Ids {
    fn from_iter<I: IntoIterator<Item = T>>(ids: I) -> Self {
        let mut all = Self::default();
        all.extend(ids);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_they_were_and_in_their_order() {
        let mut ids = Ids::default();
        assert!(ids.is_empty() && ids.iter().next().is_none());
        ids.extend(["b", "", "é-1"]);
        ids.push("b");
        assert_eq!(ids.iter().collect::<Vec<_>>(), ["b", "", "é-1", "b"]);
        assert_eq!(ids.len(), 4);
        assert_eq!(ids.each_once().iter().collect::<Vec<_>>(), ["", "b", "é-1"]);
    }

    #[test]
    fn slots_are_known_only_if_those_of_all_ids_are() {
        let (mut one, mut two) = (Ids::placed(), Ids::placed());
        one.push("a");
        one.goes_to(Slot(7));
        two.extend(["b", "c"]);
        two.goes_to(Slot(3));
        let both = Ids::concat([&one, &two]);
        assert_eq!(both.iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        let slots = [Slot(3), Slot(7)].into_iter().collect();
        assert_eq!(both.slots(), Some(&slots));
        assert_eq!(both.each_once().slots(), Some(&slots));
        let mut unknown: Ids = ["d"].into_iter().collect();
        unknown.goes_to(Slot(1));
        assert_eq!(unknown.slots(), None);
        assert_eq!(Ids::concat([&one, &unknown]).slots(), None);
    }
}
