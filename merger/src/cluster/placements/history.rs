//! Which routes have changed lately, for filters that hold the table of an earlier epoch.
//!
//! Pure: no I/O.

use std::collections::{BTreeSet, VecDeque};

/// The most uids that are kept. A filter polls several times a second, so it is seldom further behind.
const MOST: usize = 10_000;

/// The uids of changed routes, by the epoch that brought the change.
#[derive(Debug, Default)]
pub(super) struct History {
    /// All changes after this epoch are here.
    since: u64,
    changes: VecDeque<(u64, String)>,
}

impl History {
    /// Notes whose routes an epoch has changed.
    pub(super) fn note(&mut self, epoch: u64, uids: impl IntoIterator<Item = String>) {
        self.changes
            .extend(uids.into_iter().map(|uid| (epoch, uid)));
        while self.changes.len() > MOST {
            // What is left is complete from the epoch on that has lost something.
            if let Some((lost, _)) = self.changes.pop_front() {
                self.since = lost;
            }
        }
    }

    /// Notes that this epoch may have changed any route.
    pub(super) fn forget(&mut self, epoch: u64) {
        self.since = epoch;
        self.changes.clear();
    }

    /// Whose routes have changed after this epoch; `None` if that isn't known any more.
    pub(super) fn after(&self, epoch: u64) -> Option<BTreeSet<&str>> {
        if epoch < self.since {
            return None;
        }
        let newest = self.changes.iter().rev();
        let newer = newest.take_while(|(then, _)| *then > epoch);
        Some(newer.map(|(_, uid)| uid.as_str()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(history: &History, epoch: u64) -> Option<Vec<&str>> {
        Some(history.after(epoch)?.into_iter().collect())
    }

    #[test]
    fn what_has_changed_after_an_epoch_is_known_until_it_is_forgotten() {
        let mut history = History::default();
        history.forget(5);
        history.note(6, ["b".to_owned(), "a".to_owned()]);
        history.note(7, []);
        history.note(9, ["a".to_owned()]);
        assert_eq!(after(&history, 4), None);
        assert_eq!(after(&history, 5), Some(vec!["a", "b"]));
        assert_eq!(after(&history, 6), Some(vec!["a"]));
        assert_eq!(after(&history, 9), Some(vec![]));
        history.forget(10);
        assert_eq!(after(&history, 9), None);
        assert_eq!(after(&history, 10), Some(vec![]));
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_left_is_whole() {
        let mut history = History::default();
        let many = MOST as u64 + 2;
        for epoch in 1..=many {
            history.note(epoch, [epoch.to_string()]);
        }
        assert_eq!(after(&history, 1), None);
        assert_eq!(after(&history, 2).map(|uids| uids.len()), Some(MOST));
        // An epoch that has lost a part of its changes isn't told of.
        history.note(many + 1, (0..3).map(|number| number.to_string()));
        history.note(many + 2, (0..MOST - 1).map(|number| number.to_string()));
        assert_eq!(after(&history, many), None);
        assert_eq!(
            after(&history, many + 1).map(|uids| uids.len()),
            Some(MOST - 1)
        );
    }
}
