//! The steps of a move: slots change their owner, and shards hold documents that aren't theirs for a while.

use std::sync::Arc;

use weft_routing::placement::{ShardId, SlotMap};
use weft_routing::slot::Slot;

use super::{Placement, Placements};
use crate::store::{Change, StoreError};

impl Placements {
    /// Notes that these shards may hold documents of slots of the index that aren't theirs, or that they no longer do.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn set_unsettled(
        &self,
        uid: &str,
        shards: &[ShardId],
        unsettled: bool,
    ) -> Result<(), StoreError> {
        self.change(uid, |placement| {
            for shard in shards {
                match unsettled {
                    true => placement.unsettled.insert(*shard),
                    false => placement.unsettled.remove(shard),
                };
            }
        })
        .await
    }

    /// Sets on how many shards the index is to lie.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn set_shard_count(
        &self,
        uid: &str,
        count: Option<u16>,
    ) -> Result<(), StoreError> {
        self.change(uid, |placement| placement.shard_count = count)
            .await
    }

    /// Gives slots of an index from one shard to another, which has all their documents; `extra` is stored in the same commit.
    /// `false` if the index is gone, or the slots aren't all the first shard's: nothing is changed then.
    ///
    /// The caller has the locks of both shards.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn hand_over(
        &self,
        uid: &str,
        slots: &[Slot],
        [from, to]: [ShardId; 2],
        extra: Vec<Change>,
    ) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        let Some(before) = self.get(uid).filter(|index| owns(index, slots, from)) else {
            return Ok(false);
        };
        let new: SlotMap = before.slots.with_owner_of_all(slots, to);
        let placement = Arc::new(Placement {
            slots: self.shared_slots(new),
            ..Placement::clone(&before)
        });
        self.commit_with(&[(uid, Some(placement))], extra).await?;
        Ok(true)
    }
}

/// Whether a shard owns all of these slots of an index that isn't being deleted.
pub(crate) fn owns(index: &Placement, slots: &[Slot], shard: ShardId) -> bool {
    let is_owned = |slot: &Slot| index.slots.shard_of_slot(*slot) == shard;
    index.deleted_by.is_none() && slots.iter().all(is_owned)
}
