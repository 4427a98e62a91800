//! The states of a change that was cut off. A state says what an attempt to complete or undo the change may do.
//!
//! ```text
//! Patient ──── silent nodes have had their time ────► Overdue
//!    └───────────────────┬───────────────────────────────┘
//!                        └── the placements are updated ──► Placed
//! ```
//!
//! Each state has a first and a second [`Look`]: an answer of all nodes counts when it came twice in a row. What an attempt does
//! when it has the locks ([`State::step`]):
//!
//! | answers | `Patient` | `Overdue` | `Placed` |
//! |---|---|---|---|
//! | all shards answer, first look | ask again | ask again | ask again |
//! | all shards answer, second look: some have the change | complete | complete | complete |
//! | all shards answer, second look: none has it | undo | undo | undo |
//! | a shard is silent, others have the change | wait | complete without it | complete without it |
//! | a shard is silent, no other has the change | wait | wait | wait |
//!
//! Writes are held back meanwhile: in an attempt of `Patient` and `Overdue` at all shards of the change; after an attempt that
//! waits, only at those that have the change or are silent. In `Placed`, they are held back at the shards that don't have it, and
//! reads there are refused.

use serde::{Deserialize, Serialize};
use weft_routing::placement::ShardId;

use super::found::Found;

/// How far a change that was cut off has come, and what was heard in the attempt before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The placements are the old ones. A silent shard is waited for, and so are all shards of the change.
    Patient(Look),
    /// The placements are the old ones. A silent shard was waited for long enough: if another shard has the change, the others
    /// get it without the silent one.
    Overdue(Look),
    /// The placements are the new ones. The shards that have the change take writes again. The others get it when they answer.
    Placed(Look),
}

/// Whether all shards have answered in the attempt before. A node that hung when the change was sent may take it after answering
/// that it doesn't have it, so all nodes are asked twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    First,
    Second,
}

/// Which placements are stored. In an intent's stored form, this is whether the placements have been updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub(super) enum Placing {
    /// Those from before the change.
    Old,
    /// Those from after it.
    New,
}

impl From<bool> for Placing {
    fn from(placed: bool) -> Self {
        match placed {
            false => Self::Old,
            true => Self::New,
        }
    }
}

impl From<Placing> for bool {
    fn from(placing: Placing) -> Self {
        placing == Placing::New
    }
}

/// What the shards of a change answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// All of them answered.
    All(Having),
    /// This one didn't, and maybe others. The second part says what those answered that did.
    Silent(ShardId, Having),
}

/// How many of the shards that answered have the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Having {
    None,
    Some,
}

impl Heard {
    pub(super) fn of(found: &[Found]) -> Self {
        let having = match found.iter().any(Found::has_it) {
            true => Having::Some,
            false => Having::None,
        };
        match found.iter().find(|found| found.has.is_none()) {
            Some(silent) => Self::Silent(silent.shard, having),
            None => Self::All(having),
        }
    }
}

/// What an attempt does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing before this shard answers.
    Wait(ShardId),
    /// All nodes are asked once more.
    AskAgain,
    /// Sends the change to all shards that answer and lack it.
    Complete,
    /// Takes back what was noted for the change: no node has it.
    Undo,
}

impl State {
    /// The state of the first attempt.
    pub(super) fn begin(placing: Placing) -> Self {
        match placing {
            Placing::Old => Self::Patient(Look::First),
            Placing::New => Self::Placed(Look::First),
        }
    }

    /// Silent nodes have had their time.
    pub(super) fn overdue(self) -> Self {
        match self {
            Self::Patient(look) | Self::Overdue(look) => Self::Overdue(look),
            Self::Placed(look) => Self::Placed(look),
        }
    }

    /// All shards have answered, and are to be asked once more.
    pub(super) fn all_answered(self) -> Self {
        match self {
            Self::Patient(_) => Self::Patient(Look::Second),
            Self::Overdue(_) => Self::Overdue(Look::Second),
            Self::Placed(_) => Self::Placed(Look::Second),
        }
    }

    /// The attempt could not end the change. What was heard before counts no more.
    pub(super) fn unended(self, placing: Placing) -> Self {
        match (self, placing) {
            (Self::Patient(_), Placing::Old) => Self::Patient(Look::First),
            (Self::Overdue(_), Placing::Old) => Self::Overdue(Look::First),
            (Self::Placed(_), _) | (_, Placing::New) => Self::Placed(Look::First),
        }
    }

    /// Whether the nodes are asked before the locks are taken, and the locks only if all shards answer: writers to the shards
    /// that have the change must not wait for the silent shards' timeouts.
    pub(super) fn asks_before_locking(self) -> bool {
        matches!(self, Self::Placed(_))
    }

    /// Whether all shards of the change are held while it is completed or undone. Otherwise those that have it are free already.
    pub(super) fn holds_all_shards(self) -> bool {
        matches!(self, Self::Patient(_) | Self::Overdue(_))
    }

    /// Whether the change goes on without shards that could not be sent it: the placements are updated, the shards that have the
    /// change are released, and reads of the others are refused.
    pub(super) fn goes_on_without_some(self) -> bool {
        matches!(self, Self::Overdue(_) | Self::Placed(_))
    }

    /// What an attempt that has the locks does.
    pub(super) fn step(self, heard: Heard) -> Step {
        match (self, heard) {
            (_, Heard::Silent(shard, Having::None))
            | (Self::Patient(_), Heard::Silent(shard, Having::Some)) => Step::Wait(shard),
            (Self::Overdue(_) | Self::Placed(_), Heard::Silent(_, Having::Some)) => Step::Complete,
            (
                Self::Patient(Look::First) | Self::Overdue(Look::First) | Self::Placed(Look::First),
                Heard::All(_),
            ) => Step::AskAgain,
            (
                Self::Patient(Look::Second)
                | Self::Overdue(Look::Second)
                | Self::Placed(Look::Second),
                Heard::All(having),
            ) => match having {
                Having::Some => Step::Complete,
                Having::None => Step::Undo,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::broadcast::intents::Intent;
    use crate::cluster::{NodeId, NodeRef};

    const SILENT: ShardId = ShardId(7);
    const LOOKS: [Look; 2] = [Look::First, Look::Second];

    fn all() -> Vec<State> {
        let of = |look| {
            [
                State::Patient(look),
                State::Overdue(look),
                State::Placed(look),
            ]
        };
        LOOKS.into_iter().flat_map(of).collect()
    }

    fn found(shard: u16, has: Option<&[u32]>) -> Found {
        let node = |uid: &u32| {
            let node = NodeRef {
                id: NodeId::from(format!("n{shard}")),
                address: ([127, 0, 0, 1], shard).into(),
            };
            (node, *uid)
        };
        Found {
            shard: ShardId(shard),
            has: has.map(|uids| uids.iter().map(node).collect()),
        }
    }

    #[test]
    fn silence_and_having_are_told_apart() {
        let (lacks, has, silent) = (Some(&[][..]), Some(&[4][..]), None);
        for (answers, expected) in [
            (vec![lacks, lacks], Heard::All(Having::None)),
            (vec![lacks, has], Heard::All(Having::Some)),
            (vec![has, silent], Heard::Silent(ShardId(1), Having::Some)),
            (vec![silent, lacks], Heard::Silent(ShardId(0), Having::None)),
            (
                vec![silent, silent],
                Heard::Silent(ShardId(0), Having::None),
            ),
        ] {
            let found: Vec<Found> = (0..).zip(answers).map(|(n, has)| found(n, has)).collect();
            assert_eq!(Heard::of(&found), expected);
        }
    }

    #[test]
    fn nothing_is_completed_or_undone_before_all_were_asked_twice_or_are_overdue() {
        for state in [
            State::Patient(Look::First),
            State::Overdue(Look::First),
            State::Placed(Look::First),
        ] {
            for having in [Having::None, Having::Some] {
                assert_eq!(state.step(Heard::All(having)), Step::AskAgain, "{state:?}");
                let again = state.all_answered().step(Heard::All(having));
                let expected = match having {
                    Having::None => Step::Undo,
                    Having::Some => Step::Complete,
                };
                assert_eq!(again, expected, "{state:?}");
            }
        }
    }

    #[test]
    fn a_silent_shard_is_waited_for_until_it_is_overdue_and_another_has_the_change() {
        for look in LOOKS {
            let some = Heard::Silent(SILENT, Having::Some);
            let patient = State::Patient(look);
            assert_eq!(patient.step(some), Step::Wait(SILENT));
            assert_eq!(patient.overdue().step(some), Step::Complete);
            assert_eq!(State::Placed(look).step(some), Step::Complete);
        }
        for state in all() {
            let none = Heard::Silent(SILENT, Having::None);
            assert_eq!(state.step(none), Step::Wait(SILENT), "{state:?}");
        }
    }

    #[test]
    fn no_change_is_undone_while_any_shard_has_it_or_is_silent() {
        for state in all() {
            for heard in [
                Heard::All(Having::Some),
                Heard::Silent(SILENT, Having::Some),
                Heard::Silent(SILENT, Having::None),
            ] {
                assert_ne!(state.step(heard), Step::Undo, "{state:?}, {heard:?}");
            }
        }
    }

    #[test]
    fn a_state_follows_the_clock_the_answers_and_the_placements() {
        use Look::{First, Second};
        use State::{Overdue, Patient, Placed};
        assert_eq!(State::begin(Placing::Old), Patient(First));
        assert_eq!(State::begin(Placing::New), Placed(First));
        for (state, overdue, answered, old, new) in [
            (
                Patient(First),
                Overdue(First),
                Patient(Second),
                Patient(First),
                Placed(First),
            ),
            (
                Patient(Second),
                Overdue(Second),
                Patient(Second),
                Patient(First),
                Placed(First),
            ),
            (
                Overdue(First),
                Overdue(First),
                Overdue(Second),
                Overdue(First),
                Placed(First),
            ),
            (
                Overdue(Second),
                Overdue(Second),
                Overdue(Second),
                Overdue(First),
                Placed(First),
            ),
            (
                Placed(First),
                Placed(First),
                Placed(Second),
                Placed(First),
                Placed(First),
            ),
            (
                Placed(Second),
                Placed(Second),
                Placed(Second),
                Placed(First),
                Placed(First),
            ),
        ] {
            assert_eq!(state.overdue(), overdue, "{state:?}");
            assert_eq!(state.all_answered(), answered, "{state:?}");
            assert_eq!(state.unended(Placing::Old), old, "{state:?}");
            assert_eq!(state.unended(Placing::New), new, "{state:?}");
        }
    }

    #[test]
    fn a_state_says_what_is_held_and_what_may_be_left_behind() {
        for (state, before, holds, without) in [
            (State::Patient as fn(Look) -> State, false, true, false),
            (State::Overdue, false, true, true),
            (State::Placed, true, false, true),
        ] {
            for state in LOOKS.map(state) {
                assert_eq!(state.asks_before_locking(), before, "{state:?}");
                assert_eq!(state.holds_all_shards(), holds, "{state:?}");
                assert_eq!(state.goes_on_without_some(), without, "{state:?}");
            }
        }
    }

    #[test]
    fn an_intent_of_an_earlier_merger_is_read_and_written_as_it_was() {
        for placed in [false, true] {
            let stored = json!({
                "effect": {"type": "exchange", "pairs": [["a", "b"]]},
                "indexUid": null,
                "details": {"swaps": []},
                "method": "POST",
                "pathAndQuery": "/swap-indexes",
                "each": [[0, [{"indexes": ["a", "b"]}]]],
                "newest": {"n": 4},
                "task": 9,
                "placed": placed,
            });
            let intent: Intent = serde_json::from_value(stored.clone()).unwrap();
            assert_eq!(bool::from(intent.placing), placed);
            assert_eq!(serde_json::to_value(&intent).unwrap(), stored);
        }
    }
}
