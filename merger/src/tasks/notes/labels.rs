//! What many tasks have in common, their kind and index: each once, with how many tasks have it.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use hashbrown::{Equivalent, HashMap, HashSet};

use crate::tasks::record::Status;

/// A task's kind and the current name of its index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::tasks) struct Label {
    pub(in crate::tasks) kind: Arc<str>,
    pub(in crate::tasks) index_uid: Option<Arc<str>>,
}

/// Stands for a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::tasks) struct LabelId(u32);

impl LabelId {
    /// Its place in a list with an entry for each label.
    pub(super) fn place(self) -> usize {
        self.0 as usize
    }
}

/// An index, or none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name(Option<Arc<str>>);

/// The same, to look for it.
#[derive(Hash)]
struct Sought<'a>(Option<&'a str>);

impl Equivalent<Name> for Sought<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        self.0 == name.0.as_deref()
    }
}

#[derive(Debug)]
struct Entry {
    label: Label,
    /// How many tasks have it, by status.
    counts: [u32; Status::COUNT],
}

impl Entry {
    fn is_unused(&self) -> bool {
        self.counts == [0; Status::COUNT]
    }
}

/// All labels.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// By their ids. One that no task has keeps its place until another takes it.
    entries: Vec<Entry>,
    by_index: HashMap<Name, Vec<LabelId>>,
    free: Vec<LabelId>,
    kinds: HashSet<Arc<str>>,
}

impl Labels {
    /// The label with this kind and index, which may be new: then a task must get it at once.
    pub(super) fn find(&mut self, kind: &str, index_uid: Option<&str>) -> LabelId {
        let of_index = self.by_index.get(&Sought(index_uid));
        let mut of_index = of_index.into_iter().flatten();
        if let Some(known) = of_index.find(|id| *self.of(**id).kind == *kind) {
            return *known;
        }
        let kind = self.kinds.get_or_insert_with(kind, |kind| Arc::from(kind));
        let label = Label {
            kind: Arc::clone(kind),
            index_uid: index_uid.map(|uid| self.shared(uid)),
        };
        let entry = Entry {
            label: label.clone(),
            counts: [0; Status::COUNT],
        };
        let reused = self.free.pop();
        let id = match reused.and_then(|id| Some((id, self.entries.get_mut(id.place())?))) {
            Some((id, place)) => {
                *place = entry;
                id
            }
            None => {
                self.entries.push(entry);
                LabelId(u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX))
            }
        };
        let name = Name(label.index_uid);
        self.by_index.entry(name).or_default().push(id);
        id
    }

    fn shared(&self, uid: &str) -> Arc<str> {
        let known = self.by_index.get_key_value(&Sought(Some(uid)));
        let known = known.and_then(|(Name(known), _)| known.clone());
        known.unwrap_or_else(|| Arc::from(uid))
    }

    /// A label that some task has.
    pub(super) fn of(&self, id: LabelId) -> &Label {
        static NONE: LazyLock<Label> = LazyLock::new(|| Label {
            kind: Arc::from(""),
            index_uid: None,
        });
        match self.entries.get(id.place()) {
            Some(entry) => &entry.label,
            None => &NONE,
        }
    }

    /// One more task has the label.
    pub(super) fn add(&mut self, id: LabelId, status: Status) {
        let entry = self.entries.get_mut(id.place());
        let count = entry.and_then(|entry| entry.counts.get_mut(status.place()));
        if let Some(count) = count {
            *count += 1;
        }
    }

    /// One task less has the label. Forgets it if that was the last one.
    pub(super) fn remove(&mut self, id: LabelId, status: Status) {
        let Some(entry) = self.entries.get_mut(id.place()) else {
            return;
        };
        if let Some(count) = entry.counts.get_mut(status.place()) {
            *count = count.saturating_sub(1);
        }
        if entry.is_unused() {
            let name = Name(entry.label.index_uid.clone());
            self.forget(id, &name);
        }
    }

    /// Forgets labels that no task has got.
    pub(super) fn tidy(&mut self) {
        let unused = self.by_index.iter().flat_map(|(name, ids)| {
            let unused = ids.iter().filter(|id| {
                let entry = self.entries.get(id.place());
                entry.is_some_and(Entry::is_unused)
            });
            unused.map(|id| (*id, name.clone()))
        });
        for (id, name) in unused.collect::<Vec<_>>() {
            self.forget(id, &name);
        }
    }

    fn forget(&mut self, id: LabelId, name: &Name) {
        let Some(of_index) = self.by_index.get_mut(name) else {
            return;
        };
        of_index.retain(|other| *other != id);
        if of_index.is_empty() {
            self.by_index.remove(name);
        }
        self.free.push(id);
    }

    /// The indexes that any task names.
    pub(super) fn index_uids(&self) -> BTreeSet<String> {
        let names = self.by_index.keys();
        let names = names.filter_map(|name| name.0.as_deref());
        names.map(str::to_owned).collect()
    }

    /// The labels that tasks have, with how many have each, by status.
    pub(super) fn counts(&self) -> impl Iterator<Item = (LabelId, &[u32; Status::COUNT])> {
        let all = (0_u32..).zip(&self.entries);
        all.map(|(id, entry)| (LabelId(id), &entry.counts))
    }

    /// All labels of indexes: kind and name of each.
    pub(super) fn with_index(&self) -> Vec<(LabelId, Arc<str>, Arc<str>)> {
        let named = self.by_index.iter().filter_map(|(name, ids)| {
            let name = name.0.as_ref()?;
            Some(ids.iter().map(move |id| (*id, name)))
        });
        let all = named.flatten();
        all.map(|(id, name)| (id, Arc::clone(&self.of(id).kind), Arc::clone(name)))
            .collect()
    }

    /// For each label whether it is such a one.
    pub(super) fn that(&self, is_wanted: impl Fn(&Label) -> bool) -> Vec<bool> {
        let entries = self.entries.iter();
        entries.map(|entry| is_wanted(&entry.label)).collect()
    }

    /// For each label whether it is one of these indexes, and wanted.
    pub(super) fn of_indexes(
        &self,
        names: &[String],
        is_wanted: impl Fn(&Label) -> bool,
    ) -> Vec<bool> {
        let mut some = vec![false; self.entries.len()];
        for name in names {
            let ids = self.by_index.get(&Sought(Some(name)));
            for id in ids.into_iter().flatten() {
                if let Some(wanted) = some.get_mut(id.place()) {
                    *wanted = is_wanted(self.of(*id));
                }
            }
        }
        some
    }
}
