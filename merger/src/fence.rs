//! Until when requests to nodes may leave.
//!
//! A merger that leads by a lease must have fallen silent before the lease ends, because the next leader begins then, and nodes
//! can't tell old leaders from new ones. So every request to a node [passes](Fence::enter) the fence. It closes by itself at a
//! moment on the monotonic clock that each renewal of the lease moves on; once closed it stays closed. It also knows the term, for
//! guards in front of nodes, which need no clock. A merger with a store of its own has a fence that is always open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};
use weft_routing::Term;

/// Whether requests to nodes may leave. Cheap to clone and to ask.
#[derive(Debug, Clone)]
pub struct Fence(Option<Arc<Inner>>, Option<Term>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    /// When the fence closes, in microseconds since `began`; 0 if it was closed for good.
    until: AtomicU64,
    /// Whether it lets nobody in any more, though what is under way may go on.
    shut: AtomicBool,
    under_way: AtomicUsize,
    changed: Notify,
}

impl Fence {
    /// A fence that never closes.
    pub const fn always_open() -> Self {
        Self(None, None)
    }

    /// A fence that closes at this moment, unless it is [moved on](Self::extend) before.
    pub fn until(moment: Instant) -> Self {
        let began = Instant::now();
        let inner = Inner {
            began,
            until: AtomicU64::new(micros(moment.saturating_duration_since(began))),
            shut: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            changed: Notify::new(),
        };
        Self(Some(Arc::new(inner)), None)
    }

    /// The same fence, of this term.
    #[must_use]
    pub fn in_term(self, term: Term) -> Self {
        Self(self.0, Some(term))
    }

    /// The term in which this merger leads; `None` if it leads without terms.
    pub fn term(&self) -> Option<Term> {
        self.1
    }

    /// Whether requests may leave.
    pub fn is_open(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.left().is_some())
    }

    /// Whether a request could leave now. Unlike [`is_open`](Self::is_open), this is false of one that is shut, too.
    pub fn lets_in(&self) -> bool {
        let lets_in =
            |inner: &Arc<Inner>| !inner.shut.load(Ordering::SeqCst) && inner.left().is_some();
        self.0.as_ref().is_none_or(lets_in)
    }

    /// How long it stays open if nobody moves it on; `None` if it never closes by itself.
    pub fn left(&self) -> Option<Duration> {
        let inner = self.0.as_ref()?;
        Some(inner.left().unwrap_or_default())
    }

    /// Moves the end on, unless it has been reached: then the fence stays closed, and this returns `false`. An earlier moment than
    /// the present end changes nothing.
    pub fn extend(&self, moment: Instant) -> bool {
        let Some(inner) = &self.0 else { return true };
        let wanted = micros(moment.saturating_duration_since(inner.began));
        let moved = inner
            .until
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |until| {
                (until > inner.now()).then_some(until.max(wanted))
            });
        moved.is_ok()
    }

    /// Lets nobody in any more. What is under way may go on until the end.
    pub fn shut(&self) {
        if let Some(inner) = &self.0 {
            inner.shut.store(true, Ordering::SeqCst);
        }
    }

    /// Closes the fence at once and for good.
    pub fn close(&self) {
        if let Some(inner) = &self.0 {
            inner.until.store(0, Ordering::SeqCst);
            inner.changed.notify_waiters();
        }
    }

    /// Resolves when the fence has closed.
    pub async fn closed(&self) {
        let Some(inner) = &self.0 else {
            return std::future::pending().await;
        };
        loop {
            let mut changed = std::pin::pin!(inner.changed.notified());
            changed.as_mut().enable();
            let Some(left) = inner.left() else { return };
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = changed => {}
            }
        }
    }

    /// Lets a request leave, which counts as under way until the result is dropped; `None` if the fence lets nobody in.
    pub fn enter(&self) -> Option<UnderWay> {
        let Some(inner) = &self.0 else {
            return Some(UnderWay(None));
        };
        // Counted first, so that `drained` never misses one that was let in.
        inner.under_way.fetch_add(1, Ordering::SeqCst);
        let under_way = UnderWay(Some(Arc::clone(inner)));
        (!inner.shut.load(Ordering::SeqCst) && inner.left().is_some()).then_some(under_way)
    }

    /// Resolves when nothing is under way. Only sensible once the fence is shut or closed.
    pub async fn drained(&self) {
        let Some(inner) = &self.0 else { return };
        loop {
            let mut changed = std::pin::pin!(inner.changed.notified());
            changed.as_mut().enable();
            if inner.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }
}

impl Inner {
    fn now(&self) -> u64 {
        micros(self.began.elapsed())
    }

    fn left(&self) -> Option<Duration> {
        let left = self.until.load(Ordering::SeqCst).saturating_sub(self.now());
        (left > 0).then(|| Duration::from_micros(left))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A request that was let through.
#[derive(Debug)]
pub struct UnderWay(Option<Arc<Inner>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(inner) = &self.0
            && inner.under_way.fetch_sub(1, Ordering::SeqCst) == 1
        {
            inner.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fence() -> Fence {
        Fence::until(Instant::now() + SECOND)
    }

    #[tokio::test(start_paused = true)]
    async fn it_closes_by_itself_and_stays_closed() {
        let fence = fence();
        assert!(fence.is_open() && fence.enter().is_some());
        tokio::time::advance(SECOND).await;
        assert!(!fence.is_open() && fence.enter().is_none());
        assert!(!fence.extend(Instant::now() + SECOND));
        assert!(!fence.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_its_end_hears_of_the_latest_one() {
        let fence = fence();
        let begun = Instant::now();
        let closed = tokio::spawn({
            let fence = fence.clone();
            async move { fence.closed().await }
        });
        tokio::time::sleep(SECOND / 2).await;
        assert!(fence.extend(begun + 3 * SECOND));
        assert!(
            fence.extend(begun + 2 * SECOND),
            "a late renewal changes nothing"
        );
        closed.await.unwrap();
        assert_eq!(begun.elapsed(), 3 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_it_is_heard_at_once() {
        let fence = fence();
        let begun = Instant::now();
        let waiting = fence.clone();
        let closed = tokio::spawn(async move { waiting.closed().await });
        tokio::task::yield_now().await;
        fence.close();
        closed.await.unwrap();
        assert!(begun.elapsed() < SECOND / 10);
        assert!(!fence.extend(Instant::now() + SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shut_fence_lets_out_what_is_under_way_and_nobody_in() {
        let fence = fence();
        let one = fence.enter().unwrap();
        fence.shut();
        assert!(fence.is_open() && !fence.lets_in());
        assert!(fence.enter().is_none() && fence.is_open());
        let waiting = fence.clone();
        let drained = tokio::spawn(async move { waiting.drained().await });
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        drop(one);
        drained.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_merger_with_a_store_of_its_own_is_never_stopped() {
        let fence = Fence::always_open();
        fence.shut();
        fence.close();
        tokio::time::advance(1_000 * SECOND).await;
        assert!(fence.is_open() && fence.enter().is_some() && fence.extend(Instant::now()));
        fence.drained().await;
    }
}
