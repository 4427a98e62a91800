//! The line before a shard: who waits, and which neighbours may go together.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::{Outcome, Small};

/// How many writes, and how many bytes, one node task may be merged from.
const GROUP_WRITES: usize = 512;
const GROUP_BYTES: usize = 4 << 20;

/// Small writes that wait for one shard, in their order.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) waiting: VecDeque<Waiting>,
    /// Whether somebody sends what waits.
    pub(super) served: bool,
}

/// One of them, and where its outcome goes.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) small: Small,
    pub(super) sent: oneshot::Sender<Outcome>,
}

impl Line {
    /// The next writes that go together, in their order; none if nobody waits.
    pub(super) fn next_group(&mut self) -> Vec<Waiting> {
        let Some(first) = self.waiting.pop_front() else {
            return Vec::new();
        };
        let mut bytes = first.small.documents.len();
        let mut group = vec![first];
        while group.len() < GROUP_WRITES
            && let Some(next) = self.waiting.front()
            && group
                .first()
                .is_some_and(|first| first.small.kind == next.small.kind)
            && bytes + next.small.documents.len() <= GROUP_BYTES
            && let Some(next) = self.waiting.pop_front()
        {
            bytes += next.small.documents.len();
            group.push(next);
        }
        group
    }
}
