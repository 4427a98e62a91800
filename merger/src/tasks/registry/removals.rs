//! Which indexes have lost documents on purpose. A resync that finds fewer documents than before checks here whether a task
//! removed them.
//!
//! Usually the task records answer that. When they are deleted, a mark with the time of the last such task takes their place,
//! until all replicas are in sync again and a day has passed.

use hashbrown::HashMap;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::Tasks;
use super::state::State;
use crate::store::{Change, Store, StoreError};

const PREFIX: &str = "removed/";
/// The shortest time for which marks are kept.
const KEPT: Duration = Duration::hours(24);
/// Stands for all indexes: a swap isn't bound to a single index.
const ALL: &str = "*";

/// By index: when documents were last removed by a task whose record is deleted by now.
pub(super) type Removals = HashMap<String, OffsetDateTime>;

/// Whether tasks of this kind remove documents, or change which index has a name.
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
    /// Whether a task enqueued at `since` or later may have removed documents of the index, or the index itself.
    pub fn has_removed(&self, index_uid: &str, since: OffsetDateTime) -> bool {
        let state = self.lock();
        let by_record = state.notes.any_since(since, |label| {
            let index = label.index_uid.as_deref();
            removes(&label.kind) && index.is_none_or(|index| index == index_uid)
        });
        let by_mark = [index_uid, ALL]
            .iter()
            .any(|index| state.removals.get(*index).is_some_and(|at| *at >= since));
        by_record || by_mark
    }

    /// Drops the marks of old removals. The caller knows that all replicas are in sync: no replica comes back with a disk that
    /// old.
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
    /// The marks that replace the records of these tasks, which are about to be deleted.
    pub(super) fn removals_of(&mut self, uids: &[u32]) -> Vec<Change> {
        let mut changes = Vec::new();
        for uid in uids {
            let Some(note) = self.notes.get(*uid) else {
                continue;
            };
            let label = self.notes.label(note);
            if !removes(&label.kind) {
                continue;
            }
            let index = label.index_uid.as_deref().unwrap_or(ALL).to_owned();
            let at = note.enqueued_at();
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
