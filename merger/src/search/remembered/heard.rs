//! How late a merger that follows may be, as far as remembered answers are concerned.
//!
//! It doesn't see what the leader sends to nodes. It sees a new task of a node at its next probe, and the end of a task in the state
//! that it follows. So an answer from before a write may be given until one of the two has come, and no longer. A client that heard of
//! a task's end through this merger isn't given one: from then on, nothing is given from memory until the nodes were probed again,
//! which have had the task since before.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tokio::time::Instant;

use crate::cluster::LOOKED_WITHIN;

#[derive(Debug, Default)]
struct Times {
    /// When a client may last have heard something that this merger hadn't.
    told: Option<Instant>,
    /// When the last look at the state began that is applied.
    looked: Option<Instant>,
    /// When the last probe of each node began that was answered, and acted on.
    probed: HashMap<SocketAddr, Instant>,
}

/// What a merger that follows has heard of the leader.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Times>);

impl Heard {
    /// Notes that a client may know by now of a task's end that this merger hasn't heard of.
    pub(crate) fn told(&self) {
        self.lock().told = Some(Instant::now());
    }

    /// Notes that the state was read and applied. `began` is when the reading began.
    pub(crate) fn looked(&self, began: Instant) {
        self.lock().looked = Some(began);
    }

    /// Notes that a node has told its newest task. `began` is when it was asked.
    pub(crate) fn probed(&self, node: SocketAddr, began: Instant) {
        self.lock().probed.insert(node, began);
    }

    /// Whether what this merger remembers of these nodes may be given.
    pub(super) fn is_recent(&self, nodes: impl IntoIterator<Item = SocketAddr>) -> bool {
        let times = self.lock();
        let looked = times.looked.map(|looked| looked.elapsed());
        let since_told = |node| {
            let probed = times.probed.get(&node);
            probed.is_some_and(|probed| times.told.is_none_or(|told| told < *probed))
        };
        looked.is_some_and(|age| age < LOOKED_WITHIN) && nodes.into_iter().all(since_told)
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    fn node(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7_700))
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_client_was_told_something_all_nodes_are_probed_first() {
        let heard = Heard::default();
        let recent = || heard.is_recent([node(1), node(2)]);
        heard.looked(Instant::now());
        heard.probed(node(1), Instant::now());
        assert!(!recent(), "one was never probed");
        heard.probed(node(2), Instant::now());
        assert!(recent());
        advance(Duration::from_millis(10)).await;
        let before = Instant::now();
        advance(Duration::from_millis(10)).await;
        heard.told();
        heard.probed(node(1), before);
        assert!(!recent(), "that probe had begun before");
        advance(Duration::from_millis(10)).await;
        heard.probed(node(1), Instant::now());
        assert!(!recent(), "the other one hasn't answered since");
        heard.probed(node(2), Instant::now());
        assert!(recent());
        advance(LOOKED_WITHIN).await;
        assert!(!recent(), "the state can't be read");
    }
}
