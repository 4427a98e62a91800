//! The store of several mergers: an etcd. Only the leader has one of these, and only the leader changes something.
//!
//! Commits wait in a queue. Those that wait together and touch different keys become one transaction ([`group`]). Its conditions
//! are the leader's [`Term`], the id of the last commit ([`exchange`]), and what the commits expect. A commit that etcd takes in no
//! single request is stored as a bundle first, and then applied in steps, while readers wait ([`bundle`]).
//!
//! Invariants: whatever was sent without an answer is settled before anything else is sent. Versions are etcd's own: they count
//! from 1 and start again after a deletion. Whatever is in etcd is durable. Nobody waits for commits that needn't be durable at once:
//! they go with the next one, so that a write never waits for a transaction that only says how the last one ended ([`lazy`]).

mod bundle;
mod exchange;
mod group;
mod identity;
mod journal;
mod lazy;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{RwLock, RwLockReadGuard, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use self::exchange::Exchange;
use self::group::{Group, Normal};
pub use self::identity::{
    IdentityError, begin_copy, check as check_identity, claim, end_copy, refuse_unfinished,
};
#[cfg(test)]
pub(crate) use self::journal::is_read_by_followers;
pub use self::journal::{News, Read, StateReader};
use self::lazy::Lazy;
use super::{Change, Expect, Patience, Store, StoreError, Versioned};
use crate::etcd::{AGAIN, ANSWER_WITHIN, Ask, Entry, Etcd, EtcdError, Page, Prefix, get};
use crate::leadership::Term;

/// The largest value that is taken, in bytes: a request of etcd has 1.5 MiB by default, and holds more than the value.
const MOST_VALUE_BYTES: usize = 1 << 20;

/// How long a commit that may be lost in a crash waits for one that may not: less than [`UNSYNCED`](super::UNSYNCED), since it
/// takes a while itself.
const LINGERS: Duration = Duration::from_millis(80);

/// How many bytes one transaction changes at most.
const MOST_BYTES: usize = MOST_VALUE_BYTES;

/// How many changes one transaction has at most: a few less than etcd takes, for the conditions and the id of the commit.
const MOST_CHANGES: usize = 120;

/// How many entries a page of a range has at first; half of that after one that was too large.
const PAGE: usize = 256;

/// How long a page of a range may take.
const PAGE_WITHIN: Duration = Duration::from_secs(3);

/// How long a read is tried before it fails.
const READ_FOR: Duration = Duration::from_secs(10);

/// How long a read waits while a large commit is applied.
const WAIT_FOR_BUNDLE: Duration = Duration::from_secs(30);

/// The leader's store.
pub struct EtcdStore {
    etcd: Arc<dyn Etcd>,
    prefix: Prefix,
    whole: Arc<Whole>,
    queue: Queue,
}

/// The way to the writer.
#[derive(Clone)]
struct Queue {
    waiting: mpsc::UnboundedSender<Waiting>,
    lazy: Arc<Lazy>,
}

/// Whether the state is whole. While a large commit is applied this is locked exclusively. It is `false` for good if this merger
/// could not apply one to its end: the next leader does.
type Whole = RwLock<bool>;

struct Waiting {
    commit: Normal,
    /// Whether it must be durable as soon as possible.
    urgent: bool,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl EtcdStore {
    /// Opens the store as the leader of `term`, and completes what the last one has left.
    ///
    /// # Errors
    /// etcd doesn't answer, or this merger leads no more.
    pub async fn open(etcd: Arc<dyn Etcd>, prefix: Prefix, term: Term) -> Result<Self, StoreError> {
        let mut exchange = Exchange::begin(Arc::clone(&etcd), prefix.clone(), term).await?;
        bundle::complete(&mut exchange).await?;
        let (queue, waiting) = mpsc::unbounded_channel();
        let whole = Arc::new(Whole::new(true));
        tokio::spawn(write(exchange, Arc::clone(&whole), waiting));
        let queue = Queue {
            waiting: queue,
            lazy: Arc::default(),
        };
        Ok(Self {
            etcd,
            prefix,
            whole,
            queue,
        })
    }

    /// Waits until etcd has everything below this prefix that commits have told of.
    async fn settle(&self, prefix: &str) -> Result<(), StoreError> {
        let until = Instant::now() + READ_FOR;
        while self.queue.lazy.has_some(prefix) {
            // Whatever waits goes with it.
            self.queue.commit(Vec::new()).await?;
            if Instant::now() > until {
                return Err(StoreError::Failed("etcd doesn't take commits".into()));
            }
            if self.queue.lazy.has_some(prefix) {
                tokio::time::sleep(AGAIN).await;
            }
        }
        Ok(())
    }

    async fn whole(&self) -> Result<RwLockReadGuard<'_, bool>, StoreError> {
        let whole = tokio::time::timeout(WAIT_FOR_BUNDLE, self.whole.read()).await;
        let whole = whole.map_err(|_| StoreError::Failed("a large commit takes long".into()))?;
        match *whole {
            true => Ok(whole),
            false => Err(StoreError::NotLeader),
        }
    }

    async fn entries(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        self.settle(prefix).await?;
        let _whole = self.whole().await?;
        let root = self.prefix.state("");
        let versioned = |entry: Entry| {
            let key = entry.key.strip_prefix(&root).map(str::to_owned);
            (key.unwrap_or_default(), of(entry))
        };
        let found = range(&*self.etcd, &self.prefix.state(prefix)).await?;
        Ok(found.into_iter().map(versioned).collect())
    }
}

impl Queue {
    /// Takes a place in the queue now, not when the result is waited for.
    fn enqueue(
        &self,
        changes: Vec<Change>,
        urgent: bool,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        let (done, outcome) = oneshot::channel();
        let sent = Normal::of(changes).and_then(|commit| {
            let waiting = Waiting {
                commit,
                urgent,
                done,
            };
            self.waiting.send(waiting).map_err(|_| StoreError::Closed)
        });
        Box::pin(async move {
            sent?;
            outcome.await.map_err(|_| StoreError::Closed)?
        })
    }

    /// A commit that somebody waits for.
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), StoreError>> {
        // Under one lock, so that commits have the same order here and in the queue.
        let mut pending = self.lazy.lock();
        let Some(number) = pending.overtake(&changes) else {
            return self.enqueue(changes, true);
        };
        let keys: Vec<String> = changes.iter().map(|change| change.key.clone()).collect();
        let made = self.enqueue(changes, true);
        drop(pending);
        let lazy = Arc::clone(&self.lazy);
        Box::pin(async move {
            made.await?;
            lazy.lock().stored(number, keys.iter().map(String::as_str));
            Ok(())
        })
    }

    /// A commit for which nobody waits. It is tried until it is made, or this merger leads no more.
    fn commit_lazily(&self, mut changes: Vec<Change>) {
        let (number, mut made) = {
            let mut pending = self.lazy.lock();
            let number = pending.put(&changes);
            (number, self.enqueue(changes.clone(), false))
        };
        let queue = self.clone();
        tokio::spawn(async move {
            let mut patience = Patience::with("what may be lost in a crash");
            while patience.after(made.await).await.is_continue() {
                let pending = queue.lazy.lock();
                changes = pending.left(number, changes);
                made = queue.enqueue(changes.clone(), false);
            }
            let keys = changes.iter().map(|change| change.key.as_str());
            queue.lazy.lock().stored(number, keys);
        });
    }
}

fn of(entry: Entry) -> Versioned {
    Versioned {
        version: entry.version,
        value: entry.value,
    }
}

/// Tries a read again until it is answered, or [`READ_FOR`] is over.
async fn patiently<T, F>(mut read: impl FnMut() -> F) -> Result<T, EtcdError>
where
    F: Future<Output = Result<T, EtcdError>>,
{
    let until = Instant::now() + READ_FOR;
    loop {
        match read().await {
            Err(error) if error.may_have_been_done() && Instant::now() < until => {
                tokio::time::sleep(AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

/// All entries whose keys begin with `prefix`, as of one revision.
async fn range(etcd: &dyn Etcd, prefix: &str) -> Result<Vec<Entry>, EtcdError> {
    let mut limit = PAGE;
    let (mut found, mut revision, mut from) = (Vec::new(), 0, prefix.to_owned());
    loop {
        let ask = Ask {
            from: from.clone(),
            prefix: prefix.to_owned(),
            limit,
            revision,
        };
        let page = patiently(|| etcd.page(ask.clone(), PAGE_WITHIN)).await;
        match page {
            Ok(Page {
                entries,
                more,
                revision: read,
            }) => {
                revision = read;
                // The next key after the last one.
                from = entries
                    .last()
                    .map_or(from, |last| format!("{}\0", last.key));
                found.extend(entries);
                if !more {
                    return Ok(found);
                }
            }
            Err(EtcdError::TooMuch) if limit > 1 => limit /= 2,
            // The history up to this revision was just forgotten: a newer one is read from the beginning.
            Err(EtcdError::Compacted) if revision != 0 => {
                (found, revision, from) = (Vec::new(), 0, prefix.to_owned());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Forgets etcd's history now and then, up to the revision of the last time, for as long as the merger leads: etcd keeps all of it
/// unless it is told otherwise, and takes no more writes when its disk quota is used up. Never ends.
pub async fn forget_history(etcd: Arc<dyn Etcd>, prefix: Prefix, interval: Duration) {
    let mut known = None;
    loop {
        let ask = Ask {
            from: prefix.commit(),
            prefix: prefix.commit(),
            limit: 1,
            revision: 0,
        };
        let now = etcd.page(ask, ANSWER_WITHIN).await;
        let now = now.map(|page| page.revision).ok();
        if let Some(revision) = known
            && let Err(error) = etcd.compact(revision, ANSWER_WITHIN).await
            // Somebody else has done it.
            && error != EtcdError::Compacted
        {
            tracing::warn!(%error, "etcd's history can't be forgotten");
        }
        known = now.or(known);
        tokio::time::sleep(interval).await;
    }
}

/// Makes the commits that wait, in order. Ends when the store is dropped.
async fn write(
    mut exchange: Exchange,
    whole: Arc<Whole>,
    mut queue: mpsc::UnboundedReceiver<Waiting>,
) {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(first) => first,
            None => match queue.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        if first.commit.is_large() {
            let Waiting { commit, done, .. } = first;
            let _ = done.send(bundle::commit(&mut exchange, &whole, commit).await);
            continue;
        }
        let mut group = Group::of(first);
        let until = Instant::now() + LINGERS;
        while let Some(waiting) = another(&mut queue, group.is_urgent(), until).await {
            if let Err(waiting) = group.add(waiting) {
                next = Some(waiting);
                break;
            }
        }
        group.commit(&mut exchange).await;
    }
}

/// Another commit for a group: one that waits already or, as long as nothing in the group is urgent, one that comes in time.
async fn another(
    queue: &mut mpsc::UnboundedReceiver<Waiting>,
    urgent: bool,
    until: Instant,
) -> Option<Waiting> {
    match queue.try_recv() {
        Ok(waiting) => Some(waiting),
        Err(TryRecvError::Empty) if !urgent => timeout_at(until, queue.recv()).await.ok()?,
        Err(_) => None,
    }
}

impl Store for EtcdStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(async move {
            // Who changes the key by the version that it gets with the next commit is refused.
            if let Some(value) = self.queue.lazy.value(key) {
                return Ok(value.map(|value| Versioned { version: 0, value }));
            }
            let _whole = self.whole().await?;
            let found = patiently(|| get(&*self.etcd, self.prefix.state(key))).await?;
            Ok(found.map(of))
        })
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue.commit(changes)
    }

    fn commit_unsynced(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        let conditional = |change: &Change| change.expect != Expect::Anything;
        let bytes = |change: &Change| change.value.as_ref().map_or(0, Vec::len);
        // What nobody waits for must not fail for a reason of its own.
        if changes.iter().any(conditional)
            || changes.len() > MOST_CHANGES / 2
            || changes.iter().map(bytes).sum::<usize>() > MOST_BYTES / 4
        {
            return self.queue.commit(changes);
        }
        self.queue.commit_lazily(changes);
        Box::pin(async { Ok(()) })
    }

    fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        Box::pin(self.entries(prefix))
    }
}

impl From<EtcdError> for StoreError {
    fn from(error: EtcdError) -> Self {
        Self::Failed(Box::new(error))
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
