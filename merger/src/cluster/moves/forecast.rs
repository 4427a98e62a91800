//! How far moves are, and how long they will take by what was measured. Pure.

use std::collections::BTreeMap;

use super::record::{Move, MoveState};

/// How much of what was measured before still counts when something new is measured.
const KEPT: f64 = 0.7;

/// How fast moves went lately, in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Pace {
    documents: f64,
    /// What these documents took.
    seconds: f64,
    /// What a move takes before its first batch and after its last.
    around: f64,
}

impl Pace {
    /// Notes that a batch has taken so long.
    pub(crate) fn learn(&mut self, documents: u64, seconds: f64) {
        self.documents = self.documents * KEPT + number(documents);
        self.seconds = self.seconds * KEPT + seconds;
    }

    /// Notes that a move has taken so long without its batches.
    pub(crate) fn learn_around(&mut self, seconds: f64) {
        self.around = match self.around > 0.0 {
            true => self.around * KEPT + seconds * (1.0 - KEPT),
            false => seconds,
        };
    }

    /// How long so many documents take, in so many moves; `None` if nothing was measured yet.
    pub(crate) fn seconds(&self, documents: f64, moves: usize) -> Option<f64> {
        let each = (self.documents >= 1.0).then(|| self.seconds / self.documents)?;
        Some(documents * each + number(moves as u64) * self.around)
    }
}

impl Move {
    /// How far it is, from 0 to 1: one half of the work on a document is to bring it over, the other one to hand it over and delete the
    /// old copy.
    pub(crate) fn progress(&self) -> f64 {
        match (self.has_ended(), self.documents) {
            (false, 0) => 0.0,
            (true, 0) => 1.0,
            (true, documents) => (number(self.moved) / number(documents)).min(1.0),
            (false, documents) => (self.done() / number(documents)).min(1.0),
        }
    }

    /// How many documents' worth of work is done.
    fn done(&self) -> f64 {
        (number(self.copied) + number(self.removed)) / 2.0
    }

    fn seconds_left(&self, pace: Pace) -> Option<f64> {
        let begins = matches!(self.state, MoveState::Waiting | MoveState::Preparing);
        let rest = (number(self.documents) - self.done()).max(0.0);
        pace.seconds(rest, usize::from(begins))
    }
}

/// When each of these moves that has not ended will end, in seconds from now: one after the other for an index, and so many at once.
/// Empty if nothing was measured yet.
pub(crate) fn forecast(moves: &[Move], at_once: usize, pace: Pace) -> BTreeMap<u64, f64> {
    let mut lanes = vec![0.0_f64; at_once.max(1)];
    let mut indexes: BTreeMap<&str, f64> = BTreeMap::new();
    let mut ends = BTreeMap::new();
    // Those that run hold their places already.
    let mut live: Vec<&Move> = moves.iter().filter(|one| !one.has_ended()).collect();
    live.sort_by_key(|one| (one.state == MoveState::Waiting, one.id));
    for one in live {
        let Some(takes) = one.seconds_left(pace) else {
            return BTreeMap::new();
        };
        let index = indexes.entry(&one.index).or_default();
        let Some(lane) = lanes.iter_mut().min_by(|a, b| a.total_cmp(b)) else {
            continue;
        };
        let end = lane.max(*index) + takes;
        (*lane, *index) = (end, end);
        ends.insert(one.id, end);
    }
    ends
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a count of documents needs no more than 52 bits"
)]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now_utc;
    use weft_routing::placement::ShardId;

    fn one(id: u64, index: &str, state: MoveState, documents: u64) -> Move {
        Move {
            id,
            index: index.to_owned(),
            from: ShardId(0),
            to: ShardId(1),
            slots: Vec::new(),
            state,
            documents,
            copied: 0,
            moved: 0,
            removed: 0,
            bytes: 0,
            cancelled: false,
            created_at: now_utc(),
            started_at: None,
            finished_at: None,
            error: None,
        }
    }

    fn pace() -> Pace {
        let mut pace = Pace::default();
        pace.learn(100, 10.0);
        pace.learn_around(5.0);
        pace
    }

    #[test]
    fn a_document_that_both_shards_hold_is_half_done() {
        let mut half = one(1, "x", MoveState::Copying, 100);
        assert_eq!(half.progress(), 0.0);
        half.copied = 40;
        assert_eq!(half.progress(), 0.2);
        (half.moved, half.removed) = (40, 40);
        assert_eq!(half.progress(), 0.4);
        (half.copied, half.moved, half.removed) = (110, 110, 110);
        assert_eq!(half.progress(), 1.0, "never more");
        let none = one(2, "x", MoveState::Waiting, 0);
        assert_eq!(none.progress(), 0.0);
        let done = one(2, "x", MoveState::Done, 0);
        assert_eq!(done.progress(), 1.0);
    }

    #[test]
    fn what_was_measured_last_counts_most() {
        assert_eq!(Pace::default().seconds(7.0, 1), None);
        let mut pace = pace();
        assert_eq!(pace.seconds(50.0, 0), Some(5.0));
        assert_eq!(pace.seconds(50.0, 2), Some(15.0));
        for _ in 0..20 {
            pace.learn(100, 20.0);
            pace.learn_around(1.0);
        }
        let seconds = pace.seconds(50.0, 1).unwrap();
        assert!((seconds - 11.0).abs() < 0.1, "{seconds}");
    }

    #[test]
    fn moves_of_an_index_end_one_after_the_other_and_others_beside_them() {
        let moves = [
            one(1, "x", MoveState::Done, 100),
            one(2, "x", MoveState::Copying, 100),
            one(3, "x", MoveState::Waiting, 50),
            one(4, "y", MoveState::Waiting, 10),
        ];
        let ends = forecast(&moves, 2, pace());
        assert_eq!(ends, BTreeMap::from([(2, 10.0), (3, 20.0), (4, 16.0)]));
        assert_eq!(forecast(&moves, 1, pace())[&4], 26.0);
        assert_eq!(forecast(&moves, 2, Pace::default()), BTreeMap::new());
    }
}
