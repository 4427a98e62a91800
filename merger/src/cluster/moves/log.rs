//! Notes what is written to slots that are being moved: the copy must be mended at these places before it is handed over.
//!
//! The holder of the shard's lock notes a write before sending it. No input or output here; the only state is behind a lock.
//!
//! Where an id doesn't tell its slot, every id that is written to either shard is noted: only the document itself says which slot
//! it has now, and whether a copy of it on the new shard is one that a client has put there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use weft_routing::document_id::DocumentId;
use weft_routing::operation::{NamedOperation, Operation};
use weft_routing::placement::ShardId;
use weft_routing::slot::{SLOT_COUNT, Slot};
use weft_routing::strategy::Strategy;

use crate::ids::Ids;

/// What was written to some slots of an index.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The ids that were written, by slot.
    pub(crate) ids: BTreeMap<Slot, BTreeSet<String>>,
    /// The ids that were written and don't tell their slot.
    pub(crate) anywhere: BTreeSet<String>,
    /// The slots to which documents with these ids were brought.
    pub(crate) brought: BTreeSet<Slot>,
    /// Whether some of them may have been brought to any slot.
    pub(crate) unplaced: bool,
    /// Whether any document may have changed. Their ids are among those that were there, or are noted.
    pub(crate) all: bool,
    /// Whether there may be documents whose ids aren't known, or that got another slot: all must be read again.
    pub(crate) unknown: bool,
    /// Whether the index may be another one by now.
    pub(crate) broken: bool,
}

impl Noted {
    /// All ids.
    pub(crate) fn written(&self) -> Vec<String> {
        let ids = self.ids.values().flatten().chain(&self.anywhere);
        ids.cloned().collect()
    }

    /// The ids that were written in these slots, or don't tell their slot.
    pub(crate) fn among(&self, slots: &[Slot]) -> BTreeSet<String> {
        let ids = slots.iter().filter_map(|slot| self.ids.get(slot));
        ids.flatten().chain(&self.anywhere).cloned().collect()
    }
}

/// The notes of one move.
#[derive(Debug)]
struct Log {
    index: String,
    /// The shards whose writes are noted.
    shards: Vec<ShardId>,
    /// How the index's documents get their slots.
    strategy: Strategy,
    /// A flag for each slot: whether it is still to be moved.
    slots: Vec<bool>,
    noted: Noted,
}

impl Log {
    fn add(&mut self, id: &str) {
        let Ok(id) = DocumentId::from_text(id) else {
            return;
        };
        let Some(slot) = self.strategy.slot_of(&id) else {
            self.noted.anywhere.insert(id.as_str().to_owned());
            return;
        };
        if self.slots.get(usize::from(slot.0)) == Some(&true) {
            let ids = self.noted.ids.entry(slot).or_default();
            ids.insert(id.as_str().to_owned());
        }
    }

    fn note(&mut self, write: &NamedOperation, ids: Option<&Ids>) {
        let concerns = write.index.as_deref() == Some(self.index.as_str());
        match (write.operation, &write.document, ids) {
            _ if renames(write, &self.index) => self.noted.broken = true,
            _ if !concerns => {}
            (operation, _, Some(ids)) if operation.writes_named_documents() => {
                ids.iter().for_each(|id| self.add(id));
                let brings = operation != Operation::DeleteDocumentsBatch;
                match ids.slots() {
                    Some(slots) => self.noted.brought.extend(slots),
                    None => self.noted.unplaced |= brings && self.strategy.field().is_some(),
                }
            }
            (Operation::DeleteDocument, Some(document), _) => self.add(document),
            (operation, ..) if operation.writes_documents() || operation.changes_settings() => {
                self.noted.all = true;
                self.noted.unknown |= self.brings_unknown(operation);
            }
            _ => {}
        }
    }

    /// Whether a write whose ids aren't told may bring documents whose ids nobody knows, or give known ones another slot.
    fn brings_unknown(&self, operation: Operation) -> bool {
        match operation {
            Operation::ReplaceDocuments | Operation::UpdateDocuments => true,
            Operation::EditDocuments => self.strategy.field().is_some(),
            _ => false,
        }
    }
}

/// Whether a name may have become that of another index.
#[derive(Debug)]
pub(crate) struct Renamed(Arc<AtomicBool>);

impl Renamed {
    /// Whether it may have. The caller has a lock of one of the index's shards.
    pub(crate) fn maybe(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a write may make an index's name that of another one.
fn renames(write: &NamedOperation, index: &str) -> bool {
    match write.operation {
        Operation::SwapIndexes => true,
        Operation::UpdateIndex | Operation::DeleteIndex => {
            write.index.as_deref().is_none_or(|named| named == index)
        }
        _ => false,
    }
}

/// The notes of all moves.
#[derive(Debug, Default)]
pub(crate) struct MoveLogs {
    logs: Mutex<Vec<Log>>,
    /// The names that are watched, as long as somebody watches them.
    names: Mutex<Vec<(String, Weak<AtomicBool>)>>,
}

impl MoveLogs {
    /// Notes a write that is about to be sent to a shard.
    pub(crate) fn note(&self, shard: ShardId, write: &NamedOperation, ids: Option<&Ids>) {
        for log in self.lock().iter_mut() {
            if log.shards.contains(&shard) {
                log.note(write, ids);
            }
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|(index, renamed)| match renamed.upgrade() {
            Some(renamed) => {
                renamed.fetch_or(renames(write, index), Ordering::Relaxed);
                true
            }
            None => false,
        });
    }

    /// Watches from now on whether this name becomes that of another index.
    pub(crate) fn watch(&self, index: &str) -> Renamed {
        let renamed = Arc::new(AtomicBool::new(false));
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.push((index.to_owned(), Arc::downgrade(&renamed)));
        Renamed(renamed)
    }

    /// Starts noting what is written to these slots of an index on these shards, until [`end`](Self::end). One move at a time notes
    /// an index.
    pub(crate) fn begin(
        &self,
        shards: &[ShardId],
        index: &str,
        strategy: &Strategy,
        slots: &[Slot],
    ) {
        let mut flags = vec![false; usize::from(SLOT_COUNT)];
        for slot in slots {
            if let Some(flag) = flags.get_mut(usize::from(slot.0)) {
                *flag = true;
            }
        }
        let log = Log {
            index: index.to_owned(),
            shards: shards.to_vec(),
            strategy: strategy.clone(),
            slots: flags,
            noted: Noted::default(),
        };
        let mut logs = self.lock();
        logs.retain(|log| log.index != index);
        logs.push(log);
    }

    /// Takes what was noted for some slots since [`begin`](Self::begin) or the last `take`. What concerns other slots stays, and so
    /// does what says that the index may be another one.
    pub(crate) fn take(&self, index: &str, slots: &[Slot]) -> Noted {
        let mut logs = self.lock();
        let Some(log) = logs.iter_mut().find(|log| log.index == index) else {
            return Noted {
                broken: true,
                ..Noted::default()
            };
        };
        let mut taken = Noted {
            all: std::mem::take(&mut log.noted.all),
            unknown: std::mem::take(&mut log.noted.unknown),
            anywhere: std::mem::take(&mut log.noted.anywhere),
            brought: std::mem::take(&mut log.noted.brought),
            unplaced: std::mem::take(&mut log.noted.unplaced),
            broken: log.noted.broken,
            ..Noted::default()
        };
        for slot in slots {
            if let Some(ids) = log.noted.ids.remove(slot) {
                taken.ids.insert(*slot, ids);
            }
        }
        taken
    }

    /// Looks at what was noted since [`begin`](Self::begin) or the last `take`, and leaves it; `None` if nobody notes any more.
    pub(crate) fn look<T>(&self, index: &str, look: impl FnOnce(&Noted) -> T) -> Option<T> {
        let logs = self.lock();
        let log = logs.iter().find(|log| log.index == index)?;
        Some(look(&log.noted))
    }

    /// Whether the index may be another one by now, or nobody notes any more.
    pub(crate) fn is_broken(&self, index: &str) -> bool {
        let logs = self.lock();
        let log = logs.iter().find(|log| log.index == index);
        log.is_none_or(|log| log.noted.broken)
    }

    /// Those of these ids whose documents may have got another slot since the last `take`. Who doesn't hold both shards' locks
    /// mustn't write them.
    pub(crate) fn touched(&self, index: &str, ids: &[String]) -> BTreeSet<String> {
        let logs = self.lock();
        let Some(log) = logs.iter().find(|log| log.index == index) else {
            return BTreeSet::new();
        };
        let noted = &log.noted;
        let any = log.strategy.field().is_some() && noted.all;
        let touched = ids.iter();
        let touched = touched.filter(|id| any || noted.anywhere.contains(*id));
        touched.cloned().collect()
    }

    /// Puts back what was taken but not worked off.
    pub(crate) fn put_back(&self, index: &str, noted: Noted) {
        let mut logs = self.lock();
        if let Some(log) = logs.iter_mut().find(|log| log.index == index) {
            log.noted.all |= noted.all;
            log.noted.unknown |= noted.unknown;
            log.noted.anywhere.extend(noted.anywhere);
            log.noted.brought.extend(noted.brought);
            log.noted.unplaced |= noted.unplaced;
            for (slot, ids) in noted.ids {
                log.noted.ids.entry(slot).or_default().extend(ids);
            }
        }
    }

    /// Slots that have been moved are noted no more.
    pub(crate) fn moved(&self, index: &str, slots: &[Slot]) {
        let mut logs = self.lock();
        if let Some(log) = logs.iter_mut().find(|log| log.index == index) {
            for slot in slots {
                log.noted.ids.remove(slot);
                if let Some(flag) = log.slots.get_mut(usize::from(slot.0)) {
                    *flag = false;
                }
            }
        }
    }

    /// Ends noting.
    pub(crate) fn end(&self, index: &str) {
        self.lock().retain(|log| log.index != index);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Log>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: ShardId = ShardId(1);

    impl Noted {
        fn len(&self) -> usize {
            self.ids.values().map(BTreeSet::len).sum()
        }

        fn is_nothing(&self) -> bool {
            *self == Self::default()
        }
    }

    fn slot(id: &str) -> Slot {
        let id = DocumentId::from_text(id).unwrap();
        Strategy::Hash.slot_of(&id).unwrap()
    }

    fn on(operation: Operation, index: &str) -> NamedOperation {
        NamedOperation::of_index(operation, index)
    }

    fn logs() -> MoveLogs {
        let logs = MoveLogs::default();
        logs.begin(&[FROM], "films", &Strategy::Hash, &[slot("1"), slot("2")]);
        logs
    }

    fn all(logs: &MoveLogs) -> Noted {
        logs.take("films", &[slot("1"), slot("2")])
    }

    #[test]
    fn only_what_is_written_to_moving_slots_of_the_index_is_noted() {
        let logs = logs();
        let add = on(Operation::ReplaceDocuments, "films");
        let ids: Ids = ["1", "3", "2"].into_iter().collect();
        logs.note(FROM, &add, Some(&ids));
        logs.note(ShardId(2), &add, Some(&ids));
        logs.note(FROM, &on(Operation::ReplaceDocuments, "books"), Some(&ids));
        logs.note(FROM, &on(Operation::DeleteDocumentsByFilter, "books"), None);
        logs.note(FROM, &NamedOperation::unnamed(Operation::CreateIndex), None);
        let first = logs.take("films", &[slot("2")]);
        assert_eq!(first.len(), 1);
        let delete = NamedOperation {
            document: Some("2".to_owned()),
            ..on(Operation::DeleteDocument, "films")
        };
        logs.note(FROM, &delete, None);
        let noted = all(&logs);
        assert_eq!(noted.len(), 2);
        assert!(!noted.all && !noted.broken);
        assert!(all(&logs).is_nothing());
        logs.put_back("films", noted);
        logs.moved("films", &[slot("1")]);
        assert_eq!(all(&logs).len(), 1);
        logs.note(FROM, &add, Some(&ids));
        assert_eq!(all(&logs).ids.keys().collect::<Vec<_>>(), [&slot("2")]);
    }

    #[test]
    fn writes_without_ids_and_changes_of_the_index_are_told_apart() {
        let logs = logs();
        for operation in [
            Operation::ClearDocuments,
            Operation::EditDocuments,
            Operation::DeleteDocumentsByFilter,
            Operation::UpdateSettings,
            Operation::DeleteDocumentsBatch,
        ] {
            logs.note(FROM, &on(operation, "films"), None);
            let noted = all(&logs);
            assert!(
                noted.all && !noted.unknown && !noted.broken,
                "{operation:?}"
            );
        }
        for operation in [Operation::ReplaceDocuments, Operation::UpdateDocuments] {
            logs.note(FROM, &on(operation, "films"), None);
            let noted = all(&logs);
            assert!(
                noted.unknown && !noted.broken,
                "there may be documents whose ids nobody knows: {operation:?}"
            );
        }
        logs.note(FROM, &on(Operation::DeleteIndex, "books"), None);
        assert!(all(&logs).is_nothing());
        logs.note(FROM, &NamedOperation::unnamed(Operation::SwapIndexes), None);
        assert!(all(&logs).broken && all(&logs).broken, "it stays so");
        logs.end("films");
        assert!(all(&logs).broken, "nobody notes any more");
    }

    #[test]
    fn a_name_that_becomes_another_indexs_is_told() {
        let logs = MoveLogs::default();
        let watched = || logs.watch("films");
        let [swap, rename, other] = [watched(), watched(), logs.watch("books")];
        logs.note(FROM, &on(Operation::ReplaceDocuments, "films"), None);
        logs.note(FROM, &on(Operation::DeleteIndex, "series"), None);
        assert!(!swap.maybe() && !rename.maybe() && !other.maybe());
        drop(swap);
        logs.note(FROM, &on(Operation::UpdateIndex, "films"), None);
        assert!(rename.maybe() && !watched().maybe() && !other.maybe());
        logs.note(FROM, &NamedOperation::unnamed(Operation::SwapIndexes), None);
        assert!(other.maybe());
    }

    #[test]
    fn where_ids_tell_no_slot_all_of_them_are_noted_on_both_shards() {
        let logs = MoveLogs::default();
        let (to, strategy) = (ShardId(2), "field:tenant".parse().unwrap());
        logs.begin(&[FROM, to], "films", &strategy, &[Slot(1)]);
        let texts = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let add = on(Operation::ReplaceDocuments, "films");
        logs.note(FROM, &add, Some(&["1"].into_iter().collect()));
        logs.note(to, &add, Some(&["2"].into_iter().collect()));
        logs.note(ShardId(3), &add, Some(&["3"].into_iter().collect()));
        let touched = logs.touched("films", &texts(&["1", "2", "3"]));
        assert_eq!(touched.into_iter().collect::<Vec<_>>(), ["1", "2"]);
        let noted = logs.take("films", &[Slot(7)]);
        assert_eq!(noted.written(), ["1", "2"]);
        assert!(noted.unplaced, "they may have gone anywhere");
        let mut placed = Ids::placed();
        placed.push("1");
        placed.goes_to(Slot(9));
        logs.note(FROM, &add, Some(&placed));
        let gone = on(Operation::DeleteDocumentsBatch, "films");
        logs.note(to, &gone, Some(&["1"].into_iter().collect()));
        let noted = logs.take("films", &[Slot(7)]);
        assert_eq!(noted.brought, BTreeSet::from([Slot(9)]));
        assert!(!noted.unplaced);
        logs.put_back("films", noted.clone());
        assert_eq!(logs.take("films", &[]), noted);
        assert!(logs.touched("films", &texts(&["1", "2"])).is_empty());
        logs.note(to, &on(Operation::DeleteDocumentsByFilter, "films"), None);
        assert_eq!(logs.touched("films", &texts(&["9"])).len(), 1);
        assert!(!logs.take("films", &[]).unknown);
        logs.note(FROM, &on(Operation::EditDocuments, "films"), None);
        assert!(logs.take("films", &[]).unknown, "values may have changed");
    }
}
