//! Moves: slots of an index that one shard gives to another, as they are stored and shown. What carries them out is in `repair`.
//!
//! ```text
//! waiting ─► preparing ─► copying ⇄ handing over ─► settling ─► done
//!     └────────────┴─ cancelled, or the index is gone ─► settling ─► cancelled
//! ```

mod log;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use weft_routing::placement::ShardId;
use weft_routing::slot::Slot;

pub(crate) use log::{MoveLogs, Noted};
pub(crate) use plan::{Planned, Step, plan};

use super::{Changes, ClusterError};
use crate::clock::now_utc;
use crate::store::{Change, Store, StoreError};

const PREFIX: &str = "move/";
const OPTIONS_KEY: &str = "moves-options";
const DRAINING_KEY: &str = "draining";
const REPLAN_KEY: &str = "replan";
/// How many ended moves stay listed.
const MOST_ENDED: usize = 100;

/// How fast a move copies unless somebody says otherwise, so that searches stay fast.
const DEFAULT_BYTES_PER_SECOND: u64 = 8 << 20;

/// Where a move stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MoveState {
    /// Others come first, or all moves are paused.
    Waiting,
    /// The new shard gets the index, and filters leave the index to the merger.
    Preparing,
    /// Documents are copied to the new shard.
    Copying,
    /// A batch of slots changes its owner.
    HandingOver,
    /// What may be left on either shard is removed.
    Settling,
    /// All slots are moved.
    Done,
    /// It was cancelled, or its index is gone. What was moved before stays moved.
    Cancelled,
}

/// A move.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Move {
    /// Its number.
    pub(crate) id: u64,
    /// The index's uid.
    pub(crate) index: String,
    /// The shard that gives slots away.
    pub(crate) from: ShardId,
    /// The shard that gets them.
    pub(crate) to: ShardId,
    /// The slots, those already moved included.
    pub(crate) slots: Vec<Slot>,
    /// Where it stands.
    pub(crate) state: MoveState,
    /// How many documents there are to move: reckoned at first, counted when the shard was read.
    pub(crate) documents: u64,
    /// How many are moved.
    pub(crate) moved: u64,
    /// How many bytes were copied.
    pub(crate) bytes: u64,
    /// Whether somebody wants it cancelled.
    #[serde(default)]
    pub(crate) cancelled: bool,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    /// When it began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) finished_at: Option<OffsetDateTime>,
    /// Why the last attempt failed; it is tried again.
    pub(crate) error: Option<String>,
}

impl Move {
    /// Whether it is over.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, MoveState::Done | MoveState::Cancelled)
    }
}

/// How moves are carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MoveOptions {
    /// Whether nothing is moved for now.
    pub(crate) paused: bool,
    /// How many moves run at once, each of another index.
    pub(crate) max_concurrent: usize,
    /// How many bytes each move may copy per second; `None` for no limit.
    pub(crate) bytes_per_second: Option<u64>,
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            paused: false,
            max_concurrent: 2,
            bytes_per_second: Some(DEFAULT_BYTES_PER_SECOND),
        }
    }
}

/// All moves, and the shards that are to be emptied.
pub(crate) struct Moves {
    store: Arc<dyn Store>,
    state: Mutex<State>,
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
        let first = self.lock().moves.keys().last().map_or(1, |last| last + 1);
        let new = (first..).zip(steps).map(|(id, (step, documents))| Move {
            id,
            index: step.index,
            from: step.from,
            to: step.to,
            slots: step.slots,
            state: MoveState::Waiting,
            documents,
            moved: 0,
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
        let Some(mut one) = self.get(id) else {
            return Ok(());
        };
        change(&mut one);
        self.save(&[one]).await
    }

    /// Shows progress without storing it.
    pub(crate) fn show(&self, id: u64, change: impl FnOnce(&mut Move)) {
        if let Some(one) = self.lock().moves.get_mut(&id) {
            change(one);
        }
    }

    /// A move as it is to be stored in another commit.
    pub(crate) fn stored(one: &Move) -> Change {
        let value = serde_json::to_vec(one).unwrap_or_default();
        Change::put(key(one.id), value)
    }

    /// Cancels a move, or all. Returns how many.
    ///
    /// # Errors
    /// The store failed; nothing is cancelled then.
    pub(crate) async fn cancel(&self, id: Option<u64>) -> Result<usize, StoreError> {
        let concerns = |one: &Move| !one.has_ended() && id.is_none_or(|id| id == one.id);
        let mut moves: Vec<Move> = self.all().into_iter().filter(concerns).collect();
        for one in &mut moves {
            one.cancelled = true;
        }
        self.save(&moves).await?;
        Ok(moves.len())
    }

    /// Cancels the moves of indexes whose names are about to mean something else. Those of `planned_anew` are planned again.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn cancel_of(
        &self,
        indexes: &[&str],
        planned_anew: &[&str],
    ) -> Result<(), StoreError> {
        let concerns = |one: &Move| !one.has_ended() && indexes.contains(&one.index.as_str());
        let moves: Vec<Move> = self.all().into_iter().filter(concerns).collect();
        if moves.is_empty() {
            return Ok(());
        }
        for one in &moves {
            self.cancel(Some(one.id)).await?;
        }
        for index in planned_anew {
            self.set_replan(index, true).await?;
        }
        Ok(())
    }

    /// Changes how moves are carried out.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn set_options(&self, options: MoveOptions) -> Result<(), StoreError> {
        let value = serde_json::to_vec(&options).unwrap_or_default();
        let change = Change::put(OPTIONS_KEY, value);
        self.store.commit(vec![change]).await?;
        self.lock().options = options;
        self.changes.tell();
        Ok(())
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
        let mut shards = self.draining();
        match draining {
            true => shards.insert(shard),
            false => shards.remove(&shard),
        };
        let value = serde_json::to_vec(&shards).unwrap_or_default();
        let change = Change::put(DRAINING_KEY, value);
        self.store.commit(vec![change]).await?;
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
        let mut indexes = self.to_replan();
        match wanted {
            true => indexes.insert(index.to_owned()),
            false => indexes.remove(index),
        };
        let value = serde_json::to_vec(&indexes).unwrap_or_default();
        let change = Change::put(REPLAN_KEY, value);
        self.store.commit(vec![change]).await?;
        self.lock().replan = indexes;
        self.changes.tell();
        Ok(())
    }

    /// The indexes that all filters leave to the merger because they are moved.
    pub(crate) fn left_to_merger(&self) -> BTreeSet<String> {
        self.lock().left_to_merger.clone()
    }

    /// Notes that all filters leave an index to the merger, or needn't any more.
    pub(crate) fn set_left_to_merger(&self, index: &str, left: bool) {
        let mut state = self.lock();
        match left {
            true => state.left_to_merger.insert(index.to_owned()),
            false => state.left_to_merger.remove(index),
        };
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

    async fn save(&self, moves: &[Move]) -> Result<(), StoreError> {
        let mut changes: Vec<Change> = moves.iter().map(Self::stored).collect();
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
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn step(index: &str) -> Step {
        Step {
            index: index.to_owned(),
            from: ShardId(0),
            to: ShardId(1),
            slots: vec![Slot(7)],
        }
    }

    #[tokio::test]
    async fn moves_are_there_again_after_a_restart_and_old_ones_are_forgotten() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let moves = Moves::open(Arc::clone(&store)).await.unwrap();
        let steps = (0..MOST_ENDED + 3).map(|n| (step(&n.to_string()), 5));
        let ids = moves.add(steps.collect()).await.unwrap();
        moves.set_draining(ShardId(2), true).await.unwrap();
        let paused = MoveOptions {
            paused: true,
            bytes_per_second: Some(9),
            ..MoveOptions::default()
        };
        moves.set_options(paused.clone()).await.unwrap();
        for id in ids.iter().skip(1) {
            let done = |one: &mut Move| one.state = MoveState::Done;
            moves.change(*id, done).await.unwrap();
        }
        assert_eq!(moves.cancel(None).await.unwrap(), 1, "one has not ended");
        let again = Moves::open(store).await.unwrap();
        assert_eq!(again.options(), paused);
        assert_eq!(again.draining(), BTreeSet::from([ShardId(2)]));
        let all = again.all();
        assert_eq!(all.len(), MOST_ENDED + 1);
        assert!(all[0].cancelled && all[0].index == "0" && !all[0].has_ended());
        assert_eq!(
            again.add(vec![(step("x"), 1)]).await.unwrap(),
            [ids.len() as u64 + 1]
        );
    }

    #[tokio::test]
    async fn an_index_is_held_as_long_as_anybody_holds_it() {
        let moves = Moves::open(Arc::new(MemoryStore::default())).await;
        let moves = Arc::new(moves.unwrap());
        let (one, two) = (moves.hold("films"), moves.hold("films"));
        drop(one);
        assert!(moves.is_held("films") && !moves.is_held("books"));
        drop(two);
        assert!(!moves.is_held("films"));
    }
}
