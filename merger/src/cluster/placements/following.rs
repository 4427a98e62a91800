//! The placements of a follower: what the leader has stored is applied in memory.

use std::sync::Arc;

use weft_routing::placement::SlotMap;

use super::stored::decode;
use super::{EPOCH_KEY, PREFIX, Placement, Placements, UNDIRECTED_KEY};
use crate::cluster::Changed;

impl Placements {
    /// The keys of all that may be gone when the state is read again.
    pub(in crate::cluster) fn keys(&self) -> Vec<String> {
        let state = self.lock();
        let placements = state.placements.keys();
        let keys = placements.map(|uid| format!("{PREFIX}{uid}"));
        keys.chain([UNDIRECTED_KEY.to_owned()]).collect()
    }

    /// Applies in memory what the leader has stored; other entries are ignored.
    ///
    /// # Errors
    /// The key of an entry that can't be read. Nothing is applied then.
    pub(in crate::cluster) fn apply(&self, changed: &[Changed]) -> Result<(), String> {
        let (mut epoch, mut undirected, mut placements) = (None, None, Vec::new());
        for (key, value) in changed {
            let unreadable = |_| key.clone();
            if let Some(uid) = key.strip_prefix(PREFIX) {
                let placement = value.as_deref().map(|value| {
                    let placement = decode(uid, value).ok_or_else(|| key.clone())?;
                    let slots = self.shared_slots(SlotMap::clone(&placement.slots));
                    Ok::<_, String>(Arc::new(Placement { slots, ..placement }))
                });
                placements.push((uid.to_owned(), placement.transpose()?));
            } else if key == UNDIRECTED_KEY {
                let value = value.as_deref().map(serde_json::from_slice);
                undirected = Some(value.transpose().map_err(unreadable)?.unwrap_or_default());
            } else if let (true, Some(value)) = (key == EPOCH_KEY, value) {
                epoch = Some(serde_json::from_slice(value).map_err(unreadable)?);
            }
        }
        if epoch.is_none() && undirected.is_none() && placements.is_empty() {
            return Ok(());
        }
        {
            // At once, since an epoch always stands for the same table.
            let mut state = self.lock();
            state.epoch = epoch.unwrap_or(state.epoch);
            let now = state.epoch;
            if let Some(undirected) = undirected {
                let before = std::mem::replace(&mut state.undirected, undirected);
                let uids: Vec<String> = before
                    .into_keys()
                    .chain(state.undirected.keys().cloned())
                    .collect();
                state.history.note(now, uids);
            }
            if epoch.is_none() {
                // A table may have been told under this epoch that lacks this.
                state.history.forget(now);
            }
            state
                .history
                .note(now, placements.iter().map(|(uid, _)| uid.clone()));
            for (uid, placement) in placements {
                state.set(&uid, placement);
            }
            state.table = None;
        }
        self.changes.tell();
        Ok(())
    }
}
