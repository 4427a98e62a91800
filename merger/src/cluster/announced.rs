//! Changes of nodes that are no tasks: of API keys, and of experimental features. A merger that follows sees no sign of them at the
//! nodes, so the leader announces them in the state that the others read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The oldest look at the state with which a merger that follows gives answers from memory. It looks every 50 ms; if etcd is slow, later.
pub(crate) const LOOKED_WITHIN: Duration = Duration::from_millis(500);
/// How long a change waits until others can read of it. If etcd takes no writes, it is answered all the same.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether they can.
const PUBLISHED_LOOK: Duration = Duration::from_millis(10);

/// What is announced, by kind.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    pub(crate) keys: Announced,
    pub(crate) features: Announced,
}

/// The changes of one kind.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    made: AtomicU64,
    /// How many of them others can read of.
    published: AtomicU64,
}

/// A change that is being made. It counts when this is dropped, so also if its client goes away before it has an answer.
pub(crate) struct Changing<'a>(&'a Announced);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.note();
    }
}

impl Announced {
    /// A change is about to be sent to nodes.
    pub(crate) fn begin(&self) -> Changing<'_> {
        Changing(self)
    }

    /// Notes a change for which nobody waits.
    pub(crate) fn note(&self) {
        self.made.fetch_add(1, Ordering::AcqRel);
    }

    /// How many changes were made.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    /// Notes that so many changes are where the other mergers read them.
    pub(crate) fn published(&self, made: u64) {
        self.published.store(made, Ordering::Release);
    }

    /// Waits until no other merger gives an answer that it remembers from before the changes made up to now.
    pub(crate) async fn heard(&self) {
        let (made, begun) = (self.made(), Instant::now());
        while self.published.load(Ordering::Acquire) < made && begun.elapsed() < PUBLISHED_WITHIN {
            sleep(PUBLISHED_LOOK).await;
        }
        sleep(LOOKED_WITHIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_until_it_is_published_and_old_looks_are_too_old() {
        let keys = Announced::default();
        drop(keys.begin());
        let begun = Instant::now();
        let publish = async {
            sleep(Duration::from_millis(300)).await;
            keys.published(keys.made());
        };
        tokio::join!(keys.heard(), publish);
        let took = begun.elapsed();
        assert!(
            took >= LOOKED_WITHIN + Duration::from_millis(300),
            "{took:?}"
        );
        assert!(took < PUBLISHED_WITHIN, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_cannot_be_published_is_answered_some_time() {
        let keys = Announced::default();
        drop(keys.begin());
        let begun = Instant::now();
        keys.heard().await;
        assert!(begun.elapsed() >= PUBLISHED_WITHIN);
        assert!(begun.elapsed() < PUBLISHED_WITHIN + 2 * LOOKED_WITHIN);
    }
}
