//! Makes tasks follow their indexes' names: after a swap or a renaming, all earlier tasks show the index's new name, as on a
//! node. Records keep the name from when the task was created; notes have the current name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::state::State;
use super::{Tasks, key};
use crate::store::{Change, Store, StoreError};
use crate::tasks::notes::Notes;
use crate::tasks::record::TaskRecord;
use crate::tasks::{TaskError, TaskView, aggregate};

/// The prefix of marks for swaps and renamings whose own tasks were deleted while older tasks remain.
const PREFIX: &str = "renamed/";

/// Pairs of names that were exchanged.
pub(super) type Pairs = Vec<[String; 2]>;

/// Whether tasks of this kind may exchange names.
fn may_rename(kind: &str) -> bool {
    matches!(kind, "indexSwap" | "indexUpdate")
}

/// The names that a task exchanged; none if it isn't such a task or didn't succeed in it.
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

/// The name that `uid` has after the exchange. An exchange is its own inverse, so this also gives the name before it.
fn renamed<'a>(uid: &'a str, pairs: &'a Pairs) -> &'a str {
    let other = pairs.iter().find_map(|[one, two]| match uid {
        _ if uid == one => Some(two.as_str()),
        _ if uid == two => Some(one.as_str()),
        _ => None,
    });
    other.unwrap_or(uid)
}

impl State {
    /// Gives all tasks before `task` the names after its exchange. Exchanges of later tasks may already be applied; this one
    /// still counts as the earlier.
    pub(super) fn rename(&mut self, task: u32, pairs: Pairs) {
        if pairs.is_empty() {
            return;
        }
        let later: Vec<&Pairs> = self
            .renamed
            .range(task + 1..)
            .map(|(_, pairs)| pairs)
            .collect();
        self.notes.rename(..task, |now| {
            let then = later
                .iter()
                .rev()
                .fold(now, |uid, pairs| renamed(uid, pairs));
            let after = renamed(then, &pairs);
            let new = later.iter().fold(after, |uid, pairs| renamed(uid, pairs));
            Some(new.to_owned())
        });
        self.renamed.insert(task, pairs);
    }

    /// The same for all known exchanges, in the order of their tasks.
    pub(super) fn rename_all(&mut self, all: BTreeMap<u32, Pairs>) {
        // Old name to current name; a name without an entry hasn't changed.
        let mut now: BTreeMap<String, String> = BTreeMap::new();
        for (task, pairs) in all.iter().rev() {
            for [one, two] in pairs {
                let is_now = |name: &String| now.get(name).unwrap_or(name).clone();
                let (first, second) = (is_now(one), is_now(two));
                now.insert(one.clone(), second);
                now.insert(two.clone(), first);
            }
            // The tasks since the exchange before this one.
            let before = all
                .range(..*task)
                .next_back()
                .map_or(0, |(before, _)| *before);
            self.notes
                .rename(before..*task, |uid| now.get(uid).cloned());
        }
        self.renamed = all;
    }

    /// Drops exchanges that are older than all tasks.
    pub(super) fn tidy_renamed(&mut self) {
        let oldest = self.notes.first().unwrap_or(u32::MAX);
        self.renamed.retain(|task, _| *task > oldest);
    }
}

/// The stored marks, by task.
pub(super) async fn marked(store: &dyn Store) -> Result<BTreeMap<u32, Pairs>, StoreError> {
    let marks = store.range(PREFIX).await?.into_iter();
    let read = |(key, stored): (String, crate::store::Versioned)| {
        let task = key.strip_prefix(PREFIX)?.parse().ok()?;
        Some((task, serde_json::from_slice(&stored.value).ok()?))
    };
    Ok(marks.filter_map(read).collect())
}

/// The deletions of marks that are older than all tasks, and so not needed any more.
pub(super) fn needless(marks: &BTreeMap<u32, Pairs>, notes: &Notes) -> Vec<Change> {
    let oldest = notes.first().unwrap_or(u32::MAX);
    let needless = marks.range(..=oldest);
    needless
        .map(|(task, _)| Change::delete(mark(*task)))
        .collect()
}

fn mark(task: u32) -> String {
    format!("{PREFIX}{task:010}")
}

impl Tasks {
    /// The marks that must be stored when the tasks `gone` are deleted, because older tasks need them.
    pub(super) async fn marks_of(&self, gone: &[u32]) -> Result<Vec<Change>, TaskError> {
        let renamers: Vec<u32> = {
            let state = self.lock();
            let may = |uid: &&u32| {
                let note = state.notes.get(**uid);
                note.is_some_and(|note| may_rename(&state.notes.label(note).kind))
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

    /// The task as stored, with the index name from when the task was created.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_as_begun(&self, uid: u32) -> Result<TaskView, TaskError> {
        let open = {
            let state = self.lock();
            if !state.notes.contains(uid) {
                return Err(TaskError::NotFound { uid });
            }
            state.open_record(uid).cloned()
        };
        let record = match open {
            Some(record) => record,
            None => Arc::new(self.load(uid).await?),
        };
        let alone = record.alone(uid).ok_or(TaskError::NotFound { uid })?;
        Ok(aggregate::view(&alone))
    }
}

#[cfg(test)]
mod tests;
