//! Who is there: a key for each merger, with a lease.
//!
//! A follower registers, then reads the state, and then answers reads. It tells what it has applied of the state, and renews its
//! lease only after it has read the state again: a follower that can't hear etcd loses its registration, and stops answering before
//! that. So the leader, which waits for all registrations, waits for no longer than a lease.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::Times;
use crate::clock::now_utc;
use crate::etcd::{
    ANSWER_WITHIN, Action, Ask, Condition, Etcd, EtcdError, Page, Prefix, Transaction, get,
};
use crate::fence::Fence;

/// The most mergers that are read at once.
const MOST_MERGERS: usize = 1_000;

/// A merger as it stands in etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// A new one for each process.
    pub id: String,
    /// Where other mergers' Envoys reach it.
    pub address: SocketAddr,
    /// Whether it leads.
    #[serde(default)]
    pub leads: bool,
    /// Since when it leads or follows.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Whether any node answers it.
    #[serde(default)]
    pub reaches_nodes: bool,
    /// Names of nodes that are out of sync, and that answer it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hears: Vec<String>,
    /// How many changes of the state it has applied.
    #[serde(default)]
    pub applied: u64,
    /// No read through its Envoy gets to a replica that is out of sync as of this epoch of the in-sync set.
    #[serde(default)]
    pub in_sync_epoch: u64,
    /// The epoch of the routing table that it serves.
    #[serde(default)]
    pub table_epoch: u64,
    /// Whether it is about to end, and answers nothing any more.
    #[serde(default)]
    pub leaving: bool,
}

impl Registration {
    /// A merger that has applied nothing yet.
    pub fn new(id: String, address: SocketAddr) -> Self {
        Self {
            id,
            address,
            leads: false,
            reaches_nodes: false,
            hears: Vec::new(),
            since: now_utc(),
            applied: 0,
            in_sync_epoch: 0,
            table_epoch: 0,
            leaving: false,
        }
    }
}

/// The list of all mergers.
#[derive(Clone)]
pub struct Roll {
    etcd: Arc<dyn Etcd>,
    prefix: Prefix,
}

/// The list, and what to compare it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// All mergers, each with what its lease has left.
    pub mergers: Vec<(Registration, Option<Duration>)>,
    /// How many changes the state has had.
    pub changes: u64,
}

impl Roll {
    /// Below this prefix.
    pub fn new(etcd: Arc<dyn Etcd>, prefix: Prefix) -> Self {
        Self { etcd, prefix }
    }

    /// All registrations, as of a moment after the call.
    ///
    /// # Errors
    /// etcd didn't answer.
    pub async fn registrations(&self) -> Result<Vec<Registration>, EtcdError> {
        let entries = self.entries().await?;
        Ok(entries.into_iter().map(|(merger, _)| merger).collect())
    }

    /// All registrations with what people want to know beside.
    ///
    /// # Errors
    /// etcd didn't answer.
    pub async fn read(&self) -> Result<Seen, EtcdError> {
        let mut mergers = Vec::new();
        for (merger, lease) in self.entries().await? {
            let left = self.etcd.time_left(lease, ANSWER_WITHIN).await?;
            mergers.push((merger, left));
        }
        #[derive(Deserialize)]
        struct Journal {
            count: u64,
        }
        let journal = get(&*self.etcd, self.prefix.journal()).await?;
        let journal = journal.and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let changes = journal.map_or(0, |Journal { count }| count);
        Ok(Seen { mergers, changes })
    }

    async fn entries(&self) -> Result<Vec<(Registration, i64)>, EtcdError> {
        let ask = Ask {
            from: self.prefix.merger(""),
            prefix: self.prefix.merger(""),
            limit: MOST_MERGERS,
            revision: 0,
        };
        let Page { entries, .. } = self.etcd.page(ask, ANSWER_WITHIN).await?;
        let read = entries.into_iter().map(|entry| {
            serde_json::from_slice(&entry.value)
                .map(|merger| (merger, entry.lease))
                .map_err(|_| EtcdError::Refused(format!("`{}` can't be read", entry.key)))
        });
        read.collect()
    }
}

/// This merger's registration.
pub struct Membership {
    etcd: Arc<dyn Etcd>,
    key: String,
    lease: i64,
    times: Times,
    /// How long the registration holds after a renewal was sent: the lease without the margin.
    holds_for: Duration,
    created: i64,
    fence: Fence,
    said: Mutex<Registration>,
}

impl Membership {
    /// Registers.
    ///
    /// # Errors
    /// etcd didn't answer.
    pub async fn join(
        etcd: Arc<dyn Etcd>,
        prefix: &Prefix,
        registration: Registration,
        lease: Duration,
    ) -> Result<Self, EtcdError> {
        let times = Times { lease };
        let key = prefix.merger(&registration.id);
        let asked = Instant::now();
        let granted = etcd.grant(times.seconds(), ANSWER_WITHIN).await?;
        // The key is made anew: what this process said of itself before, and what is still on its way, names the old one.
        let forget = Transaction {
            then: vec![Action::Delete(key.clone())],
            ..Transaction::default()
        };
        etcd.transact(forget, ANSWER_WITHIN).await?;
        let put = Transaction {
            then: vec![put(&key, &registration, granted.id)],
            ..Transaction::default()
        };
        etcd.transact(put, ANSWER_WITHIN).await?;
        let entry = get(&*etcd, key.clone()).await?;
        let entry = entry.filter(|entry| entry.lease == granted.id);
        let gone = || EtcdError::NoAnswer("it took longer than the lease".into());
        let created = entry.ok_or_else(gone)?.created;
        let lasts = lease.min(granted.lasts);
        let holds_for = lasts.saturating_sub(times.margin());
        Ok(Self {
            etcd,
            key,
            lease: granted.id,
            times,
            holds_for,
            created,
            fence: Fence::until(asked + holds_for),
            said: Mutex::new(registration),
        })
    }

    /// Until when the registration holds, as far as this merger knows. Closed for good once it is lost.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// From one renewal to the next.
    pub fn renewed_every(&self) -> Duration {
        self.times.renewed_every()
    }

    /// Renews the lease; `false` if the registration is gone.
    ///
    /// # Errors
    /// etcd didn't answer.
    pub async fn renew(&self) -> Result<bool, EtcdError> {
        let asked = Instant::now();
        let within = self.times.answer_within();
        let held = self.etcd.renew(self.lease, within).await?
            && self.etcd.transact(self.if_mine(vec![]), within).await?.held;
        if !held {
            self.fence.close();
        }
        Ok(held && self.fence.extend(asked + self.holds_for))
    }

    /// Tells what this merger has applied, if that is new; `false` if the registration is gone.
    ///
    /// # Errors
    /// etcd didn't answer, and what was told before may still stand.
    pub async fn tell(&self, change: impl FnOnce(&mut Registration)) -> Result<bool, EtcdError> {
        let mut registration = self.said().clone();
        change(&mut registration);
        if registration == *self.said() {
            return Ok(true);
        }
        self.say(registration).await
    }

    /// Tells this, whatever was told before; `false` if the registration is gone.
    ///
    /// # Errors
    /// As [`tell`](Self::tell).
    pub async fn say(&self, registration: Registration) -> Result<bool, EtcdError> {
        let then = vec![put(&self.key, &registration, self.lease)];
        let within = ANSWER_WITHIN;
        let held = self.etcd.transact(self.if_mine(then), within).await?.held;
        match held {
            true => *self.said() = registration,
            false => self.fence.close(),
        }
        Ok(held)
    }

    /// What was last told.
    pub fn registration(&self) -> Registration {
        self.said().clone()
    }

    /// Says that this merger answers nothing any more. The registration goes with its lease.
    pub async fn leave(&self) {
        self.fence.close();
        let left = self.tell(|registration| registration.leaving = true).await;
        if let Err(error) = left {
            tracing::warn!(%error, "the other mergers are not told that this one ends");
        }
    }

    fn if_mine(&self, then: Vec<Action>) -> Transaction {
        Transaction {
            when: vec![Condition::Created(self.key.clone(), self.created)],
            then,
            otherwise: Vec::new(),
        }
    }

    fn said(&self) -> MutexGuard<'_, Registration> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(key: &str, registration: &Registration, lease: i64) -> Action {
    Action::Put {
        key: key.to_owned(),
        value: serde_json::to_vec(registration).unwrap_or_default(),
        lease,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::simulated::Simulated;

    const LEASE: Duration = Duration::from_secs(3);

    async fn join(server: &Simulated, id: &str, seed: u64) -> Membership {
        let line = Arc::new(server.line(seed));
        let registration = Registration::new(id.to_owned(), ([127, 0, 0, 1], 1).into());
        Membership::join(line, &"/weft".parse().unwrap(), registration, LEASE)
            .await
            .unwrap()
    }

    async fn seen(server: &Simulated) -> Vec<(String, u64, bool)> {
        let roll = Roll::new(Arc::new(server.line(9)), "/weft".parse().unwrap());
        let all = roll.registrations().await.unwrap().into_iter();
        all.map(|one| (one.id, one.in_sync_epoch, one.leaving))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn others_see_what_a_merger_tells_until_its_lease_ends() {
        let server = Simulated::default();
        let (a, b) = (join(&server, "a", 1).await, join(&server, "b", 2).await);
        assert!(a.tell(|one| one.in_sync_epoch = 7).await.unwrap());
        for _ in 0..4 {
            tokio::time::sleep(LEASE / 2).await;
            assert!(a.renew().await.unwrap());
        }
        assert_eq!(seen(&server).await, [("a".to_owned(), 7, false)]);
        assert!(
            !b.fence().is_open(),
            "it has stopped before its lease ended"
        );
        assert!(!b.renew().await.unwrap());
        assert!(!b.tell(|one| one.in_sync_epoch = 8).await.unwrap());
        assert_eq!(seen(&server).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_says_so() {
        let server = Simulated::default();
        let a = join(&server, "a", 1).await;
        a.leave().await;
        assert!(!a.fence().is_open());
        assert_eq!(seen(&server).await, [("a".to_owned(), 0, true)]);
        tokio::time::sleep(LEASE * 2).await;
        assert!(seen(&server).await.is_empty());
    }
}
