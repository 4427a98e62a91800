//! Notes what is written to slots that are being moved: the copy must be mended at these places before it is handed over.
//!
//! The holder of the shard's lock notes a write before sending it. No input or output here; the only state is behind a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
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
    /// Whether any document may have changed. Their ids are among those that were there, or among `ids`.
    pub(crate) all: bool,
    /// Whether the index may be another one by now.
    pub(crate) broken: bool,
}

/// The notes of one move.
#[derive(Debug)]
struct Log {
    index: String,
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
        // Indexes whose ids tell no slot aren't moved.
        let Some(slot) = self.strategy.slot_of(&id) else {
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
            (Operation::SwapIndexes, ..) => self.noted.broken = true,
            (Operation::UpdateIndex | Operation::DeleteIndex, ..) => {
                self.noted.broken |= concerns || write.index.is_none();
            }
            _ if !concerns => {}
            (operation, _, Some(ids)) if operation.writes_named_documents() => {
                ids.iter().for_each(|id| self.add(id));
            }
            (Operation::DeleteDocument, Some(document), _) => self.add(document),
            (operation, ..) if operation.writes_documents() || operation.changes_settings() => {
                self.noted.all = true;
            }
            _ => {}
        }
    }
}

/// The notes of all moves, by the shard that slots are taken from.
#[derive(Debug, Default)]
pub(crate) struct MoveLogs {
    shards: Mutex<HashMap<ShardId, Vec<Log>>>,
}

impl MoveLogs {
    /// Notes a write that is about to be sent to a shard.
    pub(crate) fn note(&self, shard: ShardId, write: &NamedOperation, ids: Option<&Ids>) {
        for log in self.lock().get_mut(&shard).into_iter().flatten() {
            log.note(write, ids);
        }
    }

    /// Starts noting what is written to these slots of an index, until [`end`](Self::end). One move at a time notes an index.
    pub(crate) fn begin(&self, shard: ShardId, index: &str, strategy: &Strategy, slots: &[Slot]) {
        let mut flags = vec![false; usize::from(SLOT_COUNT)];
        for slot in slots {
            if let Some(flag) = flags.get_mut(usize::from(slot.0)) {
                *flag = true;
            }
        }
        let log = Log {
            index: index.to_owned(),
            strategy: strategy.clone(),
            slots: flags,
            noted: Noted::default(),
        };
        let mut shards = self.lock();
        let logs = shards.entry(shard).or_default();
        logs.retain(|log| log.index != index);
        logs.push(log);
    }

    /// Takes what was noted for some slots since [`begin`](Self::begin) or the last `take`. What concerns all slots stays.
    pub(crate) fn take(&self, shard: ShardId, index: &str, slots: &[Slot]) -> Noted {
        let mut shards = self.lock();
        let logs = shards.get_mut(&shard).into_iter().flatten();
        let Some(log) = logs.into_iter().find(|log| log.index == index) else {
            return Noted {
                broken: true,
                ..Noted::default()
            };
        };
        let mut taken = Noted {
            all: std::mem::take(&mut log.noted.all),
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

    /// Whether the index may be another one by now, or nobody notes any more.
    pub(crate) fn is_broken(&self, shard: ShardId, index: &str) -> bool {
        let shards = self.lock();
        let mut logs = shards.get(&shard).into_iter().flatten();
        logs.find(|log| log.index == index)
            .is_none_or(|log| log.noted.broken)
    }

    /// Puts back what was taken but not worked off.
    pub(crate) fn put_back(&self, shard: ShardId, index: &str, noted: Noted) {
        let mut shards = self.lock();
        let logs = shards.get_mut(&shard).into_iter().flatten();
        if let Some(log) = logs.into_iter().find(|log| log.index == index) {
            log.noted.all |= noted.all;
            for (slot, ids) in noted.ids {
                log.noted.ids.entry(slot).or_default().extend(ids);
            }
        }
    }

    /// Slots that have been moved are noted no more.
    pub(crate) fn moved(&self, shard: ShardId, index: &str, slots: &[Slot]) {
        let mut shards = self.lock();
        let logs = shards.get_mut(&shard).into_iter().flatten();
        if let Some(log) = logs.into_iter().find(|log| log.index == index) {
            for slot in slots {
                log.noted.ids.remove(slot);
                if let Some(flag) = log.slots.get_mut(usize::from(slot.0)) {
                    *flag = false;
                }
            }
        }
    }

    /// Ends noting.
    pub(crate) fn end(&self, shard: ShardId, index: &str) {
        let mut shards = self.lock();
        if let Some(logs) = shards.get_mut(&shard) {
            logs.retain(|log| log.index != index);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ShardId, Vec<Log>>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
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
        logs.begin(FROM, "films", &Strategy::Hash, &[slot("1"), slot("2")]);
        logs
    }

    fn all(logs: &MoveLogs) -> Noted {
        logs.take(FROM, "films", &[slot("1"), slot("2")])
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
        let first = logs.take(FROM, "films", &[slot("2")]);
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
        logs.put_back(FROM, "films", noted);
        logs.moved(FROM, "films", &[slot("1")]);
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
            Operation::ReplaceDocuments,
        ] {
            logs.note(FROM, &on(operation, "films"), None);
            let noted = all(&logs);
            assert!(noted.all && !noted.broken, "{operation:?}");
        }
        logs.note(FROM, &on(Operation::DeleteIndex, "books"), None);
        assert!(all(&logs).is_nothing());
        logs.note(FROM, &NamedOperation::unnamed(Operation::SwapIndexes), None);
        assert!(all(&logs).broken && all(&logs).broken, "it stays so");
        logs.end(FROM, "films");
        assert!(all(&logs).broken, "nobody notes any more");
    }
}
