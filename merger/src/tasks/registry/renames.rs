//! Tasks go with their indexes: when indexes are swapped, or one is renamed, all tasks before that are about the index by its new name,
//! as on a node. Records keep the name that they began with; notes have the one of now.

use std::collections::BTreeMap;

use super::state::State;
use super::{Tasks, key};
use crate::store::{Change, Store, StoreError};
use crate::tasks::filter::Note;
use crate::tasks::record::TaskRecord;
use crate::tasks::{TaskError, TaskView, aggregate};

/// Marks of swaps and renamings whose own tasks were deleted while older ones were not.
const PREFIX: &str = "renamed/";

/// Names that were exchanged.
pub(super) type Pairs = Vec<[String; 2]>;

/// Whether tasks of this kind may rename.
fn may_rename(kind: &str) -> bool {
    matches!(kind, "indexSwap" | "indexUpdate")
}

/// What a task exchanged, if it is one that did.
pub(super) fn pairs(record: &TaskRecord) -> Pairs {
    if !may_rename(&record.kind) {
        return Pairs::new();
    }
    let view = aggregate::view(record);
    if !view.has_exchanged() {
        return Pairs::new();
    }
    let exchanged = view.exchanged().into_iter();
    let owned = |(one, two): (&str, &str)| [one.to_owned(), two.to_owned()];
    exchanged.map(owned).collect()
}

/// The name that `uid` has after the exchange, which is also what it had before if `uid` is the name after it.
fn renamed<'a>(uid: &'a str, pairs: &'a Pairs) -> &'a str {
    let other = pairs.iter().find_map(|[one, two]| match uid {
        _ if uid == one => Some(two.as_str()),
        _ if uid == two => Some(one.as_str()),
        _ => None,
    });
    other.unwrap_or(uid)
}

impl State {
    /// All tasks before `task` are about their indexes by the names that these have after it. Later exchanges may have been heard of
    /// sooner: they come after it all the same.
    pub(super) fn rename(&mut self, task: u32, pairs: Pairs) {
        if pairs.is_empty() {
            return;
        }
        let Self {
            notes,
            names,
            renamed: all,
            ..
        } = self;
        let later: Vec<&Pairs> = all.range(task + 1..).map(|(_, pairs)| pairs).collect();
        for note in notes.range_mut(..task).map(|(_, note)| note) {
            let Some(now) = note.index_uid.as_deref() else {
                continue;
            };
            let then = later
                .iter()
                .rev()
                .fold(now, |uid, pairs| renamed(uid, pairs));
            let after = renamed(then, &pairs);
            let new = later.iter().fold(after, |uid, pairs| renamed(uid, pairs));
            if new != now {
                note.index_uid = Some(names.index_uid(new));
            }
        }
        all.insert(task, pairs);
    }

    /// The same for all that ever was renamed, in the order of the tasks that did.
    pub(super) fn rename_all(&mut self, all: BTreeMap<u32, Pairs>) {
        let Self { notes, names, .. } = self;
        let mut later = all.iter().rev().peekable();
        // What an index of that name is called now; whose name isn't there has kept it.
        let mut now: BTreeMap<String, String> = BTreeMap::new();
        for (uid, note) in notes.iter_mut().rev() {
            while let Some((_, pairs)) = later.next_if(|(task, _)| *task > uid) {
                for [one, two] in pairs {
                    let is_now = |name: &String| now.get(name).unwrap_or(name).clone();
                    let (first, second) = (is_now(one), is_now(two));
                    now.insert(one.clone(), second);
                    now.insert(two.clone(), first);
                }
            }
            let new = note.index_uid.as_deref();
            if let Some(new) = new.and_then(|uid| now.get(uid)) {
                note.index_uid = Some(names.index_uid(new));
            }
        }
        self.renamed = all;
    }

    /// Forgets exchanges that no task is older than.
    pub(super) fn tidy_renamed(&mut self) {
        let oldest = self.notes.keys().next().copied().unwrap_or(u32::MAX);
        self.renamed.retain(|task, _| *task > oldest);
    }
}

/// The marks, by their tasks.
pub(super) async fn marked(store: &dyn Store) -> Result<BTreeMap<u32, Pairs>, StoreError> {
    let marks = store.range(PREFIX).await?.into_iter();
    let read = |(key, stored): (String, crate::store::Versioned)| {
        let task = key.strip_prefix(PREFIX)?.parse().ok()?;
        Some((task, serde_json::from_slice(&stored.value).ok()?))
    };
    Ok(marks.filter_map(read).collect())
}

/// The marks that no task needs any more: none is older.
pub(super) fn needless(marks: &BTreeMap<u32, Pairs>, notes: &BTreeMap<u32, Note>) -> Vec<Change> {
    let oldest = notes.keys().next().copied().unwrap_or(u32::MAX);
    let needless = marks.range(..=oldest);
    needless
        .map(|(task, _)| Change::delete(mark(*task)))
        .collect()
}

fn mark(task: u32) -> String {
    format!("{PREFIX}{task:010}")
}

impl Tasks {
    /// The marks that older tasks need when these are deleted.
    pub(super) async fn marks_of(&self, gone: &[u32]) -> Result<Vec<Change>, TaskError> {
        let renamers: Vec<u32> = {
            let state = self.lock();
            let may = |uid: &&u32| {
                let note = state.notes.get(uid);
                note.is_some_and(|note| may_rename(note.kind()))
            };
            gone.iter().filter(may).copied().collect()
        };
        let mut marks = Vec::new();
        for uid in renamers {
            let Some(stored) = self.store.get(&key(uid)).await? else {
                continue;
            };
            let record: TaskRecord =
                serde_json::from_slice(&stored.value).map_err(|_| TaskError::Corrupt { uid })?;
            let pairs = pairs(&record);
            if !pairs.is_empty() {
                let bytes = serde_json::to_vec(&pairs).unwrap_or_default();
                marks.push(Change::put(mark(uid), bytes));
            }
        }
        Ok(marks)
    }

    /// A task as it is stored: by the name that its index had when it began.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_as_begun(&self, uid: u32) -> Result<TaskView, TaskError> {
        let open = {
            let state = self.lock();
            if !state.notes.contains_key(&uid) {
                return Err(TaskError::NotFound { uid });
            }
            state.open.get(&uid).cloned()
        };
        match open {
            Some(record) => Ok(aggregate::view(&record)),
            None => Ok(aggregate::view(&self.load(uid).await?)),
        }
    }
}
