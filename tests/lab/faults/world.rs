//! What the load shares: the cluster's address, the clock, the history, and what was seen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use tokio::sync::watch;
use weft_cluster::{Api, HarnessError, Reply};
use weft_routing::document_id::DocumentId;
use weft_routing::placement::{ShardId, SlotMap};

use super::check::{Violation, lost_task};
use super::history::{At, History, Outcome, Ticket};

/// How long a client waits for an answer before it calls the request failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a task is asked for: soon at first, as clients do, then rarely.
const FIRST_POLL: Duration = Duration::from_millis(20);
const LAST_POLL: Duration = Duration::from_millis(150);
/// A task that is unknown so many times in a row is lost, and not merely asked for in a bad moment.
const UNKNOWN: u32 = 10;

/// Which promise of writes is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Mode {
    /// All in-sync replicas.
    Sync,
    /// Most replicas.
    Quorum,
    /// One replica.
    Async,
}

impl Mode {
    /// The word that asks for it, where it isn't the default.
    fn wish(self) -> Option<&'static str> {
        match self {
            Self::Sync => None,
            Self::Quorum => Some("quorum"),
            Self::Async => Some("async"),
        }
    }
}

/// Whether the load runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Everybody works.
    Open,
    /// No new writes; reads go on.
    NoWrites,
    /// The run is over.
    Closed,
}

/// One read.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) began: At,
    pub(super) ended: At,
    pub(super) kind: ReadKind,
    /// Why it failed, if it did.
    pub(super) failure: Option<String>,
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadKind {
    /// A search over all shards.
    Search,
    /// A document by its id.
    Document,
    /// The same, of the shard that is about to be broken, in a steady beat.
    Beat,
}

/// Everything that writers, readers and checks share.
pub(super) struct World {
    pub(super) api: Api,
    mode: Mode,
    start: Instant,
    slots: SlotMap,
    history: Mutex<History>,
    reads: Mutex<Vec<Read>>,
    violations: Mutex<Vec<Violation>>,
    /// When which shard's beat of writes was acknowledged.
    beats: Mutex<Vec<At>>,
    under_way: AtomicU64,
    requests: AtomicU64,
    pub(super) gate: watch::Sender<Gate>,
}

impl World {
    pub(super) fn new(api: Api, shards: u16, mode: Mode) -> anyhow::Result<Arc<Self>> {
        let shards: Vec<ShardId> = (0..shards).map(ShardId).collect();
        Ok(Arc::new(Self {
            api,
            mode,
            start: Instant::now(),
            slots: SlotMap::deal(&shards)?,
            history: Mutex::default(),
            reads: Mutex::default(),
            violations: Mutex::default(),
            beats: Mutex::default(),
            under_way: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            gate: watch::Sender::new(Gate::NoWrites),
        }))
    }

    /// Since the run began.
    pub(super) fn now(&self) -> At {
        self.start.elapsed()
    }

    /// The shard that a document lies on.
    pub(super) fn shard_of(&self, id: &str) -> u16 {
        DocumentId::from_text(id).map_or(0, |id| self.slots.shard_of(&id).0)
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    pub(super) fn note_read(&self, read: Read) {
        lock(&self.reads).push(read);
    }

    pub(super) fn note(&self, violations: impl IntoIterator<Item = Violation>) {
        lock(&self.violations).extend(violations);
    }

    pub(super) fn note_beat(&self) {
        lock(&self.beats).push(self.now());
    }

    /// The reads since this was asked for last.
    pub(super) fn take_reads(&self) -> Vec<Read> {
        std::mem::take(&mut *lock(&self.reads))
    }

    /// The moments of acknowledged beats since this was asked for last.
    pub(super) fn take_beats(&self) -> Vec<At> {
        std::mem::take(&mut *lock(&self.beats))
    }

    /// What reads have shown that they should not, since this was asked for last.
    pub(super) fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut *lock(&self.violations))
    }

    /// Writes without an end yet.
    pub(super) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Waits until writing is allowed; `false` when the run is over.
    pub(super) async fn may_write(&self) -> bool {
        let mut gate = self.gate.subscribe();
        match gate.wait_for(|gate| *gate != Gate::NoWrites).await {
            Ok(gate) => *gate == Gate::Open,
            Err(_) => false,
        }
    }

    /// Whether the run is over.
    pub(super) fn closed(&self) -> bool {
        *self.gate.borrow() == Gate::Closed
    }

    /// A name for a request, by which the logs of Envoy and merger know it.
    pub(super) fn request_id(&self) -> String {
        format!("faults-{}", self.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// A request with a client's patience.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Asked {
        self.ask_as(&self.request_id(), method, path, body).await
    }

    /// The same under a name of its own.
    pub(super) async fn ask_as(
        &self,
        request_id: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Asked {
        let mut headers = vec![("x-request-id", request_id)];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let writes = method != Method::GET && !path.ends_with("/search");
        if let Some(wish) = self.mode.wish().filter(|_| writes) {
            headers.push(("x-weft-write", wish));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let send = self.api.send(method, path, &headers, body);
        match tokio::time::timeout(PATIENCE, send).await {
            Ok(answer) => answer.map_err(|error: HarnessError| error.line()),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// Sends a write and follows it to its end in the background, when it becomes a task. Gives what holds the writer's
    /// place until then.
    pub(super) async fn write(
        self: &Arc<Self>,
        tickets: Vec<Ticket>,
        (method, path, body): (Method, String, Option<Value>),
    ) -> Option<tokio::task::JoinHandle<bool>> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let answer = self.ask(method, &path, body.as_ref()).await;
        let outcome = match answer {
            Ok(reply) if reply.status == 202 => match reply.at("/taskUid").as_u64() {
                Some(task) => {
                    let mut history = self.history();
                    for ticket in &tickets {
                        history.accept(ticket, task);
                    }
                    drop(history);
                    let world = Arc::clone(self);
                    return Some(tokio::spawn(
                        async move { world.follow(tickets, task).await },
                    ));
                }
                None => Outcome::InDoubt(format!("202 without a task: {}", reply.text)),
            },
            Ok(reply) if (400..500).contains(&reply.status) => Outcome::Refused,
            Ok(reply) => Outcome::InDoubt(format!("{}: {}", reply.status, reply.text)),
            Err(error) => Outcome::InDoubt(error),
        };
        self.end(&tickets, &outcome);
        None
    }

    /// Asks for a task until it has settled; whether it succeeded.
    async fn follow(&self, tickets: Vec<Ticket>, task: u64) -> bool {
        let (mut wait, mut unknown) = (FIRST_POLL, 0);
        let outcome = loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LAST_POLL);
            let answer = self.ask(Method::GET, &format!("/tasks/{task}"), None).await;
            let Ok(reply) = answer else { continue };
            unknown = if reply.status == 404 { unknown + 1 } else { 0 };
            match reply.at("/status").as_str() {
                Some("succeeded") => break Outcome::Acknowledged(self.now()),
                Some("failed" | "canceled") => break Outcome::InDoubt(reply.text),
                _ if unknown >= UNKNOWN => {
                    let id = tickets.first().map(|ticket| ticket.id.as_str());
                    self.note([lost_task(task, id, &reply.text)]);
                    break Outcome::InDoubt(reply.text);
                }
                _ => {}
            }
        };
        self.end(&tickets, &outcome);
        matches!(outcome, Outcome::Acknowledged(_))
    }

    fn end(&self, tickets: &[Ticket], outcome: &Outcome) {
        let mut history = self.history();
        for ticket in tickets {
            history.end(ticket, outcome.clone());
        }
        drop(history);
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An answer, or why there is none.
pub(super) type Asked = Result<Reply, String>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
