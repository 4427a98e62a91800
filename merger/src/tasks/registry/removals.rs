//! Which indexes have lost documents on purpose: a resync that finds fewer documents than before asks whether anybody wanted that.
//!
//! The records of tasks tell. Where they are deleted, a mark with the time of the last such task takes their place, until all replicas
//! are in sync again and a day is over.

use hashbrown::HashMap;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::Tasks;
use super::state::State;
use crate::store::{Change, Store, StoreError};

const PREFIX: &str = "removed/";
/// How long marks are kept at least.
const KEPT: Duration = Duration::hours(24);
/// Stands for all indexes: a swap has no index of its own.
const ALL: &str = "*";

/// When documents of an index were last removed by a task that is deleted by now.
pub(super) type Removals = HashMap<String, OffsetDateTime>;

/// Whether tasks of this kind take documents away, or whole indexes from their names.
fn removes(kind: &str) -> bool {
    matches!(
        kind,
        "documentDeletion" | "documentEdition" | "indexDeletion" | "indexUpdate" | "indexSwap"
    )
}

pub(super) async fn read(store: &dyn Store) -> Result<Removals, StoreError> {
    let stored = store.range(PREFIX).await?;
    let entry = |(key, stored): (String, crate::store::Versioned)| {
        let index = key.strip_prefix(PREFIX)?.to_owned();
        let text = String::from_utf8(stored.value).ok()?;
        Some((index, OffsetDateTime::parse(&text, &Rfc3339).ok()?))
    };
    Ok(stored.into_iter().filter_map(entry).collect())
}

impl Tasks {
    /// Whether any task since then removed documents of the index, or the index itself.
    pub fn has_removed(&self, index_uid: &str, since: OffsetDateTime) -> bool {
        let state = self.lock();
        let by_record = state.notes.values().any(|note| {
            let index = note.index_uid.as_deref();
            note.enqueued_at >= since
                && removes(note.kind())
                && index.is_none_or(|index| index == index_uid)
        });
        let by_mark = [index_uid, ALL]
            .iter()
            .any(|index| state.removals.get(*index).is_some_and(|at| *at >= since));
        by_record || by_mark
    }

    /// Forgets what was removed long ago: all replicas are in sync, and none comes back with a disk as old as that.
    ///
    /// # Errors
    /// The store failed.
    pub async fn forget_removals(&self, now: OffsetDateTime) -> Result<(), StoreError> {
        let indexes: Vec<String> = {
            let state = self.lock();
            let old = state.removals.iter().filter(|(_, at)| now - **at > KEPT);
            old.map(|(index, _)| index.clone()).collect()
        };
        if indexes.is_empty() {
            return Ok(());
        }
        let key = |index: &String| Change::delete(format!("{PREFIX}{index}"));
        self.store.commit(indexes.iter().map(key).collect()).await?;
        let mut state = self.lock();
        for index in &indexes {
            state.removals.remove(index);
        }
        Ok(())
    }
}

impl State {
    /// What takes the place of these tasks' records, which are to be deleted.
    pub(super) fn removals_of(&mut self, uids: &[u32]) -> Vec<Change> {
        let mut changes = Vec::new();
        for uid in uids {
            let Some(note) = self.notes.get(uid).filter(|note| removes(note.kind())) else {
                continue;
            };
            let index = note.index_uid.as_deref().unwrap_or(ALL).to_owned();
            let at = note.enqueued_at;
            if self.removals.get(&index).is_some_and(|last| *last >= at) {
                continue;
            }
            let Ok(text) = at.format(&Rfc3339) else {
                continue;
            };
            let key = format!("{PREFIX}{index}");
            changes.push(Change::put(key, text.into_bytes()));
            self.removals.insert(index, at);
        }
        changes
    }
}
