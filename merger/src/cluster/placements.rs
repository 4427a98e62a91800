//! Where each index lies, durably, and the routing table that filters poll.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashSet;
use weft_routing::Origins;
use weft_routing::placement::{ShardId, SlotMap};
use weft_routing::strategy::Strategy;
use weft_routing::table::Epoch;

mod changing;
mod following;
mod history;
mod moving;
mod placement;
mod stored;
mod swaps;
mod table;

pub use self::changing::{Changing, Stage};
pub(crate) use self::moving::owns;
pub(super) use self::placement::Placed;
pub use self::placement::{Before, Placement};

use self::history::History;
use self::stored::{decode, encode};
use super::{Changes, ClusterError, WriteMode};
use crate::store::{Change, Store, StoreError};

pub(super) const PREFIX: &str = "placement/";
pub(super) const EPOCH_KEY: &str = "epoch";
/// The origins whose pages may read answers, as of the last start.
const ORIGINS_KEY: &str = "origins";
/// The indexes that filters must leave to the merger, for followers: a merger that starts begins without any.
pub(super) const UNDIRECTED_KEY: &str = "undirected";

/// All placements.
pub struct Placements {
    store: Arc<dyn Store>,
    lease_ms: u32,
    direct_writes: bool,
    origins: Origins,
    state: Mutex<State>,
    /// One change at a time, so that memory and store agree on the order.
    changing: tokio::sync::Mutex<()>,
    /// Tells of changes of placements.
    pub(crate) changes: Changes,
}

#[derive(Default)]
struct State {
    epoch: u64,
    /// How often slots of an index have changed their owner, in this process.
    moved: u64,
    /// The indexes with shards that may hold documents of others.
    unsettled: BTreeSet<String>,
    placements: BTreeMap<String, Arc<Placement>>,
    single_replica: BTreeSet<ShardId>,
    /// Indexes that filters must leave to the merger because a change is about to move them, each with the names of those
    /// changes.
    undirected: BTreeMap<String, BTreeSet<String>>,
    table: Option<Arc<str>>,
    /// Which routes have changed lately.
    history: History,
}

impl State {
    /// Sets or removes a placement.
    fn set(&mut self, uid: &str, placement: Option<Arc<Placement>>) {
        let slots =
            |placement: Option<&Arc<Placement>>| placement.map(|one| Arc::clone(&one.slots));
        let (before, now) = (slots(self.placements.get(uid)), slots(placement.as_ref()));
        self.moved += u64::from(before.is_some() && before != now);
        match placement
            .as_ref()
            .is_some_and(|one| !one.unsettled.is_empty())
        {
            true => self.unsettled.insert(uid.to_owned()),
            false => self.unsettled.remove(uid),
        };
        match placement {
            Some(placement) => self.placements.insert(uid.to_owned(), placement),
            None => self.placements.remove(uid),
        };
    }
}

impl Placements {
    /// Reads the placements. A merger that changes them [begins](Self::begin) then.
    pub(crate) async fn read(
        store: Arc<dyn Store>,
        lease_ms: u32,
        direct_writes: bool,
        origins: Origins,
    ) -> Result<Self, ClusterError> {
        let mut state = State::default();
        if let Some(epoch) = store.get(EPOCH_KEY).await? {
            let corrupt = || ClusterError::Corrupt(EPOCH_KEY.to_owned());
            state.epoch = serde_json::from_slice(&epoch.value).map_err(|_| corrupt())?;
        }
        // Thousands of small indexes have few different slot maps.
        let mut known: HashSet<Arc<SlotMap>> = HashSet::new();
        for (key, stored) in store.range(PREFIX).await? {
            let uid = key.strip_prefix(PREFIX).unwrap_or_default().to_owned();
            let mut placement =
                decode(&uid, &stored.value).ok_or_else(|| ClusterError::Corrupt(uid.clone()))?;
            placement.slots = Arc::clone(known.get_or_insert(placement.slots));
            state.set(&uid, Some(Arc::new(placement)));
        }
        if let Some(undirected) = store.get(UNDIRECTED_KEY).await? {
            let corrupt = |_| ClusterError::Corrupt(UNDIRECTED_KEY.to_owned());
            state.undirected = serde_json::from_slice(&undirected.value).map_err(corrupt)?;
        }
        state.history.forget(state.epoch);
        Ok(Self {
            store,
            lease_ms,
            direct_writes,
            origins,
            state: Mutex::new(state),
            changing: tokio::sync::Mutex::new(()),
            changes: Changes::default(),
        })
    }

    /// Begins a run that may change placements: no change of indexes is under way yet, and the options may be other ones than in
    /// the last run.
    pub(crate) async fn begin(&self) -> Result<(), ClusterError> {
        let _changing = self.changing.lock().await;
        let before = self.store.get(ORIGINS_KEY).await?;
        let before = before.map_or_else(|| b"any".to_vec(), |stored| stored.value);
        let now = self.origins.to_string().into_bytes();
        let mut anew = Vec::new();
        if before != now {
            anew.push(Change::put(ORIGINS_KEY, now));
        }
        if !self.lock().undirected.is_empty() {
            anew.push(Change::delete(UNDIRECTED_KEY));
        }
        if !anew.is_empty() {
            // The table differs from the one that filters hold for this epoch, so the epoch must grow.
            self.commit_as(&[], anew, |state| {
                state.undirected.clear();
                state.history.forget(state.epoch);
            })
            .await?;
        }
        Ok(())
    }

    /// Where an index lies.
    pub fn get(&self, uid: &str) -> Option<Arc<Placement>> {
        self.lock().placements.get(uid).cloned()
    }

    /// Whether both indexes exist and have different slots.
    pub fn lie_apart(&self, pair: &[String; 2]) -> bool {
        match pair.each_ref().map(|uid| self.get(uid)) {
            [Some(one), Some(two)] => one.slots != two.slots,
            _ => false,
        }
    }

    /// All placements, in the order of their uids.
    pub fn all(&self) -> Vec<Arc<Placement>> {
        self.lock().placements.values().cloned().collect()
    }

    /// How often slots have changed their owner so far. A reader that finds another number when it has its answers may have asked
    /// a shard for documents that were just moved away.
    pub fn moved(&self) -> u64 {
        self.lock().moved
    }

    /// Whether any shard may hold documents of slots that aren't its own.
    pub fn any_unsettled(&self) -> bool {
        !self.lock().unsettled.is_empty()
    }

    /// The epoch: it grows with every change.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.lock().epoch)
    }

    /// Places the index on `slots`, or keeps it there if it was being deleted: then its primary key must be found again. `None`
    /// if the index has other slots; nothing is changed then.
    ///
    /// The end of a deletion can't come in the middle of this: it removes the placement either before, or not at all. The caller
    /// has the locks of all shards.
    ///
    /// # Errors
    /// The store failed.
    pub async fn place(
        &self,
        uid: &str,
        slots: &Arc<SlotMap>,
        shard_count: Option<u16>,
    ) -> Result<Option<Placed>, StoreError> {
        let _changing = self.changing.lock().await;
        let found = self.get(uid);
        let (before, dying) = match found {
            Some(placement) if placement.slots != *slots => return Ok(None),
            Some(placement) if placement.deleted_by.is_none() => {
                let before = Before::Alive;
                return Ok(Some(Placed { placement, before }));
            }
            Some(placement) => (Before::Dying, Some(placement)),
            None => (Before::Absent, None),
        };
        let placement = Arc::new(match dying {
            Some(dying) => Placement {
                primary_key: None,
                deleted_by: None,
                shard_count,
                ..Placement::clone(&dying)
            },
            None => Placement::new(uid, Arc::clone(slots), shard_count),
        });
        self.save(&placement).await?;
        Ok(Some(Placed { placement, before }))
    }

    /// The slots that an index without a placement would get on these shards.
    pub(crate) fn propose(
        &self,
        shards: &[ShardId],
        strategy: &Strategy,
    ) -> Result<Arc<SlotMap>, ClusterError> {
        let slots = SlotMap::deal_by(strategy, shards).map_err(|_| ClusterError::NoShards)?;
        Ok(self.shared_slots(slots))
    }

    /// Records the primary key; `None` for one that isn't known.
    ///
    /// # Errors
    /// The store failed.
    pub async fn set_primary_key(&self, uid: &str, key: Option<&str>) -> Result<(), StoreError> {
        self.change(uid, |placement| {
            placement.primary_key = key.map(str::to_owned)
        })
        .await
    }

    /// Sets the index's own write mode, or removes it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn set_write_mode(
        &self,
        uid: &str,
        mode: Option<WriteMode>,
    ) -> Result<(), StoreError> {
        self.change(uid, |placement| placement.write_mode = mode)
            .await
    }

    /// Notes that a task deletes the index. The placement is removed when the task has succeeded and nothing was written since.
    ///
    /// # Errors
    /// The store failed.
    pub async fn mark_deleted(&self, uid: &str, task: u32) -> Result<(), StoreError> {
        self.change(uid, |placement| placement.deleted_by = Some(task))
            .await
    }

    /// Notes a write to the index after its deletion: the index stays, and its primary key must be found again.
    ///
    /// # Errors
    /// The store failed.
    pub async fn revive(&self, uid: &str) -> Result<(), StoreError> {
        self.change(uid, |placement| {
            if placement.deleted_by.take().is_some() {
                placement.primary_key = None;
            }
        })
        .await
    }

    /// Notes that the task that was to delete the index failed: the index stays as it was.
    ///
    /// # Errors
    /// The store failed.
    pub async fn unmark_deleted(&self, uid: &str, task: u32) -> Result<(), StoreError> {
        self.change(uid, |placement| {
            if placement.deleted_by == Some(task) {
                placement.deleted_by = None;
            }
        })
        .await
    }

    /// Removes the placement, if `task` is still the one that deletes it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn remove_deleted(&self, uid: &str, task: u32) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        if self
            .get(uid)
            .is_some_and(|placement| placement.deleted_by == Some(task))
        {
            self.remove_locked(uid).await?;
        }
        Ok(())
    }

    /// Removes the placement of an index that was not created in the end.
    ///
    /// # Errors
    /// The store failed.
    pub async fn remove(&self, uid: &str) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        self.remove_locked(uid).await
    }

    /// Makes filters leave these indexes to the merger during a change (`leave`), or ends that for this change. Filters may use
    /// an index again when no change claims it. Filters follow once they have polled, or when their lease has run out.
    ///
    /// # Errors
    /// The store failed.
    pub async fn leave_to_merger(
        &self,
        change: &str,
        uids: &[String],
        leave: bool,
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let mut undirected = self.lock().undirected.clone();
        for uid in uids {
            let changes = undirected.entry(uid.clone()).or_default();
            match leave {
                true => changes.insert(change.to_owned()),
                false => changes.remove(change),
            };
            if changes.is_empty() {
                undirected.remove(uid);
            }
        }
        let value = serde_json::to_vec(&undirected).unwrap_or_default();
        let stored = match undirected.is_empty() {
            true => Change::delete(UNDIRECTED_KEY),
            false => Change::put(UNDIRECTED_KEY, value),
        };
        // An epoch always stands for the same table, so the new epoch is stored before the table changes.
        self.commit_as(&[], vec![stored], |state| {
            state.undirected = undirected;
            state.history.note(state.epoch, uids.iter().cloned());
        })
        .await
    }

    /// Notes which shards have a single replica. This decides which writes filters may send directly.
    pub(crate) async fn set_single_replica(
        &self,
        shards: BTreeSet<ShardId>,
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        if self.lock().single_replica == shards {
            return Ok(());
        }
        // An epoch always stands for the same table, so the new epoch is stored before the table changes.
        self.commit_as(&[], Vec::new(), |state| {
            state.single_replica = shards;
            state.history.forget(state.epoch);
        })
        .await
    }

    async fn change(
        &self,
        uid: &str,
        change: impl FnOnce(&mut Placement),
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let Some(old) = self.get(uid) else {
            return Ok(());
        };
        let mut new = Placement::clone(&old);
        change(&mut new);
        if new == *old {
            return Ok(());
        }
        self.save(&Arc::new(new)).await
    }

    async fn save(&self, placement: &Arc<Placement>) -> Result<(), StoreError> {
        self.commit(&[(&placement.uid, Some(Arc::clone(placement)))])
            .await
    }

    async fn remove_locked(&self, uid: &str) -> Result<(), StoreError> {
        self.commit(&[(uid, None)]).await
    }

    /// Stores the changes first, and then updates memory. The caller holds `changing`.
    async fn commit(&self, changes: &[(&str, Option<Arc<Placement>>)]) -> Result<(), StoreError> {
        self.commit_with(changes, Vec::new()).await
    }

    async fn commit_with(
        &self,
        changes: &[(&str, Option<Arc<Placement>>)],
        batch: Vec<Change>,
    ) -> Result<(), StoreError> {
        self.commit_as(changes, batch, |_| {}).await
    }

    /// The same, with a change of what else the table depends on, which must be seen together with the new epoch.
    async fn commit_as(
        &self,
        changes: &[(&str, Option<Arc<Placement>>)],
        mut batch: Vec<Change>,
        more: impl FnOnce(&mut State),
    ) -> Result<(), StoreError> {
        let epoch = self.epoch().0 + 1;
        batch.push(Change::put(EPOCH_KEY, epoch.to_string().into_bytes()));
        for (uid, placement) in changes {
            let key = format!("{PREFIX}{uid}");
            batch.push(match placement {
                Some(placement) => Change::put(key, encode(placement)),
                None => Change::delete(key),
            });
        }
        self.store.commit(batch).await?;
        {
            let mut state = self.lock();
            state.epoch = epoch;
            state.table = None;
            let uids = changes.iter().map(|(uid, _)| (*uid).to_owned());
            state.history.note(epoch, uids);
            for (uid, placement) in changes {
                state.set(uid, placement.clone());
            }
            more(&mut state);
        }
        self.changes.tell();
        Ok(())
    }

    /// Equal slot maps share one allocation, whatever index they belong to.
    fn shared_slots(&self, slots: SlotMap) -> Arc<SlotMap> {
        let state = self.lock();
        let same = state
            .placements
            .values()
            .find(|placement| *placement.slots == slots);
        same.map_or_else(|| Arc::new(slots), |placement| Arc::clone(&placement.slots))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod change_tests;
#[cfg(test)]
mod tests;
