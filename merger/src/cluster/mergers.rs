//! The mergers that share an etcd with the one that leads, as the leader sees them.
//!
//! A follower answers reads by what it has applied of the state. So a change that reads must not miss counts as heard only when
//! each follower has applied it and told so, or is gone with its lease. The leader reads the registrations *after* the change was
//! committed. A follower that registers later reads the state later still, and sees the change. [`Mergers::note`] keeps to that:
//! it gets the epochs as they were before the registrations were asked for.
//!
//! A merger that is registered as one that leads is not waited for, whoever it is: it answers reads only as long as its leader's
//! lease holds, and before it answers any as a follower it registers as one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

use super::{Changes, until};
use crate::leadership::Registration;

/// For how long a merger that went away without a word is missed.
const MISSED_FOR: Duration = Duration::from_secs(600);

/// The epochs of the state that readers must have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Epochs {
    /// Of the in-sync set.
    pub in_sync: u64,
    /// Of the routing table.
    pub table: u64,
}

/// What the leader knows of the other mergers.
#[derive(Default)]
pub struct Mergers {
    /// This merger's own id; `None` if it is alone with its store.
    me: Option<String>,
    state: Mutex<State>,
    /// Tells when the others were seen.
    pub(crate) changes: Changes,
}

#[derive(Default)]
struct State {
    /// All others have these epochs.
    everywhere: Epochs,
    registered: Vec<Registration>,
    /// Those that were seen lately: when last, and where.
    seen: HashMap<String, (Instant, String)>,
}

impl Mergers {
    /// A merger that shares its state with others.
    pub fn shared(me: String) -> Self {
        Self {
            me: Some(me),
            ..Self::default()
        }
    }

    /// Notes who was registered at a moment when the state had these epochs already.
    pub fn note(&self, epochs: Epochs, registered: Vec<Registration>) {
        let now = Instant::now();
        {
            let mut state = self.lock();
            let mut everywhere = epochs;
            for merger in registered.iter().filter(|merger| self.is_follower(merger)) {
                everywhere.in_sync = everywhere.in_sync.min(merger.in_sync_epoch);
                everywhere.table = everywhere.table.min(merger.table_epoch);
            }
            state.everywhere = everywhere;
            for merger in &registered {
                let address = merger.address.to_string();
                // A merger that began anew at its old address is not missed.
                state.seen.retain(|_, (_, before)| *before != address);
                if !merger.leaving {
                    state.seen.insert(merger.id.clone(), (now, address));
                }
            }
            state.seen.retain(|_, (at, _)| at.elapsed() < MISSED_FOR);
            state.registered = registered;
        }
        self.changes.tell();
    }

    /// Whether this merger shares its state with others.
    pub(crate) fn are_several(&self) -> bool {
        self.me.is_some()
    }

    /// Whether reads through all Envoys keep to the in-sync set as it was in this epoch.
    pub fn all_keep_to(&self, in_sync_epoch: u64) -> bool {
        self.me.is_none() || self.lock().everywhere.in_sync >= in_sync_epoch
    }

    /// Whether all others have these epochs.
    pub(crate) fn have(&self, epochs: Epochs) -> bool {
        let everywhere = self.lock().everywhere;
        everywhere.in_sync >= epochs.in_sync && everywhere.table >= epochs.table
    }

    /// Waits until [`all_keep_to`](Self::all_keep_to) is true. It takes no longer than a follower's lease.
    pub(crate) async fn until_all_keep_to(&self, in_sync_epoch: u64) {
        let look = || self.all_keep_to(in_sync_epoch).then_some(());
        until([&self.changes], look).await;
    }

    /// Waits until each merger serves its filters a routing table of this epoch or a newer one.
    pub(crate) async fn until_all_serve(&self, table_epoch: u64) {
        let look = || {
            let everywhere = self.me.is_none() || self.lock().everywhere.table >= table_epoch;
            everywhere.then_some(())
        };
        until([&self.changes], look).await;
    }

    /// All that were registered when they were last seen.
    pub fn registered(&self) -> Vec<Registration> {
        self.lock().registered.clone()
    }

    /// How many were there lately, went away without a word, and have not come back.
    pub fn missing(&self) -> usize {
        let state = self.lock();
        let is_here = |id: &String| state.registered.iter().any(|merger| merger.id == *id);
        state.seen.keys().filter(|id| !is_here(id)).count()
    }

    fn is_follower(&self, merger: &Registration) -> bool {
        self.me.as_ref() != Some(&merger.id) && !merger.leaving && !merger.leads
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merger(id: &str, port: u16, in_sync_epoch: u64) -> Registration {
        Registration {
            in_sync_epoch,
            table_epoch: in_sync_epoch,
            ..Registration::new(id.to_owned(), ([127, 0, 0, 1], port).into())
        }
    }

    fn at(epoch: u64) -> Epochs {
        Epochs {
            in_sync: epoch,
            table: epoch,
        }
    }

    #[test]
    fn a_change_is_heard_when_every_other_merger_has_it_or_is_gone() {
        let mergers = Mergers::shared("a".to_owned());
        assert!(!mergers.all_keep_to(1), "nobody was seen yet");
        mergers.note(at(1), vec![merger("a", 1, 0), merger("b", 2, 1)]);
        assert!(mergers.all_keep_to(1) && !mergers.all_keep_to(2));
        mergers.note(at(2), vec![merger("b", 2, 2), merger("c", 3, 1)]);
        assert!(!mergers.all_keep_to(2));
        mergers.note(at(2), vec![merger("b", 2, 2)]);
        assert!(mergers.all_keep_to(2));
        // What a follower says of a later epoch proves nothing about one that comes after the look.
        mergers.note(at(2), vec![merger("b", 2, 9)]);
        assert!(!mergers.all_keep_to(3));
    }

    #[test]
    fn one_that_led_before_is_not_waited_for_until_it_follows() {
        let mergers = Mergers::shared("a".to_owned());
        let led = Registration {
            leads: true,
            ..merger("b", 2, 0)
        };
        mergers.note(at(1), vec![merger("a", 1, 1), led]);
        assert!(mergers.all_keep_to(1));
        mergers.note(at(1), vec![merger("a", 1, 1), merger("b", 2, 0)]);
        assert!(!mergers.all_keep_to(1));
    }

    #[test]
    fn one_that_leaves_in_order_is_not_waited_for_and_not_missed() {
        let mergers = Mergers::shared("a".to_owned());
        let leaving = Registration {
            leaving: true,
            ..merger("b", 2, 0)
        };
        mergers.note(at(1), vec![merger("a", 1, 1), leaving]);
        assert!(mergers.all_keep_to(1));
        mergers.note(at(1), vec![merger("a", 1, 1)]);
        assert_eq!(mergers.missing(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_went_away_is_missed_until_it_is_back_or_forgotten() {
        let mergers = Mergers::shared("a".to_owned());
        mergers.note(at(1), vec![merger("a", 1, 1), merger("b", 2, 1)]);
        mergers.note(at(1), vec![merger("a", 1, 1)]);
        assert_eq!(mergers.missing(), 1);
        mergers.note(at(1), vec![merger("a", 1, 1), merger("new", 2, 1)]);
        assert_eq!(mergers.missing(), 0, "another process at the same address");
        mergers.note(at(1), vec![merger("a", 1, 1)]);
        tokio::time::advance(MISSED_FOR).await;
        mergers.note(at(1), vec![merger("a", 1, 1)]);
        assert_eq!(mergers.missing(), 0);
    }

    #[test]
    fn a_merger_that_is_alone_waits_for_nobody() {
        assert!(Mergers::default().all_keep_to(u64::MAX));
    }
}
