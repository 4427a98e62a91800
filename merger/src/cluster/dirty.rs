//! Notes what is written to a shard while a resync brings one of its replicas back: the copy must be mended at these places.
//!
//! The holder of the shard's lock notes a write before sending it. No input or output here; the only state is behind a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use weft_routing::operation::{NamedOperation, Operation};
use weft_routing::placement::ShardId;

use crate::ids::Ids;

/// With more ids than this, the whole index is compared.
const MAX_IDS: usize = 20_000;

/// Which documents of an index may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Documents {
    /// Those with these ids.
    Ids(BTreeSet<String>),
    /// Any document, and the settings.
    All,
}

/// What may have changed on a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// Documents of these indexes.
    Indexes(BTreeMap<String, Documents>),
    /// Indexes may have been created, deleted or renamed.
    Everything,
}

impl Default for Written {
    fn default() -> Self {
        Self::Indexes(BTreeMap::new())
    }
}

impl Written {
    /// Adds a write; `ids` are the ids of its documents, if known.
    pub(crate) fn add(&mut self, write: &NamedOperation, ids: Option<&Ids>) {
        let Self::Indexes(indexes) = self else { return };
        let Some(uid) = write.index.as_deref() else {
            *self = Self::Everything;
            return;
        };
        match (write.operation, &write.document, ids) {
            (operation, _, Some(ids)) if operation.writes_named_documents() => {
                add_ids(indexes, uid, ids.iter());
            }
            (Operation::DeleteDocument, Some(document), _) => {
                add_ids(indexes, uid, [document]);
            }
            (operation, ..) if operation.writes_documents() || operation.changes_settings() => {
                indexes.insert(uid.to_owned(), Documents::All);
            }
            _ => *self = Self::Everything,
        }
    }

    /// How many documents may have changed, if that is known.
    pub(crate) fn documents(&self) -> Option<usize> {
        let Self::Indexes(indexes) = self else {
            return None;
        };
        indexes
            .values()
            .map(|documents| match documents {
                Documents::Ids(ids) => Some(ids.len()),
                Documents::All => None,
            })
            .sum()
    }
}

fn add_ids(
    indexes: &mut BTreeMap<String, Documents>,
    uid: &str,
    new: impl IntoIterator<Item = impl Into<String>>,
) {
    let documents = indexes
        .entry(uid.to_owned())
        .or_insert_with(|| Documents::Ids(BTreeSet::new()));
    if let Documents::Ids(ids) = documents {
        ids.extend(new.into_iter().map(Into::into));
        if ids.len() > MAX_IDS {
            *documents = Documents::All;
        }
    }
}

/// The notes of all shards with a resync.
#[derive(Debug, Default)]
pub struct Dirty {
    shards: Mutex<HashMap<ShardId, Written>>,
}

impl Dirty {
    /// Notes a write that is about to be sent.
    pub fn note(&self, shard: ShardId, write: &NamedOperation, ids: Option<&Ids>) {
        if let Some(written) = self.lock().get_mut(&shard) {
            written.add(write, ids);
        }
    }

    /// Starts noting what is written to a shard, until [`end`](Self::end). Only one resync at a time notes a shard.
    pub(crate) fn begin(&self, shard: ShardId) {
        self.lock().insert(shard, Written::default());
    }

    /// Takes what was written since [`begin`](Self::begin) or the last `take`.
    pub(crate) fn take(&self, shard: ShardId) -> Written {
        let mut shards = self.lock();
        shards
            .get_mut(&shard)
            .map(std::mem::take)
            .unwrap_or(Written::Everything)
    }

    /// Puts back notes that were taken but not processed.
    pub(crate) fn put_back(&self, shard: ShardId, all: Written) {
        if let Some(written) = self.lock().get_mut(&shard) {
            merge(written, all);
        }
    }

    pub(crate) fn end(&self, shard: ShardId) {
        self.lock().remove(&shard);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ShardId, Written>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn merge(into: &mut Written, other: Written) {
    match (&mut *into, other) {
        (Written::Everything, _) => {}
        (_, Written::Everything) => *into = Written::Everything,
        (Written::Indexes(indexes), Written::Indexes(others)) => {
            for (uid, documents) in others {
                match documents {
                    Documents::Ids(ids) => {
                        add_ids(indexes, &uid, ids);
                    }
                    Documents::All => {
                        indexes.insert(uid, Documents::All);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_routing::operation::Setting;

    use super::*;

    fn ids(list: &[&str]) -> Ids {
        list.iter().collect()
    }

    fn on(operation: Operation, index: &str) -> NamedOperation {
        NamedOperation::of_index(operation, index)
    }

    fn add_to(index: &str) -> NamedOperation {
        on(Operation::ReplaceDocuments, index)
    }

    fn delete_one(index: &str, id: &str) -> NamedOperation {
        NamedOperation {
            document: Some(id.to_owned()),
            ..on(Operation::DeleteDocument, index)
        }
    }

    #[test]
    fn a_write_is_noted_as_narrowly_as_it_can_be() {
        use Operation as Op;
        let mut written = Written::default();
        assert_eq!(written.documents(), Some(0));
        written.add(&add_to("a"), Some(&ids(&["1", "2"])));
        written.add(&on(Op::DeleteDocumentsBatch, "a"), Some(&ids(&["2"])));
        written.add(&delete_one("a", "2"), None);
        written.add(&delete_one("a", "3"), None);
        assert_eq!(written.documents(), Some(3));
        let all = [
            Op::ReplaceDocuments,
            Op::UpdateDocuments,
            Op::ClearDocuments,
            Op::DeleteDocumentsBatch,
            Op::DeleteDocumentsByFilter,
            Op::EditDocuments,
            Op::UpdateSettings,
            Op::ResetSettings,
            Op::UpdateSetting(Setting::Synonyms),
            Op::ResetSetting(Setting::Synonyms),
        ];
        for operation in all {
            let mut written = written.clone();
            written.add(&on(operation, "b"), None);
            let Written::Indexes(indexes) = &written else {
                panic!("{operation:?}: {written:?}")
            };
            assert_eq!(indexes.get("b"), Some(&Documents::All), "{operation:?}");
            assert!(matches!(indexes.get("a"), Some(Documents::Ids(_))));
        }
        for change in [
            on(Op::UpdateIndex, "a"),
            on(Op::DeleteIndex, "a"),
            on(Op::CompactIndex, "a"),
            NamedOperation::unnamed(Op::CreateIndex),
            NamedOperation::unnamed(Op::SwapIndexes),
            NamedOperation::unnamed(Op::UpdateFeatures),
        ] {
            let mut written = written.clone();
            written.add(&change, None);
            assert_eq!(written, Written::Everything, "{change:?}");
        }
    }

    #[test]
    fn what_was_not_worked_off_is_not_forgotten() {
        let dirty = Dirty::default();
        let shard = ShardId(1);
        dirty.note(shard, &add_to("a"), None);
        assert_eq!(
            dirty.take(shard),
            Written::Everything,
            "nobody noted anything"
        );
        dirty.begin(shard);
        dirty.note(shard, &add_to("a"), Some(&ids(&["1"])));
        let taken = dirty.take(shard);
        assert_eq!(taken.documents(), Some(1));
        dirty.note(shard, &add_to("a"), Some(&ids(&["2"])));
        dirty.put_back(shard, taken);
        assert_eq!(dirty.take(shard).documents(), Some(2));
        assert_eq!(dirty.take(shard), Written::default());
    }

    use proptest::prelude::*;

    /// Something that happens to a shard's notes.
    #[derive(Debug, Clone)]
    enum Step {
        Write(Vec<u8>),
        WriteAll,
        /// Takes the notes and processes them.
        WorkOff,
        /// Takes the notes and puts them back.
        GiveUp,
    }

    proptest! {
        /// For any order of writes, takes and put-backs: a document that was written and not processed since is noted.
        #[test]
        fn no_written_document_is_forgotten(steps in prop::collection::vec(prop_oneof![
            4 => prop::collection::vec(0_u8..20, 1..4).prop_map(Step::Write),
            1 => Just(Step::WriteAll),
            2 => Just(Step::WorkOff),
            2 => Just(Step::GiveUp),
        ], 1..40)) {
            let dirty = Dirty::default();
            let shard = ShardId(3);
            dirty.begin(shard);
            let (mut owed, mut all) = (BTreeSet::new(), false);
            for step in steps {
                match step {
                    Step::Write(numbers) => {
                        let written: Vec<String> = numbers.iter().map(u8::to_string).collect();
                        dirty.note(shard, &add_to("a"), Some(&written.iter().collect()));
                        owed.extend(written);
                    }
                    Step::WriteAll => {
                        dirty.note(shard, &on(Operation::DeleteDocumentsByFilter, "a"), None);
                        all = true;
                    }
                    Step::WorkOff => {
                        dirty.take(shard);
                        owed.clear();
                        all = false;
                    }
                    Step::GiveUp => {
                        let taken = dirty.take(shard);
                        dirty.put_back(shard, taken);
                    }
                }
                let noted = dirty.take(shard);
                dirty.put_back(shard, noted.clone());
                let Written::Indexes(indexes) = noted else { panic!("an index came or went") };
                match indexes.get("a") {
                    Some(Documents::All) => prop_assert!(all),
                    Some(Documents::Ids(ids)) => {
                        prop_assert!(!all);
                        prop_assert_eq!(ids, &owed);
                    }
                    None => prop_assert!(owed.is_empty() && !all),
                }
            }
        }
    }
}
