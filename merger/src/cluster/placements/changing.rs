//! An index goes from one strategy to another: its placement says how far that is, so that whoever leads goes on with it.
//!
//! ```text
//! checking ─► moving ─► the new slots
//!     │          ⇅
//!     └──────► going back ─► the old slots
//! ```
//!
//! While slots are moved, the placement's slots are those of a [`Change`], by which each document has an old and a new owner. They
//! take the place of the old slots, and the new ones take theirs, without any document changing its owner. So readers who still go
//! by the ones are as right as those who go by the others.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_routing::placement::{ShardId, SlotMap};
use weft_routing::strategy::{Change, Strategy};

use super::{Placement, Placements};
use crate::store::StoreError;

/// How far a change of strategy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It is looked whether all documents have what the new strategy needs. Nothing is moved yet.
    Checking,
    /// Documents go to their new owners.
    Moving,
    /// Documents go back to their old owners.
    GoingBack,
}

/// A change of strategy that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changing {
    /// How far it is.
    pub stage: Stage,
    /// The strategy that the index gets after this, since it can't be reached directly.
    pub then: Option<Strategy>,
}

impl Changing {
    fn begins(then: Option<Strategy>) -> Self {
        Self {
            stage: Stage::Checking,
            then,
        }
    }
}

impl Placement {
    /// The change of strategy that is under way, and how far it is.
    pub(crate) fn change(&self) -> Option<(&Arc<Change>, Stage)> {
        let change = self.slots.change()?;
        let changing = self.changing.as_ref()?;
        Some((change, changing.stage))
    }

    /// The strategy that the index gets when all is over that is under way.
    pub(crate) fn target(&self) -> &Strategy {
        match self.change() {
            None => self.slots.strategy(),
            Some((change, Stage::GoingBack)) => change.old().strategy(),
            Some((change, _)) => {
                let then = self.changing.as_ref();
                let then = then.and_then(|changing| changing.then.as_ref());
                then.unwrap_or_else(|| change.new_slots().strategy())
            }
        }
    }

    /// A strategy by which all documents can be placed, as far as that is known.
    pub(crate) fn sure_strategy(&self) -> &Strategy {
        match self.change() {
            None => self.slots.strategy(),
            Some((change, Stage::Moving)) => change.new_slots().strategy(),
            Some((change, _)) => change.old().strategy(),
        }
    }

    /// Whether a shard holds anything of the index, or may get something by what is under way.
    pub(crate) fn concerns(&self, shard: ShardId) -> bool {
        let is_to_be = self.change().is_some_and(|(change, _)| {
            let ends = [change.old(), change.new_slots()];
            ends.iter().any(|slots| slots.shards().contains(&shard))
        });
        is_to_be || self.shards().contains(&shard) || self.unsettled.contains(&shard)
    }

    /// Whether nothing of the index is moved, and no shard holds documents that aren't its own.
    fn rests(&self, slots: &Arc<SlotMap>) -> bool {
        self.slots == *slots && self.unsettled.is_empty() && self.deleted_by.is_none()
    }
}

impl Placements {
    /// Begins to change the strategy of an index; `then` is the strategy that it gets afterwards, if that isn't the change's.
    /// `false` if the index has other slots than the change begins with, or doesn't rest: nothing is changed then.
    ///
    /// The caller has the locks of all of its shards.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn begin_change(
        &self,
        uid: &str,
        change: &Arc<Change>,
        then: Option<Strategy>,
    ) -> Result<bool, StoreError> {
        let old = change.old();
        self.change_if(uid, |placement| {
            let rests = placement.rests(old);
            if rests {
                placement.slots = Arc::new(SlotMap::begun(change));
                placement.changing = Some(Changing::begins(then));
                placement.change_error = None;
            }
            rests
        })
        .await
    }

    /// Lets a change of strategy go from one stage to another, if the index still changes so; `error` is what people are told of it.
    /// `false` if it doesn't, or is in another stage: nothing is changed then.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn set_stage(
        &self,
        uid: &str,
        change: &Arc<Change>,
        [from, to]: [Stage; 2],
        error: Option<String>,
    ) -> Result<bool, StoreError> {
        self.change_if(uid, |placement| {
            let is_same = placement.change() == Some((change, from));
            if let (true, Some(changing)) = (is_same, &mut placement.changing) {
                changing.stage = to;
                placement.change_error = error;
            }
            is_same
        })
        .await
    }

    /// Ends the change of strategy of an index: it gets the slots `after`, or begins with `next`, the change that follows. `false`
    /// if it isn't as `before` any more, or doesn't rest: nothing is changed then.
    ///
    /// The caller has the locks of all of its shards, and has seen that each document lies where it is to lie.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn end_change(
        &self,
        before: &Placement,
        after: &Arc<SlotMap>,
        next: Option<&Arc<Change>>,
    ) -> Result<bool, StoreError> {
        let after = self.shared_slots(SlotMap::clone(after));
        self.change_if(&before.uid, |placement| {
            let rests = placement.rests(&before.slots) && placement.changing == before.changing;
            if rests {
                if matches!(placement.change(), Some((_, Stage::Moving))) {
                    placement.change_error = None;
                }
                placement.changing = next.map(|_| Changing::begins(None));
                placement.slots = match next {
                    Some(next) => Arc::new(SlotMap::begun(next)),
                    None => after,
                };
            }
            rests
        })
        .await
    }

    /// Changes a placement, if `change` says that it did.
    async fn change_if(
        &self,
        uid: &str,
        change: impl FnOnce(&mut Placement) -> bool,
    ) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        let Some(old) = self.get(uid) else {
            return Ok(false);
        };
        let mut new = Placement::clone(&old);
        let changed = change(&mut new);
        if changed && new != *old {
            self.save(&Arc::new(new)).await?;
        }
        Ok(changed)
    }
}
