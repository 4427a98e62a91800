//! Identical searches that are under way at the same time are sent once.
//!
//! A search may join another one in two cases. Either that one has not been sent yet; or nothing was changing its indexes when it
//! was sent, and nothing has changed them since, so that it will be answered as the new one would be. Otherwise the new one waits
//! for the end of the one under way, for a moment at most, and then is sent for itself and for all that have come meanwhile.
//! So what a client has been told of before it asks is in its answer, whoever else asks the same.
//!
//! All that wait for a search carry it forward, so it goes on as long as one of them is there. Errors aren't shared: who finds
//! one tries by itself.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use hashbrown::HashMap;

use super::text;

/// How long a search waits for one under way that it can't join.
const WAITS: Duration = Duration::from_millis(50);

/// What comes of a search that several wait for: its answer, if it is one that can be shared.
pub(super) type Outcome = Option<Arc<text::Shared>>;

type Running = Shared<BoxFuture<'static, Outcome>>;

/// When a search was sent, if others may join it after that.
type Sent<M> = Arc<OnceLock<Option<M>>>;

struct Flight<M> {
    number: u64,
    sent: Sent<M>,
    running: WeakShared<BoxFuture<'static, Outcome>>,
}

struct Inner<M> {
    next: u64,
    flights: HashMap<Arc<str>, Vec<Flight<M>>>,
}

/// All searches under way, by what they ask. `M` is the state in which a search was sent.
pub(super) struct Flights<M> {
    inner: Mutex<Inner<M>>,
}

impl<M> Default for Flights<M> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                next: 0,
                flights: HashMap::new(),
            }),
        }
    }
}

/// A place among those that wait for a search.
pub(super) enum Place {
    /// The search is another one's.
    Joined(Running),
    /// The search is the caller's own.
    Own(Running),
}

impl<M: PartialEq + Clone + Send + Sync + 'static> Flights<M> {
    /// Joins a search of this key that the caller may join, at the moment `now`; otherwise begins one. `begin` is called when the
    /// search is sent: it returns the moment, if others may join until something changes, and the search.
    pub(super) fn join<F>(
        self: &Arc<Self>,
        key: &Arc<str>,
        now: &M,
        begin: impl FnOnce() -> (Option<M>, F) + Send + 'static,
    ) -> Place
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        let flights = inner.flights.entry_ref(key).or_default();
        let may_join = |flight: &&Flight<M>| match flight.sent.get() {
            None => true,
            Some(sent) => sent.as_ref() == Some(now),
        };
        let mut running = flights
            .iter()
            .filter(may_join)
            .filter_map(|flight| flight.running.upgrade());
        if let Some(running) = running.next() {
            return Place::Joined(running);
        }
        let before = flights
            .iter()
            .filter_map(|flight| flight.running.upgrade())
            .next_back();
        let sent = Sent::<M>::default();
        let end = End {
            flights: Arc::clone(self),
            key: Arc::clone(key),
            number,
        };
        let told = Arc::clone(&sent);
        let work = async move {
            let _end = end;
            if let Some(before) = before {
                let _ = tokio::time::timeout(WAITS, before).await;
            }
            let (moment, search) = begin();
            let _ = told.set(moment);
            search.await
        };
        // A panic is that of the request which looks for the answer by itself then.
        let work = std::panic::AssertUnwindSafe(work).catch_unwind();
        let work: BoxFuture<'static, Outcome> =
            Box::pin(work.map(|outcome| outcome.ok().flatten()));
        let running = work.shared();
        if let Some(weak) = running.downgrade() {
            flights.push(Flight {
                number,
                sent,
                running: weak,
            });
        }
        Place::Own(running)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a search when it has ended, or when nobody waits for it any more.
struct End<M> {
    flights: Arc<Flights<M>>,
    key: Arc<str>,
    number: u64,
}

impl<M> Drop for End<M> {
    fn drop(&mut self) {
        let mut inner = self
            .flights
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(flights) = inner.flights.get_mut(&self.key) {
            flights.retain(|flight| flight.number != self.number);
            if flights.is_empty() {
                inner.flights.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use http::StatusCode;

    use super::*;
    use crate::answer::Answer;

    /// A search takes this long.
    const TAKES: Duration = Duration::from_millis(20);

    /// Searches whose answers are numbers: how many were sent before.
    struct Searches {
        flights: Arc<Flights<u64>>,
        /// The present moment.
        now: Arc<AtomicU64>,
        sent: Arc<AtomicU64>,
        /// Whether nothing is changing.
        quiet: bool,
    }

    impl Searches {
        fn new(quiet: bool) -> Self {
            Self {
                flights: Arc::default(),
                now: Arc::default(),
                sent: Arc::default(),
                quiet,
            }
        }

        fn change(&self) {
            self.now.fetch_add(1, Ordering::Relaxed);
        }

        fn search(&self) -> Running {
            let (sent, quiet) = (Arc::clone(&self.sent), self.quiet);
            let now = self.now.load(Ordering::Relaxed);
            let clock = Arc::clone(&self.now);
            let begin = move || {
                let moment = quiet.then(|| clock.load(Ordering::Relaxed));
                let number = sent.fetch_add(1, Ordering::Relaxed);
                (moment, async move {
                    tokio::time::sleep(TAKES).await;
                    let text = format!("{{\"number\":{number}}}");
                    let answer = Answer::json_bytes(StatusCode::OK, text);
                    text::Shared::of(&answer).map(Arc::new)
                })
            };
            match self.flights.join(&Arc::from("key"), &now, begin) {
                Place::Own(running) | Place::Joined(running) => running,
            }
        }

        fn are_over(&self) -> bool {
            self.flights.lock().flights.is_empty()
        }
    }

    fn number(outcome: Outcome) -> u64 {
        let answer = outcome.unwrap().for_client();
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        said["number"].as_u64().unwrap()
    }

    /// Sends the search, as far as it gets without waiting.
    async fn set_off(running: &Running) -> tokio::task::JoinHandle<Outcome> {
        let handle = tokio::spawn(running.clone());
        tokio::task::yield_now().await;
        handle
    }

    #[tokio::test(start_paused = true)]
    async fn identical_searches_at_the_same_time_are_sent_once() {
        let searches = Searches::new(true);
        let one = set_off(&searches.search()).await;
        let two = set_off(&searches.search()).await;
        assert_eq!(
            (number(one.await.unwrap()), number(two.await.unwrap())),
            (0, 0)
        );
        assert!(searches.are_over());
        assert_eq!(number(searches.search().await), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_change_no_search_is_joined_that_was_sent_before_it() {
        let searches = Searches::new(true);
        let old = set_off(&searches.search()).await;
        searches.change();
        let new = set_off(&searches.search()).await;
        let newer = set_off(&searches.search()).await;
        assert_eq!(number(old.await.unwrap()), 0);
        assert_eq!(
            (number(new.await.unwrap()), number(newer.await.unwrap())),
            (1, 1)
        );
        assert!(searches.are_over());
    }

    #[tokio::test(start_paused = true)]
    async fn while_something_changes_only_searches_that_are_not_sent_yet_are_joined() {
        let searches = Searches::new(false);
        let one = set_off(&searches.search()).await;
        let two = set_off(&searches.search()).await;
        let three = set_off(&searches.search()).await;
        assert_eq!(number(one.await.unwrap()), 0);
        assert_eq!(
            (number(two.await.unwrap()), number(three.await.unwrap())),
            (1, 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_away_takes_nobody_with_it() {
        let searches = Searches::new(true);
        let one = set_off(&searches.search()).await;
        let two = set_off(&searches.search()).await;
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
        assert_eq!(number(two.await.unwrap()), 0);
        let three = set_off(&searches.search()).await;
        three.abort();
        assert!(three.await.unwrap_err().is_cancelled());
        assert!(searches.are_over(), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_that_panics_has_no_answer_and_leaves_nothing_behind() {
        let flights = Arc::new(Flights::<u64>::default());
        let begin = || (None, async { panic!("a test wants it") });
        let Place::Own(running) = flights.join(&Arc::from("key"), &0, begin) else {
            panic!("nobody else is there");
        };
        assert!(running.await.is_none());
        assert!(flights.lock().flights.is_empty());
    }
}
