//! The queue of small writes before a shard, and which neighbours in it may be merged.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashSet;
use tokio::sync::oneshot;

use super::{Outcome, Small};
use crate::cluster::Placement;
use crate::tasks::MOST_MEMBERS;

/// The limits of one merged node task, in writes and in bytes.
const GROUP_WRITES: usize = MOST_MEMBERS as usize;
const GROUP_BYTES: usize = 4 << 20;

/// The small writes that wait for one shard, in order.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) waiting: VecDeque<Waiting>,
    /// Whether a task is running that sends the waiting writes.
    pub(super) served: bool,
}

/// A waiting write, and the channel for its outcome.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) small: Small,
    pub(super) sent: oneshot::Sender<Outcome>,
}

/// What is known of the writes that go next, before their turn. More may come until then.
#[derive(Debug)]
pub(super) struct Next {
    /// The placement by which they were laid out.
    pub(super) placement: Arc<Placement>,
    /// The ids of their documents, if their index lies by a field.
    pub(super) ids: HashSet<String>,
}

impl Line {
    /// What goes next; `None` if nothing waits.
    pub(super) fn next(&self) -> Option<Next> {
        let kind = &self.waiting.front()?.small.kind;
        let placement = Arc::clone(&kind.placement);
        let alike = |waiting: &&Waiting| waiting.small.kind == *kind;
        let waiting = self.waiting.iter().take(GROUP_WRITES).take_while(alike);
        let ids = match placement.slots.field() {
            Some(_) => waiting
                .flat_map(|waiting| waiting.small.ids.iter())
                .map(str::to_owned)
                .collect(),
            None => HashSet::new(),
        };
        Some(Next { placement, ids })
    }

    /// Removes and returns the next writes that can be merged, in order; empty if none waits.
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
