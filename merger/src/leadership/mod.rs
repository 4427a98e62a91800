//! Who leads: one merger at a time, by a lease in etcd.
//!
//! ```text
//! stand by: look who leads ─► nobody: lease, key ─► lead: renew, move the fence on ─┬─► renewals fail: the fence closes by itself
//!                 ▲                                                                 ├─► the lease or the key is gone: it is closed
//!                 └──────── another process, or this one after its next start ◄─────┴─► step down: shut, drained, key deleted
//! ```
//!
//! The lease counts from *before* a renewal was sent, on this machine's monotonic clock, and a margin is taken off: so this merger
//! is silent before etcd deletes the key, and before anybody else can lead. (A machine that is frozen as a whole, clock and all,
//! can't know that; etcd then still refuses its commits, because the key has another revision.)
//!
//! Each merger, whether it leads or not, also has a [registration] with a lease of its own.
//!
//! Each renewal has a deadline of its own, short enough for a few attempts by other endpoints, and also reads the key, which an
//! operator may have deleted.

mod registration;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::etcd::{
    AGAIN, ANSWER_WITHIN, Action, Condition, Etcd, EtcdError, Prefix, Transaction, get,
};
use crate::fence::Fence;

pub use self::registration::{Membership, Registration, Roll, Seen};

/// What a merger does with reads while it can't hear etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLostStore {
    /// It calls no node ready, and answers nothing itself.
    Refuse,
    /// It goes on by the state that it last knew. Answers may lack acknowledged writes.
    ServeReads,
}

impl FromStr for OnLostStore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "serve-reads" => Ok(Self::ServeReads),
            _ => Err("it is `refuse` or `serve-reads`".to_owned()),
        }
    }
}

/// How long a merger that steps down waits for its own requests to nodes.
const DRAIN: Duration = Duration::from_secs(2);

/// How long a merger whose lease is over for it tries to delete its key.
const GIVES_UP_FOR: Duration = Duration::from_secs(30);

/// After how long without a leader a merger leads that isn't fit for it: somebody must tell people what is wrong.
pub const ANYBODY_AFTER: Duration = Duration::from_secs(10);

/// A merger as the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// A new one for each process.
    pub id: String,
    /// Where other mergers' Envoys reach it.
    pub address: SocketAddr,
}

/// The time for which a merger leads: from winning the key to losing it.
#[derive(Debug, Clone)]
pub struct Term {
    created: i64,
    fence: Fence,
}

impl Term {
    /// The revision in which the leader's key was made. Each commit has it as a condition.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// Until when this merger leads, as far as it knows.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    #[cfg(test)]
    pub(crate) fn of(created: i64) -> Self {
        let fence = Fence::until(Instant::now() + Duration::from_secs(1_000_000));
        Self { created, fence }
    }
}

/// How long things take, all of it from the length of the lease.
#[derive(Debug, Clone, Copy)]
struct Times {
    lease: Duration,
}

impl Times {
    /// What is taken off the lease.
    fn margin(self) -> Duration {
        self.lease / 6
    }

    /// From one renewal to the next. Often, so that almost all of the lease is left when etcd begins to elect a leader of its own.
    fn renewed_every(self) -> Duration {
        self.lease / 10
    }

    /// How long a renewal may take before another endpoint is asked.
    fn answer_within(self) -> Duration {
        self.lease / 4
    }

    /// How often a merger that stands by looks who leads.
    fn looked_every(self) -> Duration {
        (self.lease / 10).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }

    fn seconds(self) -> u32 {
        let seconds = self.lease.as_secs() + u64::from(self.lease.subsec_nanos() > 0);
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }
}

/// A merger that wants to lead.
pub struct Election {
    etcd: Arc<dyn Etcd>,
    key: String,
    me: Candidate,
    times: Times,
    leader: watch::Sender<Option<Candidate>>,
}

impl Election {
    /// For the cluster below this prefix, with leases of this length.
    pub fn new(etcd: Arc<dyn Etcd>, prefix: &Prefix, me: Candidate, lease: Duration) -> Self {
        Self {
            etcd,
            key: prefix.leader(),
            me,
            times: Times { lease },
            leader: watch::Sender::new(None),
        }
    }

    /// Who leads, or who did when etcd last answered; `None` if nobody did.
    pub fn leader(&self) -> watch::Receiver<Option<Candidate>> {
        self.leader.subscribe()
    }

    /// Looks who leads until this merger does. It stands for election only while it is `fit`, unless nobody leads for
    /// [`ANYBODY_AFTER`].
    pub async fn win(&self, fit: impl Fn() -> bool) -> Leadership {
        let mut silent = false;
        let mut led = Instant::now();
        loop {
            let outcome = match fit() || led.elapsed() >= ANYBODY_AFTER {
                true => self.try_to_win().await,
                false => self.look().await.map(|_| None),
            };
            if self.leader.borrow().is_some() {
                led = Instant::now();
            }
            match outcome {
                Ok(Some(leadership)) => return leadership,
                Ok(None) => silent = false,
                Err(error) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(%error, "who leads can't be seen");
                    }
                }
            }
            sleep(self.times.looked_every()).await;
        }
    }

    /// Leads at once, or not at all.
    ///
    /// # Errors
    /// etcd didn't answer.
    pub async fn try_to_win(&self) -> Result<Option<Leadership>, EtcdError> {
        if self.look().await? {
            return Ok(None);
        }
        let sent = Instant::now();
        let granted = self.etcd.grant(self.times.seconds(), ANSWER_WITHIN).await?;
        let made = self.make_key(granted.id).await;
        let created = match made {
            Ok(Some(created)) => created,
            // Somebody else was quicker. Or nobody knows: then the key must not come later.
            outcome => {
                let _ = self.etcd.revoke(granted.id, ANSWER_WITHIN).await;
                return outcome.map(|_| None);
            }
        };
        let lasts = self.times.lease.min(granted.lasts);
        let leads_for = lasts.saturating_sub(self.times.margin());
        let fence = Fence::until(sent + leads_for).in_term(number(created));
        if !fence.is_open() {
            let _ = self.etcd.revoke(granted.id, ANSWER_WITHIN).await;
            return Err(EtcdError::NoAnswer("it took longer than the lease".into()));
        }
        self.leader.send_replace(Some(self.me.clone()));
        let held = Held {
            etcd: Arc::clone(&self.etcd),
            key: self.key.clone(),
            lease: granted.id,
            times: self.times,
            leads_for,
            term: Term { created, fence },
        };
        Ok(Some(Leadership::begin(held)))
    }

    /// Looks who leads; `false` if nobody does.
    async fn look(&self) -> Result<bool, EtcdError> {
        let entry = get(&*self.etcd, self.key.clone()).await?;
        let leader = entry.as_ref();
        let leader =
            leader.and_then(|entry| serde_json::from_slice::<Candidate>(&entry.value).ok());
        self.leader.send_if_modified(|known| {
            let changed = *known != leader;
            *known = leader;
            changed
        });
        Ok(entry.is_some())
    }

    /// The revision of the key if this merger has made it, `None` if it is there already.
    async fn make_key(&self, lease: i64) -> Result<Option<i64>, EtcdError> {
        let (key, value) = (
            self.key.clone(),
            serde_json::to_vec(&self.me).unwrap_or_default(),
        );
        let transaction = Transaction {
            when: vec![Condition::Created(key.clone(), 0)],
            then: vec![Action::Put {
                key: key.clone(),
                value,
                lease,
            }],
            otherwise: Vec::new(),
        };
        if !self.etcd.transact(transaction, ANSWER_WITHIN).await?.held {
            return Ok(None);
        }
        let entry = get(&*self.etcd, key).await?;
        let mine = entry.filter(|entry| entry.lease == lease);
        Ok(mine.map(|entry| entry.created))
    }
}

/// A term as guards know it. A revision is never negative.
fn number(created: i64) -> weft_routing::Term {
    weft_routing::Term(u64::try_from(created).unwrap_or_default())
}

/// What a leader holds in etcd.
struct Held {
    etcd: Arc<dyn Etcd>,
    key: String,
    lease: i64,
    times: Times,
    /// How long this merger leads after a renewal was sent: the lease without the margin.
    leads_for: Duration,
    term: Term,
}

impl Held {
    /// Renews the lease; `false` if it or the key is gone.
    async fn renew(&self) -> Result<bool, EtcdError> {
        let sent = Instant::now();
        let within = self.times.answer_within();
        if !self.etcd.renew(self.lease, within).await? {
            return Ok(false);
        }
        let read = Transaction {
            then: vec![Action::GetVersion(self.key.clone())],
            ..Transaction::default()
        };
        let read = self.etcd.transact(read, within).await?;
        let entry = read.found.into_iter().next().flatten();
        if entry.is_none_or(|entry| entry.created != self.term.created) {
            return Ok(false);
        }
        Ok(self.term.fence.extend(sent + self.leads_for))
    }

    /// Renews the lease until `stop`, or until it is lost.
    async fn keep(&self, stop: CancellationToken) {
        let fence = &self.term.fence;
        let renewing = async {
            let mut pause = self.times.renewed_every();
            loop {
                sleep(pause).await;
                let begun = Instant::now();
                match self.renew().await {
                    Ok(true) => {
                        pause = self.times.renewed_every().saturating_sub(begun.elapsed());
                    }
                    Ok(false) => {
                        tracing::error!(
                            "another merger may lead: the lease or the leader's key is gone"
                        );
                        fence.close();
                        return;
                    }
                    Err(error) => {
                        let left = fence.left().unwrap_or_default();
                        tracing::warn!(%error, left_ms = left.as_millis(), "the lease was not renewed");
                        pause = AGAIN.min(self.times.lease / 30);
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = fence.closed() => {}
            () = renewing => {}
        }
    }

    /// Deletes the key, if it is still this merger's.
    async fn delete_key(&self) -> Result<(), EtcdError> {
        let transaction = Transaction {
            when: vec![Condition::Created(self.key.clone(), self.term.created)],
            then: vec![Action::Delete(self.key.clone())],
            otherwise: Vec::new(),
        };
        let deleted = self.etcd.transact(transaction, ANSWER_WITHIN).await;
        deleted.map(drop)
    }

    /// Deletes the key of a lease that is over for this merger. An etcd that has elected a leader of its own gives all leases their
    /// whole time again: nobody could lead until then. As long as the lease may last, what this merger has sent may be under way.
    async fn give_up(&self) {
        sleep(self.times.margin()).await;
        let until = Instant::now() + GIVES_UP_FOR;
        while let Err(error) = self.delete_key().await {
            if Instant::now() >= until {
                tracing::debug!(%error, "the leader's key goes with its lease");
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// Deletes the key, so that another merger leads at once.
    async fn release(&self) {
        let released = self.delete_key().await;
        // The key is gone or goes with the lease: what is left of that is of no use to anybody.
        let revoked = self.etcd.revoke(self.lease, ANSWER_WITHIN).await;
        match released.or(revoked) {
            Ok(()) => tracing::info!("stepped down"),
            Err(error) => tracing::warn!(%error, "the leader's key goes with its lease"),
        }
    }
}

/// A merger that leads. Dropped without [stepping down](Self::step_down), it leaves its key to the end of the lease.
pub struct Leadership {
    held: Arc<Held>,
    stop: CancellationToken,
    keeping: JoinHandle<()>,
}

impl Leadership {
    fn begin(held: Held) -> Self {
        let held = Arc::new(held);
        let stop = CancellationToken::new();
        let keeping = tokio::spawn({
            let (held, stop) = (Arc::clone(&held), stop.clone());
            async move {
                held.keep(stop.clone()).await;
                if !stop.is_cancelled() {
                    held.give_up().await;
                }
            }
        });
        Self {
            held,
            stop,
            keeping,
        }
    }

    /// The term, which every commit names.
    pub fn term(&self) -> &Term {
        &self.held.term
    }

    /// Whether this merger leads. Costs a look at the clock.
    pub fn is_leader(&self) -> bool {
        self.held.term.fence.is_open()
    }

    /// Resolves when this merger leads no more.
    pub async fn lost(&self) {
        self.held.term.fence.closed().await;
    }

    /// Lets another merger lead: no request to a node leaves any more, those under way end (or are cut off after 2 s, or with the
    /// lease), and the key is deleted.
    pub async fn step_down(self) {
        let fence = &self.held.term.fence;
        fence.shut();
        let over = async {
            tokio::select! {
                () = fence.drained() => {}
                () = fence.closed() => {}
            }
        };
        if timeout(DRAIN, over).await.is_err() {
            tracing::warn!("some requests to nodes were cut off");
        }
        let was_leader = fence.is_open();
        fence.close();
        self.stop.cancel();
        if was_leader {
            self.held.release().await;
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        // What deletes the key of a lease that is over goes on.
        if self.is_leader() {
            self.keeping.abort();
        }
    }
}

#[cfg(test)]
mod tests;
