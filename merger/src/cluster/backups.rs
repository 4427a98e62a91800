//! The backup that is being made: who makes it, and what is written meanwhile. One at a time, in the merger that leads.
//!
//! A backup copies documents while clients write, so it must know which of its copies are no longer what the cluster holds. The
//! holder of a shard's lock notes a write before sending it, and the notes are taken only by somebody who holds the locks of all
//! shards: what was noted before has then been sent, and nothing that was sent is missing. No input or output here.
//!
//! A backup whose client is silent for [`LEASE`] ends by itself: nothing is noted any more, and slots may move again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;
use weft_routing::document_id::DocumentId;
use weft_routing::operation::{NamedOperation, Operation};
use weft_routing::placement::ShardId;

use super::NodeId;
use super::moves::Held;
use crate::ids::Ids;

/// How long a backup goes on without a word of its client.
pub(crate) const LEASE: Duration = Duration::from_secs(60);
/// How many bytes of ids are noted. An index beyond that is copied anew.
const MAX_ID_BYTES: usize = 64 << 20;

/// What was written to an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Touched {
    /// The documents with these ids.
    Ids(BTreeSet<String>),
    /// Any document, or the settings.
    All,
}

/// What was written since the notes were last taken.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Writes {
    /// The writes to indexes.
    pub(crate) indexes: BTreeMap<String, Touched>,
    /// Indexes were created or deleted.
    pub(crate) list: bool,
    /// Indexes have changed their names: any of them may be another one.
    pub(crate) everything: bool,
    /// Keys or features were changed.
    pub(crate) state: bool,
    #[serde(skip)]
    id_bytes: usize,
}

impl Writes {
    /// Adds a write. Documents of an index that isn't `known` can't be told from those that were there before.
    fn add(&mut self, write: &NamedOperation, ids: Option<&Ids>, known: &BTreeSet<String>) {
        let operation = write.operation;
        if operation.changes_indexes() {
            self.list = true;
        }
        let Some(uid) = write.index.as_deref() else {
            match operation {
                Operation::CreateIndex => {}
                operation if operation.changes_indexes() => self.everything = true,
                _ => self.state = true,
            }
            return;
        };
        match (operation, &write.document, ids) {
            (operation, _, Some(ids)) if operation.writes_named_documents() => {
                self.add_ids(uid, ids.iter(), known);
            }
            (Operation::DeleteDocument, Some(document), _) => {
                self.add_ids(uid, [document.as_str()], known);
            }
            (Operation::CompactIndex, ..) => {}
            _ => drop(self.indexes.insert(uid.to_owned(), Touched::All)),
        }
    }

    fn add_ids<'a>(
        &mut self,
        uid: &str,
        new: impl IntoIterator<Item = &'a str>,
        known: &BTreeSet<String>,
    ) {
        let noted = self
            .indexes
            .entry(uid.to_owned())
            .or_insert_with(|| Touched::Ids(BTreeSet::new()));
        let Touched::Ids(ids) = noted else { return };
        for id in new {
            // What is no id names no document.
            let Ok(id) = DocumentId::from_text(id) else {
                continue;
            };
            if ids.insert(id.as_str().to_owned()) {
                self.id_bytes += id.as_str().len();
            }
        }
        if !known.contains(uid) || self.id_bytes > MAX_ID_BYTES {
            let given_up: usize = ids.iter().map(String::len).sum();
            self.id_bytes -= given_up.min(self.id_bytes);
            *noted = Touched::All;
        }
    }

    /// The documents that were written, if it is known which, and nothing else was.
    pub(crate) fn documents(&self) -> Option<usize> {
        if self.list || self.everything {
            return None;
        }
        let counts = self.indexes.values().map(|touched| match touched {
            Touched::Ids(ids) => Some(ids.len()),
            Touched::All => None,
        });
        counts.sum()
    }

    /// Whether `later` may have changed what these writes have changed, so that it can't be read any more as they left it.
    pub(crate) fn overwritten_by(&self, later: &Self) -> bool {
        let overwritten =
            |(uid, before): (&String, &Touched)| match (before, later.indexes.get(uid)) {
                (_, None) => false,
                (Touched::Ids(before), Some(Touched::Ids(ids))) => !before.is_disjoint(ids),
                _ => true,
            };
        later.everything || later.state || self.indexes.iter().any(overwritten)
    }
}

/// A moment at which the notes were taken, and what had been written until then and is yet to be copied.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// What had been written since the moment before.
    pub(crate) writes: Writes,
    /// The last task that a shard had taken; `None` if there was none.
    pub(crate) last_task: Option<u32>,
}

struct Session {
    id: Uuid,
    shards: Vec<ShardId>,
    used: Instant,
    /// How many requests of the client are being answered.
    busy: usize,
    writes: Writes,
    /// The indexes that the client knows, with their primary keys.
    known: BTreeSet<String>,
    held: HashMap<String, Held>,
    /// Nodes that have applied everything up to the last round.
    settled: HashSet<NodeId>,
    round: u64,
    candidate: Option<Candidate>,
}

impl Session {
    fn has_ended(&self) -> bool {
        self.busy == 0 && self.used.elapsed() >= LEASE
    }
}

/// The backup that is being made, if any.
#[derive(Default)]
pub(crate) struct Backups {
    session: Mutex<Option<Session>>,
}

impl Backups {
    /// Begins a backup of these shards; `None` if there is another one.
    pub(crate) fn begin(&self, shards: Vec<ShardId>) -> Option<Uuid> {
        let mut session = self.lock();
        let ended = session.take_if(|session| session.has_ended());
        if session.is_some() {
            return None;
        }
        let id = Uuid::new_v4();
        *session = Some(Session {
            id,
            shards,
            used: Instant::now(),
            busy: 0,
            writes: Writes::default(),
            known: BTreeSet::new(),
            held: HashMap::new(),
            settled: HashSet::new(),
            round: 0,
            candidate: None,
        });
        drop(session);
        drop(ended);
        Some(id)
    }

    /// Ends a backup.
    pub(crate) fn end(&self, id: Uuid) -> bool {
        let mut session = self.lock();
        let ended = session.take_if(|session| session.id == id);
        // What keeps slots in place tells others when it goes.
        drop(session);
        ended.is_some()
    }

    /// A request of the backup's client; `None` if there is no such backup.
    pub(crate) fn use_it(self: &Arc<Self>, id: Uuid) -> Option<InUse> {
        self.with(id, |session| session.busy += 1)?;
        Some(InUse {
            backups: Arc::clone(self),
            id,
        })
    }

    /// Whether a backup is still being made.
    pub(crate) fn is_there(&self, id: Uuid) -> bool {
        self.with(id, |_| ()).is_some()
    }

    /// Notes a write that is about to be sent.
    pub(crate) fn note(&self, write: &NamedOperation, ids: Option<&Ids>) {
        if let Some(session) = self.lock().as_mut() {
            session.writes.add(write, ids, &session.known);
        }
    }

    fn with<T>(&self, id: Uuid, work: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut session = self.lock();
        let ended = session.take_if(|session| session.has_ended());
        let result = session
            .as_mut()
            .filter(|session| session.id == id)
            .map(work);
        drop(session);
        drop(ended);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A backup during one of its client's requests. It doesn't end by itself while this lives.
pub(crate) struct InUse {
    backups: Arc<Backups>,
    id: Uuid,
}

impl InUse {
    /// The shards that the backup began with.
    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.with(|session| session.shards.clone())
    }

    /// Keeps an index's slots where they are until the backup ends.
    pub(crate) fn hold(&self, uid: &str, held: Held) {
        // If it is held already, the new one is dropped outside of the lock.
        let surplus = self.with(|session| match session.held.contains_key(uid) {
            true => Some(held),
            false => session.held.insert(uid.to_owned(), held),
        });
        drop(surplus);
    }

    /// The client knows these indexes now, with their primary keys.
    pub(crate) fn know(&self, uids: BTreeSet<String>) {
        self.with(|session| session.known = uids);
    }

    /// The present round, and whether a node has applied everything up to it.
    pub(crate) fn settled(&self, node: &NodeId) -> (u64, bool) {
        self.with(|session| (session.round, session.settled.contains(node)))
    }

    /// Notes that a node has applied everything up to a round.
    pub(crate) fn set_settled(&self, node: &NodeId, round: u64) {
        self.with(|session| {
            if session.round == round {
                session.settled.insert(node.clone());
            }
        });
    }

    /// Takes the notes, and begins a round; `None` if the backup was ended meanwhile, so that nobody has noted anything. The caller
    /// has the locks of all shards.
    pub(crate) fn take(&self) -> Option<(Option<Candidate>, Writes)> {
        self.backups.with(self.id, |session| {
            session.round += 1;
            session.settled.clear();
            (
                session.candidate.take(),
                std::mem::take(&mut session.writes),
            )
        })
    }

    /// The writes of this round are being copied, and if nobody overwrites them meanwhile, the copy is whole.
    pub(crate) fn propose(&self, candidate: Candidate) {
        self.with(|session| session.candidate = Some(candidate));
    }

    fn with<T: Default>(&self, work: impl FnOnce(&mut Session) -> T) -> T {
        self.backups.with(self.id, work).unwrap_or_default()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.with(|session| {
            session.busy = session.busy.saturating_sub(1);
            session.used = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use weft_routing::operation::Setting;

    use super::*;

    fn on(operation: Operation, index: &str) -> NamedOperation {
        NamedOperation::of_index(operation, index)
    }

    fn ids(list: &[&str]) -> Ids {
        list.iter().collect()
    }

    fn known() -> BTreeSet<String> {
        BTreeSet::from(["films".to_owned(), "books".to_owned()])
    }

    fn written(ids_of_films: &[&str]) -> Writes {
        let mut writes = Writes::default();
        let add = on(Operation::ReplaceDocuments, "films");
        writes.add(&add, Some(&ids(ids_of_films)), &known());
        writes
    }

    #[test]
    fn documents_are_noted_by_id_and_what_has_none_makes_the_index_doubtful() {
        use Operation as Op;
        let mut writes = written(&["1", "2"]);
        let delete = NamedOperation {
            document: Some("3".to_owned()),
            ..on(Op::DeleteDocument, "films")
        };
        writes.add(&delete, None, &known());
        assert_eq!(writes.documents(), Some(3));
        for operation in [
            Op::EditDocuments,
            Op::DeleteDocumentsByFilter,
            Op::ClearDocuments,
            Op::UpdateSettings,
            Op::ResetSetting(Setting::Synonyms),
        ] {
            let mut writes = writes.clone();
            writes.add(&on(operation, "books"), None, &known());
            assert_eq!(writes.indexes.get("books"), Some(&Touched::All));
            assert_eq!((writes.documents(), writes.list), (None, false));
        }
    }

    #[test]
    fn documents_of_an_index_that_the_client_does_not_know_make_it_doubtful() {
        let mut writes = Writes::default();
        let add = on(Operation::ReplaceDocuments, "new");
        writes.add(&add, Some(&ids(&["1"])), &known());
        assert_eq!(writes.indexes.get("new"), Some(&Touched::All));
    }

    #[test]
    fn what_is_no_id_is_not_noted() {
        assert_eq!(written(&[" 3 ", "a b", "7"]), written(&["7"]));
    }

    #[test]
    fn changes_of_indexes_and_of_the_state_are_told_apart() {
        use Operation as Op;
        let with = |write: NamedOperation| {
            let mut writes = Writes::default();
            writes.add(&write, None, &known());
            (writes.list, writes.everything, writes.state)
        };
        assert_eq!(
            with(NamedOperation::unnamed(Op::CreateIndex)),
            (true, false, false)
        );
        assert_eq!(
            with(NamedOperation::unnamed(Op::SwapIndexes)),
            (true, true, false)
        );
        assert_eq!(with(on(Op::DeleteIndex, "films")), (true, false, false));
        assert_eq!(
            with(NamedOperation::unnamed(Op::UpdateFeatures)),
            (false, false, true)
        );
        assert_eq!(with(on(Op::CompactIndex, "films")), (false, false, false));
    }

    #[test]
    fn only_what_touches_the_same_documents_spoils_a_moment() {
        let moment = written(&["1", "2"]);
        assert!(!moment.overwritten_by(&Writes::default()));
        assert!(!moment.overwritten_by(&written(&["3"])));
        assert!(moment.overwritten_by(&written(&["2", "3"])));
        let mut cleared = Writes::default();
        cleared.add(&on(Operation::ClearDocuments, "films"), None, &known());
        assert!(moment.overwritten_by(&cleared));
        assert!(!Writes::default().overwritten_by(&cleared));
    }

    #[tokio::test(start_paused = true)]
    async fn a_backup_whose_client_vanished_ends_and_one_that_is_used_does_not() {
        let backups = Arc::new(Backups::default());
        let id = backups.begin(vec![ShardId(0)]).unwrap();
        assert!(backups.begin(Vec::new()).is_none());
        let used = backups.use_it(id).unwrap();
        tokio::time::advance(LEASE * 2).await;
        assert!(backups.is_there(id));
        drop(used);
        assert!(backups.is_there(id));
        tokio::time::advance(LEASE).await;
        assert!(!backups.is_there(id));
        assert!(backups.begin(Vec::new()).is_some());
    }

    #[test]
    fn what_is_noted_is_taken_once() {
        let backups = Arc::new(Backups::default());
        let id = backups.begin(Vec::new()).unwrap();
        let used = backups.use_it(id).unwrap();
        used.know(known());
        let add = on(Operation::ReplaceDocuments, "films");
        backups.note(&add, Some(&ids(&["1"])));
        assert_eq!(used.take().unwrap().1, written(&["1"]));
        assert_eq!(used.take().unwrap().1, Writes::default());
        assert!(backups.end(id) && !backups.is_there(id));
        assert!(used.take().is_none(), "nobody notes any more");
    }
}
