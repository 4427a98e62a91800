//! What a client knows of each document: every write that it sent, when, and what the answer was. Pure.
//!
//! One rule makes everything else simple: a document belongs to one writer, which sends its next write for the document
//! only after the answer to the previous one, and never again once a write got no answer or an error. So the writes of a
//! document have one order, and only the last one can stay in doubt. Several may be waiting for the end of their tasks.
//!
//! From this follow the *states* that a document may be in: one state, or more if writes are in doubt.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

/// A document's fields, without vectors (which follow from its `version`).
pub(super) type Fields = Map<String, Value>;

/// A document's fields, or `None` if it doesn't exist.
pub(super) type State = Option<Fields>;

/// A time since the run began.
pub(super) type At = Duration;

/// What a write does to one document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// `POST`: replaces the document.
    Replace(Fields),
    /// `PUT`: sets these fields.
    Update(Fields),
    /// `DELETE`: removes the document.
    Delete,
}

impl Change {
    fn apply(&self, state: &State) -> State {
        match self {
            Self::Replace(fields) => Some(fields.clone()),
            Self::Update(fields) => {
                let mut all = state.clone().unwrap_or_default();
                all.extend(fields.clone());
                Some(all)
            }
            Self::Delete => None,
        }
    }
}

/// The outcome of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is no answer yet.
    Sent,
    /// Answered with 202, and the task hasn't settled yet.
    Accepted,
    /// The task succeeded: the write is acknowledged.
    Acknowledged(At),
    /// Refused with a 4xx: the write wasn't done.
    Refused,
    /// No answer, an error, or a task that failed or is gone: the write may have been done or not.
    InDoubt(String),
}

/// The part of a write that affects one document.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) change: Change,
    pub(super) sent: At,
    pub(super) task: Option<u64>,
    pub(super) outcome: Outcome,
}

/// All writes of one document, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    pub(super) writes: Vec<Write>,
}

impl Life {
    /// Every state that the document may be in when no write is open.
    pub(super) fn states(&self) -> Vec<State> {
        self.states_since(Duration::MAX, Duration::MAX)
    }

    /// Every state that a read with this beginning and end may show. It must include what was acknowledged before the read
    /// began, and may include what was sent before the read ended.
    pub(super) fn states_since(&self, began: At, ended: At) -> Vec<State> {
        let floor = self
            .writes
            .iter()
            .rposition(|write| matches!(write.outcome, Outcome::Acknowledged(at) if at <= began));
        let mut states = vec![None];
        let mut seen: Vec<State> = Vec::new();
        if floor.is_none() {
            seen.push(None);
        }
        for (place, write) in self.writes.iter().enumerate() {
            if write.sent > ended {
                break;
            }
            let after = states.iter().map(|state| write.change.apply(state));
            states = match &write.outcome {
                Outcome::Refused => continue,
                Outcome::Acknowledged(_) => after.collect(),
                // A write in doubt may be done later, or never.
                _ => states.iter().cloned().chain(after).collect(),
            };
            dedup(&mut states);
            if floor.is_none_or(|floor| place >= floor) {
                seen.extend(states.iter().cloned());
            }
        }
        dedup(&mut seen);
        // When no write is open, only the last states count.
        if began == Duration::MAX { states } else { seen }
    }

    /// True if the owner may write the document again.
    pub(super) fn writable(&self) -> bool {
        let doubt = |write: &Write| {
            write.task.is_none() && matches!(write.outcome, Outcome::Sent | Outcome::InDoubt(_))
        };
        !self.writes.iter().any(doubt)
    }

    /// True if the last write was a deletion, whatever its outcome.
    pub(super) fn ends_with_deletion(&self) -> bool {
        let last = self.writes.last();
        last.is_some_and(|write| write.change == Change::Delete)
    }

    /// True if the document certainly exists, whatever the outcome of open writes.
    pub(super) fn exists(&self) -> bool {
        self.states().iter().all(Option::is_some)
    }
}

/// Identifies a write: its document, and its position among the document's writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) id: String,
    place: usize,
}

/// All documents that were ever written.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    lives: BTreeMap<String, Life>,
}

impl History {
    /// Records that a write was sent.
    pub(super) fn send(&mut self, id: &str, change: Change, sent: At) -> Ticket {
        let life = self.lives.entry(id.to_owned()).or_default();
        life.writes.push(Write {
            change,
            sent,
            task: None,
            outcome: Outcome::Sent,
        });
        Ticket {
            id: id.to_owned(),
            place: life.writes.len() - 1,
        }
    }

    /// Records that the write became a task.
    pub(super) fn accept(&mut self, ticket: &Ticket, task: u64) {
        if let Some(write) = self.write(ticket) {
            write.task = Some(task);
            write.outcome = Outcome::Accepted;
        }
    }

    /// Records the write's outcome.
    pub(super) fn end(&mut self, ticket: &Ticket, outcome: Outcome) {
        if let Some(write) = self.write(ticket) {
            write.outcome = outcome;
        }
    }

    /// How many documents were ever written.
    pub(super) fn len(&self) -> usize {
        self.lives.len()
    }

    /// One document's history.
    pub(super) fn life(&self, id: &str) -> Option<&Life> {
        self.lives.get(id)
    }

    /// The histories of all documents, by id.
    pub(super) fn lives(&self) -> impl Iterator<Item = (&str, &Life)> {
        self.lives.iter().map(|(id, life)| (id.as_str(), life))
    }

    fn write(&mut self, ticket: &Ticket) -> Option<&mut Write> {
        self.lives.get_mut(&ticket.id)?.writes.get_mut(ticket.place)
    }
}

fn dedup(states: &mut Vec<State>) {
    let mut unique: Vec<State> = Vec::new();
    for state in states.drain(..) {
        if !unique.contains(&state) {
            unique.push(state);
        }
    }
    *states = unique;
}
