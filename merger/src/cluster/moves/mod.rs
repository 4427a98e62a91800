//! Moves: slots of an index that one shard gives to another, as they are stored and shown. What carries them out is in `repair`.
//!
//! ```text
//! waiting ─► preparing ─► copying ⇄ handing over ─► settling ─► done
//!     └────────────┴─ cancelled, or the index is gone ─► settling ─► cancelled
//! ```

mod forecast;
mod log;
mod plan;
mod record;
mod slotting;
mod spans;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use serde::Serialize;
use weft_routing::placement::ShardId;

use forecast::Pace;
pub(crate) use forecast::forecast;
pub(crate) use log::{MoveLogs, Noted, Renamed};
pub(crate) use plan::{Planned, Step, plan, steps_between};
pub(crate) use record::{Move, MoveOptions, MoveState};
pub(crate) use slotting::{Slotting, Told};

use super::{Changes, ClusterError};
use crate::clock::now_utc;
use crate::store::{Change, Store, StoreError};

const PREFIX: &str = "move/";
const OPTIONS_KEY: &str = "moves-options";
const DRAINING_KEY: &str = "draining";
const REPLAN_KEY: &str = "replan";
/// How many ended moves stay listed.
const MOST_ENDED: usize = 100;

/// All moves, and the shards that are to be emptied.
pub(crate) struct Moves {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    /// One change at a time, so that none overwrites another.
    changing: tokio::sync::Mutex<()>,
    /// What is written to moving slots.
    pub(crate) logs: MoveLogs,
    /// Tells of changes of moves.
    pub(crate) changes: Changes,
}

#[derive(Default)]
struct State {
    moves: BTreeMap<u64, Move>,
    options: MoveOptions,
    draining: BTreeSet<ShardId>,
    /// Indexes that are to lie on another number of shards, and for which nothing is planned yet.
    replan: BTreeSet<String>,
    /// The indexes that all filters leave to the merger because they are moved, as far as this process has seen to it.
    left_to_merger: BTreeSet<String>,
    /// How many writers hold an index's slots where they are.
    held: HashMap<String, usize>,
    pace: Pace,
}

impl Moves {
    /// Reads the moves.
    pub(super) async fn open(store: Arc<dyn Store>) -> Result<Self, ClusterError> {
        let corrupt = |key: &str| ClusterError::Corrupt(key.to_owned());
        let mut state = State::default();
        for (key, stored) in store.range(PREFIX).await? {
            let one: Move = serde_json::from_slice(&stored.value).map_err(|_| corrupt(&key))?;
            state.moves.insert(one.id, one);
        }
        if let Some(stored) = store.get(OPTIONS_KEY).await? {
            state.options =
                serde_json::from_slice(&stored.value).map_err(|_| corrupt(OPTIONS_KEY))?;
        }
        if let Some(stored) = store.get(DRAINING_KEY).await? {
            state.draining =
                serde_json::from_slice(&stored.value).map_err(|_| corrupt(DRAINING_KEY))?;
        }
        if let Some(stored) = store.get(REPLAN_KEY).await? {
            state.replan =
                serde_json::from_slice(&stored.value).map_err(|_| corrupt(REPLAN_KEY))?;
        }
        Ok(Self {
            store,
            state: Mutex::new(state),
            changing: tokio::sync::Mutex::new(()),
            logs: MoveLogs::default(),
            changes: Changes::default(),
        })
    }

    /// All moves, the oldest first.
    pub(crate) fn all(&self) -> Vec<Move> {
        self.lock().moves.values().cloned().collect()
    }

    /// A move.
    pub(crate) fn get(&self, id: u64) -> Option<Move> {
        self.lock().moves.get(&id).cloned()
    }

    /// How moves are carried out.
    pub(crate) fn options(&self) -> MoveOptions {
        self.lock().options.clone()
    }

    /// The shards that are to be emptied.
    pub(crate) fn draining(&self) -> BTreeSet<ShardId> {
        self.lock().draining.clone()
    }

    /// Adds moves; `documents` says how many documents each may have. Returns their numbers.
    ///
    /// # Errors
    /// The store failed; nothing is added then.
    pub(crate) async fn add(&self, steps: Vec<(Step, u64)>) -> Result<Vec<u64>, StoreError> {
        let _changing = self.changing.lock().await;
        let first = self.lock().moves.keys().last().map_or(1, |last| last + 1);
        let new = (first..).zip(steps).map(|(id, (step, documents))| Move {
            id,
            index: step.index,
            from: step.from,
            to: step.to,
            slots: step.slots,
            state: MoveState::Waiting,
            documents,
            copied: 0,
            moved: 0,
            removed: 0,
            bytes: 0,
            cancelled: false,
            created_at: now_utc(),
            started_at: None,
            finished_at: None,
            error: None,
        });
        let new: Vec<Move> = new.collect();
        self.save(&new).await?;
        Ok(new.iter().map(|one| one.id).collect())
    }

    /// Changes a move, and stores it.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn change(
        &self,
        id: u64,
        change: impl FnOnce(&mut Move),
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let Some(mut one) = self.get(id) else {
            return Ok(());
        };
        change(&mut one);
        self.save(&[one]).await
    }

    /// Changes a move in the same commit as something else: `commit` gets what is to be stored, and says whether it was.
    ///
    /// # Errors
    /// Those of `commit`; nothing is changed then.
    pub(crate) async fn change_with<E>(
        &self,
        id: u64,
        change: impl FnOnce(&mut Move),
        commit: impl AsyncFnOnce(Vec<Change>) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let _changing = self.changing.lock().await;
        let Some(mut one) = self.get(id) else {
            return Ok(false);
        };
        change(&mut one);
        let committed = commit(vec![stored(&one)]).await?;
        if committed {
            self.lock().moves.insert(id, one);
            self.changes.tell();
        }
        Ok(committed)
    }

    /// Shows where a move stands without storing it.
    pub(crate) async fn show(&self, id: u64, change: impl FnOnce(&mut Move)) {
        let _changing = self.changing.lock().await;
        if let Some(one) = self.lock().moves.get_mut(&id) {
            change(one);
        }
    }

    /// Cancels the moves that have not ended and for which `concerns` is true. Returns how many.
    ///
    /// # Errors
    /// The store failed; nothing is cancelled then.
    pub(crate) async fn cancel(
        &self,
        concerns: impl Fn(&Move) -> bool,
    ) -> Result<usize, StoreError> {
        let _changing = self.changing.lock().await;
        let mut moves = self.all();
        moves.retain(|one| !one.has_ended() && concerns(one));
        for one in &mut moves {
            one.cancelled = true;
        }
        self.save(&moves).await?;
        Ok(moves.len())
    }

    /// Changes how moves are carried out.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn set_options(
        &self,
        change: impl FnOnce(&mut MoveOptions),
    ) -> Result<MoveOptions, StoreError> {
        let _changing = self.changing.lock().await;
        let mut options = self.options();
        change(&mut options);
        self.put(OPTIONS_KEY, &options).await?;
        self.lock().options = options.clone();
        self.changes.tell();
        Ok(options)
    }

    /// Notes that a shard is to be emptied, or no longer.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn set_draining(
        &self,
        shard: ShardId,
        draining: bool,
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let mut shards = self.draining();
        match draining {
            true => shards.insert(shard),
            false => shards.remove(&shard),
        };
        self.put(DRAINING_KEY, &shards).await?;
        self.lock().draining = shards;
        self.changes.tell();
        Ok(())
    }

    /// The indexes that are to lie on another number of shards, and for which nothing is planned yet.
    pub(crate) fn to_replan(&self) -> BTreeSet<String> {
        self.lock().replan.clone()
    }

    /// Notes that an index is to lie on another number of shards, or that this is planned.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn set_replan(&self, index: &str, wanted: bool) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let mut indexes = self.to_replan();
        match wanted {
            true => indexes.insert(index.to_owned()),
            false => indexes.remove(index),
        };
        self.put(REPLAN_KEY, &indexes).await?;
        self.lock().replan = indexes;
        self.changes.tell();
        Ok(())
    }

    /// The indexes that all filters leave to the merger because they are moved.
    pub(crate) fn left_to_merger(&self) -> BTreeSet<String> {
        self.lock().left_to_merger.clone()
    }

    /// Notes that all filters leave these indexes to the merger.
    pub(crate) fn set_left_to_merger(&self, indexes: &[String]) {
        self.lock().left_to_merger.extend(indexes.iter().cloned());
        self.changes.tell();
    }

    /// Notes that filters needn't leave these indexes to the merger any more.
    pub(crate) fn give_back(&self, indexes: &[String]) {
        let left = &mut self.lock().left_to_merger;
        left.retain(|index| !indexes.contains(index));
    }

    /// Keeps an index's slots where they are while this lives. For a writer whose index has moved under its hands several times.
    pub(crate) fn hold(self: &Arc<Self>, index: &str) -> Held {
        *self.lock().held.entry(index.to_owned()).or_default() += 1;
        Held {
            moves: Arc::clone(self),
            index: index.to_owned(),
        }
    }

    /// Whether a writer holds an index's slots where they are.
    pub(crate) fn is_held(&self, index: &str) -> bool {
        self.lock().held.contains_key(index)
    }

    /// How fast moves went lately.
    pub(crate) fn pace(&self) -> Pace {
        self.lock().pace
    }

    /// Learns how fast moves go.
    pub(crate) fn learn(&self, learn: impl FnOnce(&mut Pace)) {
        learn(&mut self.lock().pace);
    }

    async fn put(&self, key: &str, value: &impl Serialize) -> Result<(), StoreError> {
        let value = serde_json::to_vec(value).unwrap_or_default();
        self.store.commit(vec![Change::put(key, value)]).await
    }

    /// Stores moves. The caller holds `changing`.
    async fn save(&self, moves: &[Move]) -> Result<(), StoreError> {
        let mut changes: Vec<Change> = moves.iter().map(stored).collect();
        let forgotten = self.too_old(moves);
        changes.extend(forgotten.iter().map(|id| Change::delete(key(*id))));
        if changes.is_empty() {
            return Ok(());
        }
        self.store.commit(changes).await?;
        {
            let mut state = self.lock();
            for one in moves {
                state.moves.insert(one.id, one.clone());
            }
            for id in forgotten {
                state.moves.remove(&id);
            }
        }
        self.changes.tell();
        Ok(())
    }

    /// The ended moves that are forgotten once these are stored.
    fn too_old(&self, new: &[Move]) -> Vec<u64> {
        if !new.iter().any(Move::has_ended) {
            return Vec::new();
        }
        let state = self.lock();
        let ended = state.moves.values().filter(|one| one.has_ended());
        let ended: Vec<u64> = ended.map(|one| one.id).collect();
        let surplus = (ended.len() + new.len()).saturating_sub(MOST_ENDED);
        ended.into_iter().take(surplus).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A move as it is stored.
fn stored(one: &Move) -> Change {
    let value = serde_json::to_vec(one).unwrap_or_default();
    Change::put(key(one.id), value)
}

fn key(id: u64) -> String {
    format!("{PREFIX}{id:012}")
}

/// Keeps an index's slots where they are: see [`Moves::hold`].
pub(crate) struct Held {
    moves: Arc<Moves>,
    index: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        {
            let mut state = self.moves.lock();
            if let Some(count) = state.held.get_mut(&self.index) {
                *count -= 1;
                if *count == 0 {
                    state.held.remove(&self.index);
                }
            }
        }
        self.moves.changes.tell();
    }
}

#[cfg(test)]
mod tests;
