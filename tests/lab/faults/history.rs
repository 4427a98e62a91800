//! What a client knows of each document: every write it sent, when, and what was said about it. Pure.
//!
//! The rule that makes everything else simple: a document belongs to one writer, which sends its next write for it only
//! after the answer to the one before, and never again once a write got no answer or an error. So there is one order of
//! writes a document, and only the last can be in doubt for good. Several may still wait for the end of their tasks.
//!
//! From that follow the *states* that a document may be in: one, or as many as there are doubts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

/// A document's fields, without vectors (which follow from its `version`).
pub(super) type Fields = Map<String, Value>;

/// A document, or that there is none.
pub(super) type State = Option<Fields>;

/// Since the run began.
pub(super) type At = Duration;

/// What a write does to one document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// `POST`: the document is this.
    Replace(Fields),
    /// `PUT`: these fields are these.
    Update(Fields),
    /// `DELETE`: there is none.
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

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No answer yet.
    Sent,
    /// 202, and the task hasn't settled yet.
    Accepted,
    /// The task succeeded: the write is acknowledged.
    Acknowledged(At),
    /// Refused with a 4xx: it was not done.
    Refused,
    /// No answer, an error, or a task that failed or is gone: it was done or not.
    InDoubt(String),
}

/// One write as one document sees it.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) change: Change,
    pub(super) sent: At,
    pub(super) task: Option<u64>,
    pub(super) outcome: Outcome,
}

/// All writes of one document, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    pub(super) writes: Vec<Write>,
}

impl Life {
    /// Every state that the document may be in when nothing is under way.
    pub(super) fn states(&self) -> Vec<State> {
        self.states_since(Duration::MAX, Duration::MAX)
    }

    /// Every state that a read may show that began and ended then: what was acknowledged before it began must be in it,
    /// what was sent before it ended may be.
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
                // What isn't known to be done may be done later, or never.
                _ => states.iter().cloned().chain(after).collect(),
            };
            dedup(&mut states);
            if floor.is_none_or(|floor| place >= floor) {
                seen.extend(states.iter().cloned());
            }
        }
        dedup(&mut seen);
        // At rest there is no in between: only the last states count.
        if began == Duration::MAX { states } else { seen }
    }

    /// Whether the owner may write it again.
    pub(super) fn writable(&self) -> bool {
        let doubt = |write: &Write| {
            write.task.is_none() && matches!(write.outcome, Outcome::Sent | Outcome::InDoubt(_))
        };
        !self.writes.iter().any(doubt)
    }

    /// Whether it exists for sure, whatever becomes of what is under way.
    pub(super) fn exists(&self) -> bool {
        self.states().iter().all(Option::is_some)
    }
}

/// Names a write again: its document, and its place in that document's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) id: String,
    place: usize,
}

/// Every document that was ever written.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    lives: BTreeMap<String, Life>,
}

impl History {
    /// A write goes out.
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

    /// It became a task.
    pub(super) fn accept(&mut self, ticket: &Ticket, task: u64) {
        if let Some(write) = self.write(ticket) {
            write.task = Some(task);
            write.outcome = Outcome::Accepted;
        }
    }

    /// It ended so.
    pub(super) fn end(&mut self, ticket: &Ticket, outcome: Outcome) {
        if let Some(write) = self.write(ticket) {
            write.outcome = outcome;
        }
    }

    /// How many documents were ever written.
    pub(super) fn len(&self) -> usize {
        self.lives.len()
    }

    /// One document's life.
    pub(super) fn life(&self, id: &str) -> Option<&Life> {
        self.lives.get(id)
    }

    /// All of them, by id.
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
