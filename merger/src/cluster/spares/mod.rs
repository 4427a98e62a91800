//! Spare nodes that have taken the place of replicas, as it is stored and decided. What carries it out is in the part `spares`.
//!
//! ```text
//! a replica is away ─► taking ─► every Envoy's file is written, the leader's Envoy lists the spare ─► done
//! ```
//!
//! A record stays as long as nothing newer concerns its place, because a merger that was away must still bring its own Envoy's file
//! up to date. Invariants: a spare holds one place at most; a place has one record at most; numbers grow.

mod choose;
mod record;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use choose::{Choice, Member, choose};
pub(crate) use record::Replacement;

use super::{Changed, Changes, ClusterError};
use crate::clock::now_utc;
use crate::store::{Change, Expect, Store, StoreError};

pub(super) const PREFIX: &str = "replacement/";

/// Which spares have taken whose place.
pub(crate) struct Replacements {
    store: Arc<dyn Store>,
    state: Mutex<BTreeMap<u64, Replacement>>,
    /// One change at a time, so that no spare is taken twice.
    changing: tokio::sync::Mutex<()>,
    /// Tells of changes.
    pub(crate) changes: Changes,
}

impl Replacements {
    pub(super) async fn open(store: Arc<dyn Store>) -> Result<Self, ClusterError> {
        let mut state = BTreeMap::new();
        for (key, stored) in store.range(PREFIX).await? {
            let one: Replacement = serde_json::from_slice(&stored.value)
                .map_err(|_| ClusterError::Corrupt(key.clone()))?;
            state.insert(one.number, one);
        }
        Ok(Self {
            store,
            state: Mutex::new(state),
            changing: tokio::sync::Mutex::new(()),
            changes: Changes::default(),
        })
    }

    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> Vec<Replacement> {
        self.lock().values().cloned().collect()
    }

    /// Stores that a spare takes a replica's place. False if it can't any more: the spare or the shard is taken already.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn take(&self, choice: &Choice) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        let all = self.all();
        if all.iter().any(|one| one.excludes(choice)) {
            return Ok(false);
        }
        let number = all.last().map_or(1, |last| last.number + 1);
        // The place's history goes on in the new record. Whatever else the spare once held, it holds no more.
        let (mut superseded, mut names) = (Vec::new(), Vec::new());
        for one in &all {
            if one.shard == choice.shard && one.spare == choice.out {
                names.extend(one.names.iter().cloned());
                superseded.push(one.number);
            } else if one.spare == choice.spare.id {
                superseded.push(one.number);
            }
        }
        let new = Replacement::new(number, choice, names, now_utc());
        let mut changes = vec![Change::put_if(key(number), encode(&new), Expect::Absent)];
        changes.extend(superseded.iter().map(|number| Change::delete(key(*number))));
        self.store.commit(changes).await?;
        {
            let mut state = self.lock();
            state.retain(|number, _| !superseded.contains(number));
            state.insert(number, new);
        }
        self.changes.tell();
        Ok(true)
    }

    /// Notes that the leader's Envoy has a replacement.
    ///
    /// # Errors
    /// The store failed; nothing is changed then.
    pub(crate) async fn settle(&self, number: u64) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let Some(mut one) = self.lock().get(&number).cloned() else {
            return Ok(());
        };
        one.taking = false;
        self.store
            .commit(vec![Change::put(key(number), encode(&one))])
            .await?;
        self.lock().insert(number, one);
        self.changes.tell();
        Ok(())
    }

    /// The keys of all that may be gone when the state is read again.
    pub(super) fn keys(&self) -> Vec<String> {
        self.lock().keys().map(|number| key(*number)).collect()
    }

    /// Applies in memory what the leader has stored; other entries are ignored.
    ///
    /// # Errors
    /// The key of an entry that can't be read. Nothing is applied then.
    pub(super) fn apply(&self, changed: &[Changed]) -> Result<(), String> {
        let mut news = Vec::new();
        for (key, value) in changed.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
            let number = key.strip_prefix(PREFIX).and_then(|text| text.parse().ok());
            let number: u64 = number.ok_or_else(|| key.clone())?;
            let one = value.as_deref().map(serde_json::from_slice::<Replacement>);
            news.push((number, one.transpose().map_err(|_| key.clone())?));
        }
        if news.is_empty() {
            return Ok(());
        }
        {
            let mut state = self.lock();
            for (number, one) in news {
                match one {
                    Some(one) => state.insert(number, one),
                    None => state.remove(&number),
                };
            }
        }
        self.changes.tell();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Replacement>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(number: u64) -> String {
    // In the order of the numbers.
    format!("{PREFIX}{number:020}")
}

fn encode(one: &Replacement) -> Vec<u8> {
    serde_json::to_vec(one).unwrap_or_default()
}

#[cfg(test)]
mod tests;
