//! An etcd for tests: in memory, on tokio's clock, with connections that lose requests and answers.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{
    Action, Ask, Condition, Entry, Etcd, EtcdError, Granted, MOST_OPERATIONS, Outcome, Page,
    Transaction,
};

/// etcd's default, in bytes.
const MOST_REQUEST: usize = 1_572_864;
/// How many revisions before the newest can still be read.
const HISTORY: usize = 64;
/// etcd grants no shorter lease.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);

type Entries = BTreeMap<String, Entry>;
/// A key, and what it had; `None` if there was no such key.
type Before = (String, Option<Entry>);

/// The server. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Simulated(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    entries: Entries,
    revision: i64,
    /// By revision, what the keys had before that were written in it; the last ones, without a gap.
    history: BTreeMap<i64, Vec<Before>>,
    /// The same for the revision that is being written.
    changed: Vec<Before>,
    leases: HashMap<i64, (Instant, Duration)>,
    next_lease: i64,
    /// Whether its disk is full: nothing is written.
    full: bool,
    transactions: usize,
}

impl State {
    fn expire(&mut self) {
        let now = Instant::now();
        let over = |(until, _): &(Instant, Duration)| *until <= now;
        let gone: Vec<i64> = self
            .leases
            .iter()
            .filter(|(_, lease)| over(lease))
            .map(|(id, _)| *id)
            .collect();
        gone.into_iter().for_each(|lease| self.end(lease));
    }

    fn end(&mut self, lease: i64) {
        self.leases.remove(&lease);
        if self.remove(|entry| entry.lease == lease) {
            self.written();
        }
    }

    /// Removes some entries; `false` if there are none.
    fn remove(&mut self, goes: impl Fn(&Entry) -> bool) -> bool {
        let gone = self.entries.extract_if(.., |_, entry| goes(entry));
        let gone: Vec<Before> = gone.map(|(key, entry)| (key, Some(entry))).collect();
        let any = !gone.is_empty();
        self.changed.extend(gone);
        any
    }

    fn written(&mut self) {
        self.revision += 1;
        let changed = std::mem::take(&mut self.changed);
        self.history.insert(self.revision, changed);
        while self.history.len() > HISTORY {
            self.history.pop_first();
        }
    }

    /// What was there after this revision.
    fn entries_at(&self, revision: i64) -> Result<Cow<'_, Entries>, EtcdError> {
        let later = self.history.range(revision + 1..);
        if self.revision - revision != i64::try_from(later.clone().count()).unwrap_or(i64::MAX) {
            return Err(EtcdError::Compacted);
        }
        let mut entries = Cow::Borrowed(&self.entries);
        for (key, before) in later.rev().flat_map(|(_, changed)| changed.iter().rev()) {
            match before {
                Some(entry) => drop(entries.to_mut().insert(key.clone(), entry.clone())),
                None => drop(entries.to_mut().remove(key)),
            }
        }
        Ok(entries)
    }

    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Created(key, revision) => {
                self.entries.get(key).map_or(0, |entry| entry.created) == *revision
            }
            Condition::Version(key, version) => {
                self.entries.get(key).map_or(0, |entry| entry.version) == *version
            }
            Condition::Value(key, value) => self
                .entries
                .get(key)
                .is_some_and(|entry| entry.value == *value),
        }
    }

    fn transact(&mut self, transaction: &Transaction) -> Result<Outcome, EtcdError> {
        self.expire();
        self.transactions += 1;
        check(transaction)?;
        let held = transaction.when.iter().all(|when| self.holds(when));
        let actions = match held {
            true => &transaction.then,
            false => &transaction.otherwise,
        };
        let writes = actions.iter().any(|action| !action.reads());
        if writes && self.full {
            return Err(EtcdError::Refused("database space exceeded".into()));
        }
        let missing = actions.iter().any(|action| {
            matches!(action, Action::Put { lease, .. } if *lease != 0 && !self.leases.contains_key(lease))
        });
        if missing {
            return Err(EtcdError::Refused("requested lease not found".into()));
        }
        let mut found = Vec::new();
        for action in actions {
            match action {
                Action::Put { key, value, lease } => {
                    let before = self.entries.get(key);
                    let entry = Entry {
                        key: key.clone(),
                        value: value.clone(),
                        version: before.map_or(0, |entry| entry.version) + 1,
                        created: before.map_or(self.revision + 1, |entry| entry.created),
                        lease: *lease,
                    };
                    let before = self.entries.insert(key.clone(), entry);
                    self.changed.push((key.clone(), before));
                }
                Action::Delete(key) => {
                    let before = self.entries.remove_entry(key);
                    let before = before.map(|(key, entry)| (key, Some(entry)));
                    self.changed.extend(before);
                }
                Action::DeleteAll(prefix) => {
                    self.remove(|entry| entry.key.starts_with(prefix));
                }
                Action::Get(key) => found.push(self.entries.get(key).cloned()),
                Action::GetVersion(key) => {
                    let entry = self.entries.get(key).cloned();
                    found.push(entry.map(|entry| Entry {
                        value: Vec::new(),
                        ..entry
                    }));
                }
            }
        }
        if writes {
            self.written();
        }
        Ok(Outcome { held, found })
    }

    fn page(&mut self, ask: &Ask) -> Result<Page, EtcdError> {
        self.expire();
        let revision = match ask.revision {
            0 => self.revision,
            revision => revision,
        };
        let entries = self.entries_at(revision)?;
        let mut found: Vec<Entry> = entries
            .range(ask.from.clone()..)
            .take_while(|(key, _)| key.starts_with(&ask.prefix))
            .map(|(_, entry)| entry.clone())
            .take(ask.limit + 1)
            .collect();
        let more = found.len() > ask.limit;
        found.truncate(ask.limit);
        if found.iter().map(|entry| entry.value.len()).sum::<usize>() > 4 * MOST_REQUEST {
            return Err(EtcdError::TooMuch);
        }
        Ok(Page {
            entries: found,
            more,
            revision,
        })
    }
}

/// What the real one refuses.
fn check(transaction: &Transaction) -> Result<(), EtcdError> {
    let Transaction {
        when,
        then,
        otherwise,
    } = transaction;
    let most = when.len().max(then.len()).max(otherwise.len());
    if most > MOST_OPERATIONS {
        return Err(EtcdError::Refused("too many operations".into()));
    }
    let (mut bytes, mut keys) = (0, std::collections::HashSet::new());
    for action in then.iter().chain(otherwise) {
        match action {
            Action::Put { key, value, .. } => {
                bytes += key.len() + value.len();
                if !keys.insert(key) {
                    return Err(EtcdError::Refused("duplicate key given".into()));
                }
            }
            Action::Delete(key) => bytes += key.len(),
            _ => {}
        }
    }
    match bytes > MOST_REQUEST {
        true => Err(EtcdError::Refused("request is too large".into())),
        false => Ok(()),
    }
}

impl Simulated {
    /// A connection, with a seed for what happens on it.
    pub(crate) fn line(&self, seed: u64) -> Line {
        Line {
            server: self.clone(),
            weather: Arc::new(Mutex::new(Weather {
                random: fastrand::Rng::with_seed(seed),
                trouble: 0,
                cut: false,
            })),
        }
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Forgets all revisions but the newest.
    pub(crate) fn forget_history(&self) {
        self.lock().history.clear();
    }

    pub(crate) fn transactions(&self) -> usize {
        self.lock().transactions
    }

    /// All entries whose keys begin with this.
    pub(crate) fn entries(&self, prefix: &str) -> Vec<Entry> {
        let mut state = self.lock();
        state.expire();
        let found = state.entries.values();
        let found = found.filter(|entry| entry.key.starts_with(prefix));
        found.cloned().collect()
    }

    /// Does something at once, as somebody with another connection would.
    pub(crate) fn act(&self, then: Vec<Action>) {
        let transaction = Transaction {
            then,
            ..Transaction::default()
        };
        self.lock().transact(&transaction).unwrap();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's connection. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Line {
    server: Simulated,
    weather: Arc<Mutex<Weather>>,
}

struct Weather {
    random: fastrand::Rng,
    /// How many of a hundred requests get no answer, or a slow one.
    trouble: u8,
    cut: bool,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It is done at once, and the answer comes just in time.
    Slow,
    /// It never arrives.
    Lost,
    /// It is done, and the answer never arrives.
    Unheard,
    /// It is done long after the client has given up.
    Late,
}

impl Line {
    /// Sets how many of a hundred requests get no answer, or a slow one.
    pub(crate) fn set_trouble(&self, percent: u8) {
        self.weather().trouble = percent;
    }

    /// Sets whether nothing goes through.
    pub(crate) fn set_cut(&self, cut: bool) {
        self.weather().cut = cut;
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of a request, how long it is on its way, and how late it is if it is late.
    fn fate(&self) -> (Fate, Duration, Duration) {
        let mut weather = self.weather();
        let trouble = weather.random.u8(0..100) < weather.trouble;
        let fate = match weather.random.u8(0..4) {
            _ if weather.cut => Fate::Lost,
            _ if !trouble => Fate::Answered,
            0 => Fate::Lost,
            1 => Fate::Unheard,
            2 => Fate::Slow,
            _ => Fate::Late,
        };
        let way = Duration::from_micros(weather.random.u64(100..3_000));
        let late = Duration::from_millis(weather.random.u64(0..3_000));
        (fate, way, late)
    }

    async fn send<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl FnOnce(&mut State) -> Result<T, EtcdError> + Send + 'static,
    ) -> Result<T, EtcdError> {
        let silence = || EtcdError::NoAnswer("simulated".into());
        let (fate, way, late) = self.fate();
        if fate == Fate::Lost {
            tokio::time::sleep(within).await;
            return Err(silence());
        }
        if fate == Fate::Late {
            let server = self.server.clone();
            tokio::spawn(async move {
                tokio::time::sleep(within + late).await;
                let _ = work(&mut server.lock());
            });
            tokio::time::sleep(within).await;
            return Err(silence());
        }
        tokio::time::sleep(way).await;
        let outcome = work(&mut self.server.lock());
        if fate == Fate::Unheard {
            tokio::time::sleep(within).await;
            return Err(silence());
        }
        let back = match fate {
            Fate::Slow => within * 9 / 10,
            _ => way,
        };
        tokio::time::sleep(back).await;
        outcome
    }
}

impl Etcd for Line {
    fn transact(
        &self,
        transaction: Transaction,
        within: Duration,
    ) -> BoxFuture<'_, Result<Outcome, EtcdError>> {
        Box::pin(self.send(within, move |state| state.transact(&transaction)))
    }

    fn page(&self, ask: Ask, within: Duration) -> BoxFuture<'_, Result<Page, EtcdError>> {
        Box::pin(self.send(within, move |state| state.page(&ask)))
    }

    fn grant(&self, seconds: u32, within: Duration) -> BoxFuture<'_, Result<Granted, EtcdError>> {
        Box::pin(self.send(within, move |state| {
            state.next_lease += 1;
            let lasts = Duration::from_secs(seconds.into()).max(SHORTEST_LEASE);
            let id = state.next_lease;
            state.leases.insert(id, (Instant::now() + lasts, lasts));
            Ok(Granted { id, lasts })
        }))
    }

    fn renew(&self, lease: i64, within: Duration) -> BoxFuture<'_, Result<bool, EtcdError>> {
        Box::pin(self.send(within, move |state| {
            state.expire();
            let Some((until, lasts)) = state.leases.get_mut(&lease) else {
                return Ok(false);
            };
            *until = Instant::now() + *lasts;
            Ok(true)
        }))
    }

    fn time_left(
        &self,
        lease: i64,
        within: Duration,
    ) -> BoxFuture<'_, Result<Option<Duration>, EtcdError>> {
        Box::pin(self.send(within, move |state| {
            state.expire();
            let found = state.leases.get(&lease);
            Ok(found.map(|(until, _)| until.saturating_duration_since(Instant::now())))
        }))
    }

    fn revoke(&self, lease: i64, within: Duration) -> BoxFuture<'_, Result<(), EtcdError>> {
        Box::pin(self.send(within, move |state| {
            state.end(lease);
            Ok(())
        }))
    }

    fn compact(&self, revision: i64, within: Duration) -> BoxFuture<'_, Result<(), EtcdError>> {
        Box::pin(self.send(within, move |state| {
            state.history.retain(|kept, _| *kept > revision);
            Ok(())
        }))
    }
}
