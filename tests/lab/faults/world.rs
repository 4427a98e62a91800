//! What all parts of the load share: the cluster's address, the clock, the history, and the violations seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use tokio::sync::watch;
use weft_cluster::{Api, HarnessError, Reply};
use weft_routing::document_id::DocumentId;
use weft_routing::placement::{ShardId, SlotMap};

use super::check::{Violation, lost_task, task_given_twice};
use super::history::{At, History, Outcome, Ticket};

/// How long a client waits for an answer before it counts the request as failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How soon a task is first polled. Like clients, it polls often at first and then rarely.
const FIRST_POLL: Duration = Duration::from_millis(20);
const LAST_POLL: Duration = Duration::from_millis(150);
/// How many times in a row a task must be unknown to count as lost, since a single time may be a temporary error.
const UNKNOWN: u32 = 10;

/// The promise for writes that clients ask for.
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
    /// The value of the header for this mode; `None` for the default.
    fn header(self) -> Option<&'static str> {
        match self {
            Self::Sync => None,
            Self::Quorum => Some("quorum"),
            Self::Async => Some("async"),
        }
    }
}

/// The state of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Everything runs.
    Open,
    /// There are no new writes; reads continue.
    NoWrites,
    /// The run is over.
    Closed,
}

/// One read.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) began: At,
    pub(super) ended: At,
    /// The edge that was asked.
    pub(super) edge: usize,
    pub(super) kind: ReadKind,
    /// Why the read failed, if it did.
    pub(super) failure: Option<String>,
}

/// The kind of read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadKind {
    /// A search over all shards.
    Search,
    /// A document by its id.
    Document,
    /// A document by its id, at a steady interval, on the shard that is about to be broken.
    Beat,
}

/// Everything that writers, readers and checks share.
pub(super) struct World {
    /// A client of each Envoy. Requests are spread over all of them.
    edges: Vec<Api>,
    /// The edge that is being broken, or none of them.
    broken: AtomicUsize,
    mode: Mode,
    start: Instant,
    /// Where documents belong, as of the last time at which no slot moved.
    slots: Mutex<SlotMap>,
    history: Mutex<History>,
    reads: Mutex<Vec<Read>>,
    violations: Mutex<Vec<Violation>>,
    /// A document of each task.
    tasks: Mutex<BTreeMap<u64, String>>,
    /// When the steady writes to the affected shard were acknowledged.
    beats: Mutex<Vec<(At, usize)>>,
    under_way: AtomicU64,
    requests: AtomicU64,
    pub(super) gate: watch::Sender<Gate>,
}

impl World {
    pub(super) fn new(edges: Vec<Api>, shards: u16, mode: Mode) -> anyhow::Result<Arc<Self>> {
        let shards: Vec<ShardId> = (0..shards).map(ShardId).collect();
        Ok(Arc::new(Self {
            edges,
            broken: AtomicUsize::new(usize::MAX),
            mode,
            start: Instant::now(),
            slots: Mutex::new(SlotMap::deal(&shards)?),
            history: Mutex::default(),
            reads: Mutex::default(),
            violations: Mutex::default(),
            tasks: Mutex::default(),
            beats: Mutex::default(),
            under_way: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            gate: watch::Sender::new(Gate::NoWrites),
        }))
    }

    /// A client of the first Envoy.
    pub(super) fn api(&self) -> &Api {
        self.edge(0)
    }

    /// A client of each Envoy.
    pub(super) fn edges(&self) -> &[Api] {
        &self.edges
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "a cluster has at least one edge, and the remainder is below their number"
    )]
    fn edge(&self, number: usize) -> &Api {
        &self.edges[number % self.edges.len()]
    }

    /// The edge for the next request: each in its turn.
    pub(super) fn next_edge(&self) -> usize {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        usize::try_from(number).unwrap_or(0) % self.edges.len()
    }

    /// The same for who has a choice, and so avoids an edge that is being broken.
    fn next_working_edge(&self) -> usize {
        let edge = self.next_edge();
        match edge == self.broken.load(Ordering::Relaxed) {
            true => (edge + 1) % self.edges.len(),
            false => edge,
        }
    }

    /// Says which edge is being broken.
    pub(super) fn set_broken(&self, edge: Option<usize>) {
        self.broken
            .store(edge.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The time since the run began.
    pub(super) fn now(&self) -> At {
        self.start.elapsed()
    }

    /// The shard that owns a document.
    pub(super) fn shard_of(&self, id: &str) -> u16 {
        let id = DocumentId::from_text(id).ok();
        let shard = id.and_then(|id| lock(&self.slots).shard_of(&id));
        shard.map_or(0, |shard| shard.0)
    }

    /// The shard itself if it owns any slots, and otherwise one that does.
    pub(super) fn owner_or(&self, shard: u16) -> u16 {
        let slots = lock(&self.slots);
        let owners = slots.shards();
        match owners.contains(&ShardId(shard)) {
            true => shard,
            false => owners.first().map_or(shard, |owner| owner.0),
        }
    }

    /// Notes where documents belong after slots have moved.
    pub(super) fn set_slots(&self, slots: SlotMap) {
        *lock(&self.slots) = slots;
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

    pub(super) fn note_beat(&self, edge: usize) {
        lock(&self.beats).push((self.now(), edge));
    }

    /// The reads since the last call.
    pub(super) fn take_reads(&self) -> Vec<Read> {
        std::mem::take(&mut *lock(&self.reads))
    }

    /// The times and edges of acknowledged steady writes since the last call.
    pub(super) fn take_beats(&self) -> Vec<(At, usize)> {
        std::mem::take(&mut *lock(&self.beats))
    }

    /// Violations that reads have shown since the last call.
    pub(super) fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut *lock(&self.violations))
    }

    /// The number of open writes.
    pub(super) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Waits until writing is allowed; `false` if the run is over.
    pub(super) async fn may_write(&self) -> bool {
        let mut gate = self.gate.subscribe();
        match gate.wait_for(|gate| *gate != Gate::NoWrites).await {
            Ok(gate) => *gate == Gate::Open,
            Err(_) => false,
        }
    }

    /// True if the run is over.
    pub(super) fn closed(&self) -> bool {
        *self.gate.borrow() == Gate::Closed
    }

    /// A new id for a request, which the logs of Envoy and the merger contain.
    pub(super) fn request_id(&self) -> String {
        format!("faults-{}", self.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a request to an edge and waits as long as a client would.
    pub(super) async fn ask(
        &self,
        edge: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Asked {
        let request = (edge, self.request_id());
        self.ask_as((request.0, &request.1), method, path, body)
            .await
    }

    /// The same with a given request id.
    pub(super) async fn ask_as(
        &self,
        (edge, request_id): (usize, &str),
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Asked {
        let mut headers = vec![("x-request-id", request_id)];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let writes = method != Method::GET && !path.ends_with("/search");
        if let Some(mode) = self.mode.header().filter(|_| writes) {
            headers.push(("x-weft-write", mode));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let send = self.edge(edge).send(method, path, &headers, body);
        match tokio::time::timeout(PATIENCE, send).await {
            Ok(answer) => answer.map_err(|error: HarnessError| error.line()),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// Sends a write to the next edge. If it becomes a task, follows the task to its end in the background. Returns the handle
    /// with which the writer waits for that.
    pub(super) async fn write(
        self: &Arc<Self>,
        tickets: Vec<Ticket>,
        request: (Method, String, Option<Value>),
    ) -> Option<tokio::task::JoinHandle<bool>> {
        self.write_at(self.next_edge(), tickets, request).await
    }

    /// The same at a given edge.
    pub(super) async fn write_at(
        self: &Arc<Self>,
        edge: usize,
        tickets: Vec<Ticket>,
        (method, path, body): (Method, String, Option<Value>),
    ) -> Option<tokio::task::JoinHandle<bool>> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let answer = self.ask(edge, method, &path, body.as_ref()).await;
        let outcome = match answer {
            Ok(reply) if reply.status == 202 => match reply.at("/taskUid").as_u64() {
                Some(task) => {
                    let mut history = self.history();
                    for ticket in &tickets {
                        history.accept(ticket, task);
                    }
                    drop(history);
                    self.note_task(task, &tickets);
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

    /// Polls a task until it has settled; true if it succeeded.
    async fn follow(&self, tickets: Vec<Ticket>, task: u64) -> bool {
        let (mut wait, mut unknown) = (FIRST_POLL, 0);
        let outcome = loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LAST_POLL);
            let path = format!("/tasks/{task}");
            let edge = self.next_working_edge();
            let answer = self.ask(edge, Method::GET, &path, None).await;
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

    /// Notes a task's uid, which must be new.
    fn note_task(&self, task: u64, tickets: &[Ticket]) {
        let id = tickets.first().map_or("", |ticket| ticket.id.as_str());
        let before = lock(&self.tasks).insert(task, id.to_owned());
        self.note(before.map(|other| task_given_twice(task, &other, id)));
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

/// An answer, or the reason why there is none.
pub(super) type Asked = Result<Reply, String>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
