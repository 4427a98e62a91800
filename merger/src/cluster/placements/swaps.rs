//! Exchanges placements for swaps and renamings, and exchanges them back if the nodes refuse.
//!
//! The placements are exchanged before the nodes have done their task. Until the task has ended, a mark in the store says that the
//! exchange was made, so that it is taken back at most once.

use std::sync::Arc;

use super::{Placement, Placements};
use crate::store::{Change, StoreError};

/// The prefix of the marks of swaps whose tasks haven't ended.
const SWAPPED: &str = "swapped/";

impl Placements {
    /// Exchanges the placements of indexes pair by pair, as `swap-indexes` does, or renames one if the other doesn't exist.
    /// `task` has asked the nodes for the same. `extra` is stored in the same commit.
    ///
    /// # Errors
    /// The store failed; nothing is exchanged then.
    pub async fn swap_for(
        &self,
        pairs: &[(&str, &str)],
        task: u32,
        mut extra: Vec<Change>,
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        extra.push(Change::put(mark(task), Vec::new()));
        self.exchange(pairs, extra).await
    }

    /// Moves the mark that [`swap_for`](Self::swap_for) stored for `old`, a uid that no task got, to `new`.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub async fn swap_goes_on(&self, old: u32, new: u32, extra: Change) -> Result<(), StoreError> {
        let (gone, there) = (
            Change::delete(mark(old)),
            Change::put(mark(new), Vec::new()),
        );
        self.store.commit(vec![gone, there, extra]).await
    }

    /// Undoes [`swap_for`](Self::swap_for) after the nodes refused the swap. A second call changes nothing.
    ///
    /// # Errors
    /// The store failed; nothing is exchanged then.
    pub async fn swap_back(&self, pairs: &[(&str, &str)], task: u32) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let key = mark(task);
        if self.store.get(&key).await?.is_none() {
            return Ok(());
        }
        self.exchange(pairs, vec![Change::delete(key)]).await
    }

    /// Removes the mark of [`swap_for`](Self::swap_for) once the nodes have made the swap.
    ///
    /// # Errors
    /// The store failed.
    pub async fn swapped(&self, task: u32) -> Result<(), StoreError> {
        self.store.commit(vec![Change::delete(mark(task))]).await
    }

    /// Exchanges the placements. The caller holds `changing`.
    async fn exchange(&self, pairs: &[(&str, &str)], extra: Vec<Change>) -> Result<(), StoreError> {
        let renamed = |placement: Arc<Placement>, uid: &str| {
            Arc::new(Placement {
                uid: uid.to_owned(),
                ..Placement::clone(&placement)
            })
        };
        let changes: Vec<_> = pairs
            .iter()
            .flat_map(|(one, two)| {
                let (first, second) = (self.get(one), self.get(two));
                [
                    (*two, first.map(|placement| renamed(placement, two))),
                    (*one, second.map(|placement| renamed(placement, one))),
                ]
            })
            .collect();
        self.commit_with(&changes, extra).await
    }
}

/// The key of a swap's mark.
fn mark(task: u32) -> String {
    format!("{SWAPPED}{task:010}")
}
