//! The order of writes to each replica. A write takes its place in the replica's queue under the shard's lock. Places are served
//! in that order, even if the shard has gone on to other writes long before.
//!
//! If a write is acknowledged before a replica has it, the replica *lags* until the write's place in its queue has come. Nothing
//! here is stored: the task's record says which replicas have yet to take it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::{Changes, NodeId};

/// The acknowledged writes that a replica has yet to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// The number of writes.
    pub writes: u64,
    /// The total size of their bodies in bytes.
    pub bytes: u64,
}

#[derive(Default)]
struct ReplicaQueue {
    line: Arc<tokio::sync::Mutex<()>>,
    behind: Lag,
    /// Since when it has been behind without a pause.
    since: Option<Instant>,
}

/// The queues of all replicas.
#[derive(Default)]
pub struct ReplicaQueues {
    queues: Mutex<HashMap<NodeId, ReplicaQueue>>,
    /// Tells of changes of lags.
    pub(crate) changes: Changes,
}

type Entering = Pin<Box<dyn Future<Output = OwnedMutexGuard<()>> + Send>>;

/// A place in a replica's queue. It resolves when it comes first; dropping it gives up the place.
pub enum QueuePlace {
    /// Other places come first.
    Waiting(Entering),
    /// This place is first; the guard is taken by the first poll.
    First(Option<OwnedMutexGuard<()>>),
}

impl Future for QueuePlace {
    type Output = OwnedMutexGuard<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Waiting(entering) => entering.as_mut().poll(context),
            Self::First(guard) => guard.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

impl ReplicaQueues {
    /// Takes the next place in a replica's queue, at the call and not at the first poll.
    pub fn enqueue(&self, node: &NodeId) -> QueuePlace {
        let line = Arc::clone(&self.lock().entry(node.clone()).or_default().line);
        let mut entering: Entering = Box::pin(line.lock_owned());
        // Tokio's mutex serves in the order of first polls, so it is polled once here.
        match entering
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(guard) => QueuePlace::First(Some(guard)),
            Poll::Pending => QueuePlace::Waiting(entering),
        }
    }

    /// The acknowledged writes that the replica has yet to take.
    pub fn lag(&self, node: &NodeId) -> Lag {
        self.lock()
            .get(node)
            .map(|queue| queue.behind)
            .unwrap_or_default()
    }

    /// For how long the replica has had acknowledged writes to take, without a pause.
    pub fn behind_for(&self, node: &NodeId) -> Duration {
        let since = self.lock().get(node).and_then(|queue| queue.since);
        since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Whether the replica has taken every acknowledged write.
    pub fn caught_up(&self, node: &NodeId) -> bool {
        self.lag(node).writes == 0
    }

    pub(crate) fn add_lag(&self, node: &NodeId, bytes: u64) {
        self.change_lag(node, |lag| Lag {
            writes: lag.writes + 1,
            bytes: lag.bytes + bytes,
        });
    }

    pub(crate) fn reduce_lag(&self, node: &NodeId, bytes: u64) {
        self.change_lag(node, |lag| Lag {
            writes: lag.writes.saturating_sub(1),
            bytes: lag.bytes.saturating_sub(bytes),
        });
    }

    fn change_lag(&self, node: &NodeId, change: impl FnOnce(Lag) -> Lag) {
        {
            let mut queues = self.lock();
            let queue = queues.entry(node.clone()).or_default();
            queue.behind = change(queue.behind);
            queue.since = match queue.behind.writes {
                0 => None,
                _ => queue.since.or_else(|| Some(Instant::now())),
            };
        }
        self.changes.tell();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, ReplicaQueue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_serves_in_the_order_of_entering_whoever_waits_first() {
        let queues = ReplicaQueues::default();
        let node = NodeId::from("n".to_owned());
        let first = queues.enqueue(&node).await;
        let (second, gone, third) = (
            queues.enqueue(&node),
            queues.enqueue(&node),
            queues.enqueue(&node),
        );
        let (sent, mut served) = tokio::sync::mpsc::unbounded_channel();
        let tell = sent.clone();
        let third = tokio::spawn(async move {
            let _place = third.await;
            let _ = tell.send(3);
        });
        tokio::task::yield_now().await;
        let second = tokio::spawn(async move {
            let _place = second.await;
            let _ = sent.send(2);
        });
        drop(gone);
        drop(first);
        third.await.unwrap();
        second.await.unwrap();
        assert_eq!(
            (served.recv().await, served.recv().await),
            (Some(2), Some(3))
        );
        // Another replica has a queue of its own.
        let _held = queues.enqueue(&node).await;
        let _other = queues.enqueue(&NodeId::from("m".to_owned())).await;
    }

    #[test]
    fn a_replica_is_even_when_all_is_taken() {
        let queues = ReplicaQueues::default();
        let node = NodeId::from("n".to_owned());
        queues.add_lag(&node, 5);
        queues.add_lag(&node, 7);
        queues.reduce_lag(&node, 5);
        assert_eq!(
            queues.lag(&node),
            Lag {
                writes: 1,
                bytes: 7
            }
        );
        queues.reduce_lag(&node, 7);
        assert!(queues.caught_up(&node));
    }
}
