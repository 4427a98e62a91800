//! Where each index lies, durably, and the routing table that filters poll.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weft_routing::Origins;
use weft_routing::placement::{ShardId, SlotMap, choose_shards};
use weft_routing::table::{Epoch, IndexRoute, RoutingTable};

mod stored;

use self::stored::{decode, encode};
use super::{ClusterError, WriteMode};
use crate::store::{Change, Store, StoreError};

const PREFIX: &str = "placement/";
const EPOCH_KEY: &str = "epoch";
/// Which pages may read answers, as of the last start.
const ORIGINS_KEY: &str = "origins";
/// Marks of swaps whose tasks haven't ended.
const SWAPPED: &str = "swapped/";

/// Where one index lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The index.
    pub uid: String,
    /// The owner of each slot.
    pub slots: Arc<SlotMap>,
    /// The primary key, once it is known.
    pub primary_key: Option<String>,
    /// The task that deletes the index, while nothing was written after it.
    pub deleted_by: Option<u32>,
    /// How many replicas must have taken its writes, if it has a mode of its own.
    pub write_mode: Option<WriteMode>,
}

impl Placement {
    /// The shards that hold the index, in order.
    pub fn shards(&self) -> &[ShardId] {
        self.slots.shards()
    }
}

/// An index that is there from now on.
pub struct Placed {
    /// Where it lies.
    pub placement: Arc<Placement>,
    /// How it was.
    pub before: Before,
}

/// How an index was before it was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Not there.
    Absent,
    /// There, with a task under way that deletes it.
    Dying,
    /// There.
    Alive,
}

/// All placements.
pub struct Placements {
    store: Arc<dyn Store>,
    lease_ms: u32,
    direct_writes: bool,
    origins: Origins,
    state: Mutex<State>,
    /// One change at a time, so that memory and store agree on the order.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    placements: BTreeMap<String, Arc<Placement>>,
    single_replica: BTreeSet<ShardId>,
    /// Indexes that filters must leave to the merger, because they are about to lie elsewhere, and the changes that say so.
    undirected: BTreeMap<String, BTreeSet<String>>,
    table: Option<Arc<str>>,
}

impl Placements {
    pub(crate) async fn open(
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
        for (key, stored) in store.range(PREFIX).await? {
            let uid = key.strip_prefix(PREFIX).unwrap_or_default().to_owned();
            let placement =
                decode(&uid, &stored.value).ok_or_else(|| ClusterError::Corrupt(uid.clone()))?;
            state.placements.insert(uid, Arc::new(placement));
        }
        let before = store.get(ORIGINS_KEY).await?;
        let opened = Self {
            store,
            lease_ms,
            direct_writes,
            origins,
            state: Mutex::new(state),
            changing: tokio::sync::Mutex::new(()),
        };
        let now = opened.origins.to_string().into_bytes();
        let before = before.map_or_else(|| b"any".to_vec(), |stored| stored.value.to_vec());
        if before != now {
            // Another table than the one that filters hold for this epoch.
            opened
                .commit_with(&[], vec![Change::put(ORIGINS_KEY, now)])
                .await?;
        }
        Ok(opened)
    }

    /// Where an index lies.
    pub fn get(&self, uid: &str) -> Option<Arc<Placement>> {
        self.lock().placements.get(uid).cloned()
    }

    /// Whether both indexes are there, on different shards.
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

    /// The epoch: it grows with every change.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.lock().epoch)
    }

    /// Places the index on `slots`, or lets it live on there though it was being deleted: then its primary key is yet to be found.
    /// `None`: it lies elsewhere, and nothing is changed.
    ///
    /// This is one step beside the end of a deletion, which takes the placement either before or not at all. The caller has the
    /// turn of all shards.
    ///
    /// # Errors
    /// The store failed.
    pub async fn place(
        &self,
        uid: &str,
        slots: &Arc<SlotMap>,
    ) -> Result<Option<Placed>, StoreError> {
        let _changing = self.changing.lock().await;
        let found = self.get(uid);
        let (before, write_mode) = match found {
            Some(placement) if placement.slots != *slots => return Ok(None),
            Some(placement) if placement.deleted_by.is_none() => {
                let before = Before::Alive;
                return Ok(Some(Placed { placement, before }));
            }
            Some(placement) => (Before::Dying, placement.write_mode),
            None => (Before::Absent, None),
        };
        let placement = Arc::new(Placement {
            uid: uid.to_owned(),
            slots: Arc::clone(slots),
            primary_key: None,
            deleted_by: None,
            write_mode,
        });
        self.save(&placement).await?;
        Ok(Some(Placed { placement, before }))
    }

    /// The slots of an index that isn't placed.
    pub(crate) fn propose(
        &self,
        uid: &str,
        fitting: &[ShardId],
        count: usize,
    ) -> Result<Arc<SlotMap>, ClusterError> {
        let shards = choose_shards(uid, fitting, count);
        let slots = SlotMap::deal(&shards).map_err(|_| ClusterError::NoShards)?;
        Ok(self.shared_slots(slots))
    }

    /// Records the primary key, where it isn't known yet.
    ///
    /// # Errors
    /// The store failed.
    pub async fn set_primary_key(&self, uid: &str, key: Option<&str>) -> Result<(), StoreError> {
        self.change(uid, |placement| {
            placement.primary_key = key.map(str::to_owned)
        })
        .await
    }

    /// Gives the index a mode of writing of its own, or none.
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

    /// Notes that a task deletes the index. The placement goes when the task has succeeded and nothing was written since.
    ///
    /// # Errors
    /// The store failed.
    pub async fn mark_deleted(&self, uid: &str, task: u32) -> Result<(), StoreError> {
        self.change(uid, |placement| placement.deleted_by = Some(task))
            .await
    }

    /// Notes that the index is written to after it was deleted: it lives on, with a primary key yet to be found.
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

    /// The task that was to delete the index failed: the index lives on as it was.
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

    /// Removes the placement of an index that came to nothing.
    ///
    /// # Errors
    /// The store failed.
    pub async fn remove(&self, uid: &str) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        self.remove_locked(uid).await
    }

    /// Exchanges indexes pair by pair, as `swap-indexes` does, or renames one where the other isn't there; `task` has asked the nodes
    /// for the same. `extra` is stored with it, or not at all.
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

    /// What [`swap_for`](Self::swap_for) noted under a uid that no task got goes on under another one.
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

    /// The nodes refused what [`swap_for`](Self::swap_for) noted: the placements go back. Twice is the same as once.
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

    /// The nodes did what [`swap_for`](Self::swap_for) noted.
    ///
    /// # Errors
    /// The store failed.
    pub async fn swapped(&self, task: u32) -> Result<(), StoreError> {
        self.store.commit(vec![Change::delete(mark(task))]).await
    }

    /// Exchanges; the caller holds `changing`.
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

    /// Takes indexes away from the filters for a change, or gives them back: they are back when no change wants them away. Filters go
    /// by it when they have polled, or when their lease has run out.
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
        // An epoch stands for one table for ever, so it is stored before the table changes.
        self.commit(&[]).await?;
        let mut state = self.lock();
        for uid in uids {
            let changes = state.undirected.entry(uid.clone()).or_default();
            match leave {
                true => changes.insert(change.to_owned()),
                false => changes.remove(change),
            };
            if changes.is_empty() {
                state.undirected.remove(uid);
            }
        }
        state.table = None;
        Ok(())
    }

    /// Notes which shards have one replica: what filters may send there straight changes with it.
    pub(crate) async fn set_single_replica(
        &self,
        shards: BTreeSet<ShardId>,
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        if self.lock().single_replica == shards {
            return Ok(());
        }
        // An epoch stands for one table for ever, so it is stored before the table changes.
        self.commit(&[]).await?;
        let mut state = self.lock();
        state.single_replica = shards;
        state.table = None;
        Ok(())
    }

    /// The routing table in its wire form, with its epoch.
    pub fn table(&self) -> (Epoch, Arc<str>) {
        let mut state = self.lock();
        let epoch = Epoch(state.epoch);
        if let Some(table) = &state.table {
            return (epoch, Arc::clone(table));
        }
        let mut table = RoutingTable {
            epoch,
            lease_ms: self.lease_ms,
            origins: self.origins.clone(),
            ..RoutingTable::default()
        };
        for placement in state.placements.values() {
            let mut route = IndexRoute::new(Arc::clone(&placement.slots));
            route.primary_key.clone_from(&placement.primary_key);
            let directed = !state.undirected.contains_key(&placement.uid);
            route.direct_reads = directed && placement.deleted_by.is_none();
            route.direct_writes = self.direct_writes
                && directed
                && placement.deleted_by.is_none()
                && placement.primary_key.is_some()
                && placement
                    .shards()
                    .iter()
                    .all(|shard| state.single_replica.contains(shard));
            table.indexes.insert(placement.uid.clone(), route);
        }
        let json: Arc<str> = table.to_json().unwrap_or_default().into();
        state.table = Some(Arc::clone(&json));
        (epoch, json)
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

    /// Stores first, shows after. The caller holds `changing`.
    async fn commit(&self, changes: &[(&str, Option<Arc<Placement>>)]) -> Result<(), StoreError> {
        self.commit_with(changes, Vec::new()).await
    }

    async fn commit_with(
        &self,
        changes: &[(&str, Option<Arc<Placement>>)],
        mut batch: Vec<Change>,
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
        let mut state = self.lock();
        state.epoch = epoch;
        state.table = None;
        for (uid, placement) in changes {
            match placement {
                Some(placement) => state
                    .placements
                    .insert((*uid).to_owned(), Arc::clone(placement)),
                None => state.placements.remove(*uid),
            };
        }
        Ok(())
    }

    /// The same slots share one allocation, whatever index they belong to.
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

/// The key of a swap's mark.
fn mark(task: u32) -> String {
    format!("{SWAPPED}{task:010}")
}

#[cfg(test)]
mod tests;
