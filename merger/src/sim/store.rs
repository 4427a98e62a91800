//! The store of a simulated merger: a commit takes a moment, and a crash undoes what was not synced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::store::{Change, Expect, Store, StoreError, UNSYNCED, Versioned};

/// By when a merger has stored what the store had refused, in milliseconds after the store's last failure.
const TRIED_AGAIN: u64 = 500;

/// Entries that outlive the merger.
#[derive(Clone)]
pub(super) struct SimStore {
    state: Arc<Mutex<State>>,
    /// Orders commits: they are made in the order in which they were requested.
    queue: Arc<tokio::sync::Mutex<()>>,
}

struct State {
    entries: BTreeMap<String, Versioned>,
    /// The entries that unsynced commits replaced, and when they did, in milliseconds.
    unsynced: Vec<(u64, String, Option<Versioned>)>,
    now: u64,
    fails_until: u64,
    random: fastrand::Rng,
}

impl SimStore {
    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            entries: BTreeMap::new(),
            unsynced: Vec::new(),
            now: 0,
            fails_until: 0,
            random: fastrand::Rng::with_seed(seed),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            queue: Arc::default(),
        }
    }

    pub(super) fn tell_time(&self, now: u64) {
        self.lock().now = now;
    }

    pub(super) fn fail_until(&self, until: u64) {
        self.lock().fails_until = until;
    }

    /// True if the merger may still hold changes that it could not store so far: it tries them again.
    pub(super) fn lags(&self, now: u64) -> bool {
        now < self.lock().fails_until + TRIED_AGAIN
    }

    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        let state = self.lock();
        let keys = state.entries.keys().filter(|key| key.starts_with(prefix));
        keys.cloned().collect()
    }

    /// Restores what the disk holds after a crash at `now`.
    pub(super) fn crash(&self, now: u64) {
        let mut state = self.lock();
        let synced = now.saturating_sub(u64::try_from(UNSYNCED.as_millis()).unwrap_or(0));
        for (at, key, before) in std::mem::take(&mut state.unsynced).into_iter().rev() {
            if at > synced {
                match before {
                    Some(before) => drop(state.entries.insert(key, before)),
                    None => drop(state.entries.remove(&key)),
                }
            }
        }
    }

    /// The store as a newer merger would leave it to this one: with members in its records that this one doesn't know. Every restart in
    /// a sequence is one to an older version, too.
    pub(super) fn is_left_by_a_newer_merger(&self) {
        let mut state = self.lock();
        for (key, entry) in &mut state.entries {
            // An index's settings are named by what nodes have, and what is left to the merger by indexes; there is nothing of ours in
            // them.
            if key.starts_with("settings/") || key == "undirected" {
                continue;
            }
            if let Ok(Value::Object(mut record)) = serde_json::from_slice(&entry.value) {
                record.insert("ofANewerMerger".to_owned(), json!({"some": ["thing", 1]}));
                for inner in record.values_mut().filter_map(Value::as_array_mut) {
                    for record in inner.iter_mut().filter_map(Value::as_object_mut) {
                        record.insert("ofANewerMerger".to_owned(), json!(1));
                    }
                }
                entry.value = serde_json::to_vec(&record).unwrap();
            }
        }
    }

    fn apply(&self, changes: Vec<Change>, synced: bool) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.now < state.fails_until {
            return Err(StoreError::Failed("the disk is full".into()));
        }
        for change in &changes {
            let version = state
                .entries
                .get(&change.key)
                .map_or(0, |entry| entry.version);
            let holds = match change.expect {
                Expect::Anything => true,
                Expect::Absent => version == 0,
                Expect::Version(wanted) => version == wanted,
            };
            if !holds {
                let key = change.key.clone();
                return Err(StoreError::Conflict { key });
            }
        }
        for Change { key, value, .. } in changes {
            let before = state.entries.get(&key).cloned();
            let version = before.as_ref().map_or(0, |entry| entry.version) + 1;
            match value {
                Some(value) => drop(
                    state
                        .entries
                        .insert(key.clone(), Versioned { version, value }),
                ),
                None => drop(state.entries.remove(&key)),
            }
            if !synced {
                let now = state.now;
                state.unsynced.push((now, key, before));
            }
        }
        if synced {
            state.unsynced.clear();
        }
        Ok(())
    }

    /// A crash may come before or after the commit is made.
    async fn commit_in_turn(&self, changes: Vec<Change>, synced: bool) -> Result<(), StoreError> {
        let _queue = self.queue.lock().await;
        let (late, pause) = self.pause();
        if late {
            tokio::time::sleep(pause).await;
        }
        let outcome = self.apply(changes, synced);
        if !late {
            tokio::time::sleep(pause).await;
        }
        outcome
    }

    fn pause(&self) -> (bool, Duration) {
        let mut state = self.lock();
        let late = state.random.bool();
        (late, Duration::from_micros(state.random.u64(0..3_000)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SimStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(async move { Ok(self.lock().entries.get(key).cloned()) })
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.commit_in_turn(changes, true))
    }

    fn commit_unsynced(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.commit_in_turn(changes, false))
    }

    fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        let state = self.lock();
        let found = state
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Box::pin(async move { Ok(found) })
    }
}
