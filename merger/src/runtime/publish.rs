//! What a leader tells its followers beside its commits: how it judges nodes, and which remembered facts no longer hold.
//!
//! None of it must be heard before something is acknowledged. It is stored together, several times a second if there is anything.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::cluster::{LeaderView, VIEW_KEY, until};
use crate::edge::Context;
use crate::follower::ChangedKey;
use crate::leadership::Roll;
use crate::search::Stale;
use crate::store::{Change, Store};

/// How often it is looked whether there is anything to tell.
const EVERY: Duration = Duration::from_millis(25);

/// How often nodes are looked at in between.
const VIEWED_EVERY: u32 = 4;

/// How often the list of mergers is read, as long as nobody waits for them.
const LISTED_EVERY: Duration = Duration::from_millis(300);

/// The same while something waits until all mergers have a change.
const LISTED_EVERY_WHILE_WAITED_FOR: Duration = Duration::from_millis(10);

/// How many different facts are noted until they become one.
const MOST: usize = 1_000;

/// What no longer holds, until followers are told. A merger that is alone notes nothing.
#[derive(Default)]
pub struct StaleFacts(Option<Mutex<BTreeSet<String>>>);

impl StaleFacts {
    /// For a merger that has followers.
    pub(super) fn for_followers() -> Self {
        Self(Some(Mutex::default()))
    }

    /// Notes what no longer holds.
    pub(super) fn note(&self, stale: Stale) {
        self.note_key(&ChangedKey::Stale(stale));
    }

    fn note_key(&self, changed: &ChangedKey) {
        let Some(facts) = &self.0 else { return };
        let mut facts = facts.lock().unwrap_or_else(PoisonError::into_inner);
        if facts.len() >= MOST {
            facts.clear();
            facts.insert(ChangedKey::Stale(Stale::Everything).name());
        }
        facts.insert(changed.name());
    }

    fn take(&self) -> BTreeSet<String> {
        let Some(facts) = &self.0 else {
            return BTreeSet::new();
        };
        std::mem::take(&mut facts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Tells followers; never ends.
pub(super) async fn publish(ctx: Arc<Context>, store: Arc<dyn Store>, stale: Arc<StaleFacts>) {
    let keys = &ctx.reading.keys;
    let (mut told, mut known_keys) = (None::<LeaderView>, keys.changes());
    let mut round = 0_u32;
    loop {
        let now = keys.changes();
        if std::mem::replace(&mut known_keys, now) != now {
            stale.note_key(&ChangedKey::Keys);
        }
        let facts = stale.take();
        let mut changes: Vec<Change> = facts
            .iter()
            .map(|name| Change::put(name.clone(), Vec::new()))
            .collect();
        let view = round
            .is_multiple_of(VIEWED_EVERY)
            .then(|| ctx.cluster.leader_view());
        let view = view.filter(|view| told.as_ref() != Some(view));
        if let Some(view) = &view {
            let value = serde_json::to_vec(view).unwrap_or_default();
            changes.push(Change::put(VIEW_KEY, value));
        }
        if !changes.is_empty() {
            match store.commit(changes).await {
                Ok(()) => told = view.or(told),
                Err(error) => {
                    tracing::debug!(%error, "followers can't be told what has changed");
                    // They forget everything once they are told.
                    stale.note(Stale::Everything);
                }
            }
        }
        round = round.wrapping_add(1);
        sleep(EVERY).await;
    }
}

/// Keeps the list of mergers up to date; never ends.
pub(super) async fn list_mergers(ctx: Arc<Context>, roll: Roll) {
    let cluster = &ctx.cluster;
    loop {
        // Before the list is read: see `cluster::Mergers`.
        let epochs = cluster.epochs();
        match roll.registrations().await {
            Ok(mergers) => cluster.mergers.note(epochs, mergers),
            Err(error) => tracing::debug!(%error, "the list of mergers can't be read"),
        }
        let have_all = cluster.mergers.have(epochs);
        let pause = match have_all {
            true => LISTED_EVERY,
            false => LISTED_EVERY_WHILE_WAITED_FOR,
        };
        let states = [&cluster.in_sync.changes, &cluster.placements.changes];
        let changed = until(states, || (cluster.epochs() != epochs).then_some(()));
        let _ = tokio::time::timeout(pause, changed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_told_once_and_become_one_if_there_are_many() {
        let facts = StaleFacts::for_followers();
        for _ in 0..2 {
            facts.note(Stale::Documents("films".to_owned()));
        }
        facts.note_key(&ChangedKey::Keys);
        assert_eq!(facts.take().len(), 2);
        assert!(facts.take().is_empty());
        for number in 0..MOST + 5 {
            facts.note(Stale::Index(number.to_string()));
        }
        let told = facts.take();
        assert!(told.len() <= MOST && told.contains(&ChangedKey::Stale(Stale::Everything).name()));
        let alone = StaleFacts::default();
        alone.note(Stale::Everything);
        assert!(alone.take().is_empty());
    }
}
