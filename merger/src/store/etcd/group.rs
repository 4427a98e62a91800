//! Commits that share one transaction.

use std::collections::{HashMap, HashSet};

use super::exchange::{Exchange, Exchanged};
use super::{MOST_BYTES, MOST_CHANGES, MOST_VALUE_BYTES, Waiting};
use crate::store::{Change, Expect, StoreError};

/// What a change takes in a request beside its key and value, in bytes: more than it really does.
const OVERHEAD: usize = 64;

/// A commit in which each key is changed once.
#[derive(Debug)]
pub(super) struct Normal {
    /// The last value of each key.
    pub(super) changes: Vec<(String, Option<Vec<u8>>)>,
    /// What must hold before.
    pub(super) expected: Vec<(String, Expect)>,
    bytes: usize,
}

impl Normal {
    pub(super) fn of(changes: Vec<Change>) -> Result<Self, StoreError> {
        let mut places = HashMap::new();
        let mut normal = Self {
            changes: Vec::with_capacity(changes.len()),
            expected: Vec::new(),
            bytes: 0,
        };
        for Change { key, value, expect } in changes {
            let bytes = value.as_ref().map_or(0, Vec::len);
            if bytes > MOST_VALUE_BYTES {
                let most = MOST_VALUE_BYTES;
                return Err(StoreError::TooLarge { key, bytes, most });
            }
            if expect != Expect::Anything {
                normal.expected.push((key.clone(), expect));
                normal.bytes += key.len() + OVERHEAD;
            }
            let place = *places.entry(key.clone()).or_insert(normal.changes.len());
            match normal.changes.get_mut(place) {
                Some((_, before)) => {
                    normal.bytes -= before.as_ref().map_or(0, Vec::len);
                    normal.bytes += bytes;
                    *before = value;
                }
                None => {
                    normal.bytes += bytes + key.len() + OVERHEAD;
                    normal.changes.push((key, value));
                }
            }
        }
        Ok(normal)
    }

    /// Whether it is too large for a single transaction.
    pub(super) fn is_large(&self) -> bool {
        self.bytes > MOST_BYTES
            || self.changes.len() > MOST_CHANGES
            || self.expected.len() > MOST_CHANGES
    }

    /// The first key that isn't as expected, where `versions` are those of the expected keys in order.
    pub(super) fn conflict(&self, versions: &[Option<u64>]) -> Option<String> {
        let differs = |(expected, version): &(&(String, Expect), &Option<u64>)| match expected.1 {
            Expect::Anything => false,
            Expect::Absent => version.is_some(),
            Expect::Version(wanted) => version.unwrap_or(0) != wanted,
        };
        let mut pairs = self.expected.iter().zip(versions);
        pairs.find(differs).map(|((key, _), _)| key.clone())
    }
}

/// Commits that wait together and touch different keys.
pub(super) struct Group {
    waiting: Vec<Waiting>,
    urgent: bool,
    keys: HashSet<String>,
    bytes: usize,
    changes: usize,
    expected: usize,
}

impl Group {
    pub(super) fn of(first: Waiting) -> Self {
        let mut group = Self {
            waiting: Vec::new(),
            urgent: false,
            keys: HashSet::new(),
            bytes: 0,
            changes: 0,
            expected: 0,
        };
        group.take(first);
        group
    }

    /// Takes one more commit; gives it back if it doesn't fit, or if the order of the two would matter.
    pub(super) fn add(&mut self, waiting: Waiting) -> Result<(), Waiting> {
        let commit = &waiting.commit;
        let fits = self.bytes + commit.bytes <= MOST_BYTES
            && self.changes + commit.changes.len() <= MOST_CHANGES
            && self.expected + commit.expected.len() <= MOST_CHANGES;
        let mut keys = commit.changes.iter();
        if !fits || keys.any(|(key, _)| self.keys.contains(key)) {
            return Err(waiting);
        }
        self.take(waiting);
        Ok(())
    }

    /// Whether somebody waits until it is durable.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    fn take(&mut self, waiting: Waiting) {
        self.urgent |= waiting.urgent;
        let commit = &waiting.commit;
        self.bytes += commit.bytes;
        self.changes += commit.changes.len();
        self.expected += commit.expected.len();
        let keys = commit.changes.iter().map(|(key, _)| key.clone());
        self.keys.extend(keys);
        self.waiting.push(waiting);
    }

    /// Makes the commits, and tells those who wait. Those in conflict are left out, and the others made without them.
    pub(super) async fn commit(self, exchange: &mut Exchange) {
        let mut waiting = self.waiting;
        while !waiting.is_empty() {
            let commits = || waiting.iter().map(|waiting| &waiting.commit);
            let changes = commits().flat_map(|commit| &commit.changes);
            let actions = changes.map(|(key, value)| exchange.change(key, value.as_ref()));
            let actions = actions.collect();
            let expected = commits().flat_map(|commit| commit.expected.iter().cloned());
            let expected = expected.collect::<Vec<_>>();
            match exchange.send(&expected, actions).await {
                Ok(Exchanged::Done) => {
                    tell(waiting, || Ok(()));
                    return;
                }
                Ok(Exchanged::Differs(versions)) => {
                    let before = waiting.len();
                    waiting = without_conflicts(waiting, &versions);
                    if waiting.len() == before {
                        let odd = "etcd refused conditions that hold";
                        tell(waiting, || Err(StoreError::Failed(odd.into())));
                        return;
                    }
                }
                Err(error) => {
                    tell(waiting, || Err(again(&error)));
                    return;
                }
            }
        }
    }
}

fn without_conflicts(waiting: Vec<Waiting>, versions: &[Option<u64>]) -> Vec<Waiting> {
    let mut rest = versions;
    let mut left = Vec::with_capacity(waiting.len());
    for waiting in waiting {
        let count = waiting.commit.expected.len().min(rest.len());
        let (own, others) = rest.split_at(count);
        rest = others;
        match waiting.commit.conflict(own) {
            Some(key) => drop(waiting.done.send(Err(StoreError::Conflict { key }))),
            None => left.push(waiting),
        }
    }
    left
}

fn tell(waiting: Vec<Waiting>, outcome: impl Fn() -> Result<(), StoreError>) {
    for waiting in waiting {
        // Whoever asked may have gone.
        let _ = waiting.done.send(outcome());
    }
}

/// The same error for one more commit.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::NotLeader => StoreError::NotLeader,
        StoreError::Unsettled => StoreError::Unsettled,
        StoreError::Closed => StoreError::Closed,
        StoreError::Failed(error) => StoreError::Failed(error.to_string().into()),
        StoreError::Conflict { key } => StoreError::Conflict { key: key.clone() },
        StoreError::NewerFormat { found, known } => StoreError::NewerFormat {
            found: *found,
            known: *known,
        },
        StoreError::TooLarge { key, bytes, most } => StoreError::TooLarge {
            key: key.clone(),
            bytes: *bytes,
            most: *most,
        },
    }
}
