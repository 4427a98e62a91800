//! Writers and readers on every Envoy, and what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use weft_cluster::{Api, Cluster, Deadline, Reply, until};

/// The index that is written.
pub(super) const INDEX: &str = "load";

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where it can ask elsewhere, or doesn't need the answer.
const SHORT: Duration = Duration::from_secs(1);
/// How often a client writes, whether its earlier writes were answered or not: one that hangs doesn't keep the next ones back.
const BEAT: Duration = Duration::from_millis(150);
/// The most writes of a client that may be on their way.
const UNDER_WAY: usize = 200;
/// The pause of a client after an answer, and before the next attempt after a refusal.
const STEP: Duration = Duration::from_millis(20);
/// How many answers in a row that a task is unknown make it a lost one; fewer are stale.
const UNKNOWN: usize = 12;
/// How long a task that was accepted may take until it has settled, faults included.
const SETTLES_WITHIN: Duration = Duration::from_secs(90);

/// What all clients were told.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// The document of each task.
    tasks: BTreeMap<u64, u64>,
    /// Task uids that were given to two documents.
    twice: Vec<(u64, u64, u64)>,
    /// Tasks that are unknown, that failed, or that never settled.
    lost: Vec<String>,
    /// The documents whose tasks have succeeded.
    acknowledged: BTreeSet<u64>,
    /// Reads that didn't show what was acknowledged before.
    stale: Vec<String>,
    /// When writes were accepted, by edge.
    accepted: Vec<(usize, Instant)>,
    /// When reads were sent, by edge, and why they failed, if they did.
    reads: Vec<(usize, Instant, Option<String>)>,
}

/// The clients.
pub(super) struct Load {
    noted: Arc<Mutex<Noted>>,
    edges: Vec<Api>,
    goes_on: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Load {
    /// Makes the index, and starts a writer and a reader on each edge.
    pub(super) async fn start(cluster: &Cluster) -> Self {
        let edges = cluster.edges();
        let made = json!({"uid": INDEX, "primaryKey": "id"});
        let made = edges[0].post("/indexes", &made).await.unwrap();
        edges[0].succeed(&made).await.unwrap();
        let mut load = Self {
            noted: Arc::default(),
            edges,
            goes_on: watch::Sender::new(true),
            clients: JoinSet::new(),
        };
        for edge in 0..load.edges.len() {
            let client = |number| Client {
                noted: Arc::clone(&load.noted),
                edges: load.edges.clone(),
                edge,
                goes_on: load.goes_on.subscribe(),
                next: number * 1_000_000,
            };
            load.clients.spawn(client(edge as u64 + 1).write());
            load.clients.spawn(client(0).read());
        }
        load
    }

    pub(super) fn noted(&self) -> MutexGuard<'_, Noted> {
        lock(&self.noted)
    }

    /// Waits until each edge has accepted some more writes and answered some more reads.
    pub(super) async fn wait_for_progress(&mut self) {
        for edge in 0..self.edges.len() {
            self.wait_for_progress_of(edge).await;
        }
    }

    pub(super) async fn wait_for_progress_of(&self, edge: usize) {
        let begun = Instant::now();
        let deadline = Deadline::after(Duration::from_secs(60));
        until(&format!("writes through edge {edge}"), deadline, || async {
            let noted = self.noted();
            let accepted = noted.accepted.iter();
            let accepted = accepted.filter(|(by, at)| *by == edge && *at > begun);
            let read = noted.reads.iter();
            let read =
                read.filter(|(by, at, failed)| *by == edge && *at > begun && failed.is_none());
            match (accepted.count(), read.count()) {
                (3.., 3..) => Ok(()),
                (writes, reads) => {
                    let last = noted.reads.iter().rev().find(|(by, ..)| *by == edge);
                    Err(format!("{writes} writes, {reads} reads, last: {last:?}"))
                }
            }
        })
        .await
        .unwrap();
    }

    /// Waits for the next acknowledged write through any edge.
    pub(super) async fn wait_for_a_write(&self) {
        let before = self.noted().accepted_writes();
        let deadline = Deadline::after(Duration::from_secs(60));
        until("a write", deadline, || async {
            match self.noted().accepted_writes() {
                now if now > before => Ok(()),
                now => Err(format!("{now} so far")),
            }
        })
        .await
        .unwrap();
    }

    /// Ends the load once every accepted write has settled.
    pub(super) async fn end(&mut self) -> Noted {
        self.goes_on.send_replace(false);
        while let Some(client) = self.clients.join_next().await {
            client.unwrap();
        }
        std::mem::take(&mut *self.noted())
    }
}

impl Noted {
    /// Checks that no uid was given twice, no task was lost, and no read was stale.
    pub(super) fn assert_sound(&self) {
        assert_eq!(self.twice, [], "task uids that were given twice");
        assert_eq!(self.lost, [] as [&str; 0], "lost tasks");
        assert_eq!(self.stale, [] as [&str; 0], "stale reads");
        assert!(self.acknowledged.len() > 10, "hardly anything was written");
    }

    pub(super) fn assert_all_there(&self, documents: &[Value], place: &str) {
        let there: BTreeSet<u64> = documents
            .iter()
            .filter_map(|document| document["id"].as_u64())
            .collect();
        let missing: Vec<&u64> = self.acknowledged.difference(&there).collect();
        assert!(missing.is_empty(), "{place} lacks {missing:?}");
    }

    /// How many writes were accepted.
    pub(super) fn accepted_writes(&self) -> usize {
        self.accepted.len()
    }

    /// The longest time without an accepted write through any of these edges that ended after `since`.
    pub(super) fn longest_pause(&self, edges: &[usize], since: Instant) -> Duration {
        let mut last = since;
        let mut longest = Duration::ZERO;
        let mut accepted: Vec<Instant> = self
            .accepted
            .iter()
            .filter(|(edge, at)| edges.contains(edge) && *at > since)
            .map(|(_, at)| *at)
            .collect();
        accepted.sort_unstable();
        for at in accepted {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    }

    /// The reads through these edges since then: how many, and why they failed that did.
    pub(super) fn reads(&self, edges: &[usize], since: Instant) -> (usize, Vec<&str>) {
        let reads = self.reads.iter();
        let reads: Vec<_> = reads
            .filter(|(edge, at, _)| edges.contains(edge) && *at >= since)
            .collect();
        let failed = reads.iter().filter_map(|(_, _, failed)| failed.as_deref());
        (reads.len(), failed.collect())
    }

    /// Checks that at most one in a hundred reads through these edges failed since then, or two if they were few. The promise is one
    /// in a thousand: the table of `make faults` shows that, with more reads and fewer neighbours on the machine.
    pub(super) fn assert_reads_went_on(&self, edges: &[usize], since: Instant) {
        let (asked, failed) = self.reads(edges, since);
        assert!(asked > 20, "only {asked} reads");
        assert!(
            failed.len() <= (asked / 100).max(2),
            "{} of {asked} reads failed: {failed:?}",
            failed.len(),
        );
    }
}

/// One client, which has an edge of its own and knows the others.
#[derive(Clone)]
struct Client {
    noted: Arc<Mutex<Noted>>,
    edges: Vec<Api>,
    edge: usize,
    goes_on: watch::Receiver<bool>,
    next: u64,
}

impl Client {
    /// Writes new documents at a steady pace.
    async fn write(mut self) {
        let mut under_way = JoinSet::new();
        let mut next = tokio::time::Instant::now();
        while *self.goes_on.borrow() {
            self.next += 1;
            let (client, id) = (self.clone(), self.next);
            under_way.spawn(async move { client.write_one(id).await });
            while under_way.len() >= UNDER_WAY {
                under_way.join_next().await.unwrap().unwrap();
            }
            next += BEAT;
            tokio::time::sleep_until(next).await;
        }
        while let Some(ended) = under_way.join_next().await {
            ended.unwrap();
        }
    }

    /// Writes one document. If that becomes a task, waits for its end.
    async fn write_one(&self, id: u64) {
        let path = format!("/indexes/{INDEX}/documents");
        let document = json!([{"id": id, "name": format!("amber number {id}")}]);
        let answer = ask(PATIENCE, self.edges[self.edge].post(&path, &document)).await;
        let task = answer.ok().and_then(|reply| reply.at("/taskUid").as_u64());
        if let Some(task) = task {
            self.note(|noted| noted.accepted(self.edge, task, id));
            self.follow(task, id).await;
        }
    }

    /// Waits for a task's end, and reads the document through every edge.
    async fn follow(&self, task: u64, id: u64) {
        match self.settles(task).await {
            Ok(()) => {
                self.note(|noted| noted.acknowledged.insert(id));
                self.read_back(id).await;
            }
            Err(why) => self.note(|noted| noted.lost.push(why)),
        }
    }

    /// Waits for a task, asking every edge in turn: some of them may be dead.
    async fn settles(&self, task: u64) -> Result<(), String> {
        let deadline = Deadline::after(SETTLES_WITHIN);
        let mut last = "no edge answers".to_owned();
        let mut unknown = Vec::new();
        for edge in self.edges.iter().cycle().skip(self.edge) {
            if let Ok(reply) = ask(SHORT, edge.get(&format!("/tasks/{task}"))).await {
                match reply.at("/status").as_str() {
                    Some("succeeded") => {
                        self.note(|noted| noted.stale.extend(unknown));
                        return Ok(());
                    }
                    Some("failed" | "canceled") => return Err(reply.text),
                    _ if reply.status == 404 => {
                        let line = format!("{}: task {task}: {}", edge.base(), reply.text);
                        if unknown.len() >= UNKNOWN {
                            return Err(line);
                        }
                        unknown.push(line);
                    }
                    _ => last = reply.text,
                }
            }
            if deadline.passed() {
                break;
            }
            tokio::time::sleep(STEP).await;
        }
        Err(format!("task {task} never settled: {last}"))
    }

    /// Reads a document that was acknowledged, through every edge. No answer is no lie.
    async fn read_back(&self, id: u64) {
        let document = format!("/indexes/{INDEX}/documents/{id}");
        let search = format!("/indexes/{INDEX}/search");
        let query = json!({"q": format!("\"number {id}\""), "limit": 5});
        let reads = self.edges.iter().map(|edge| async {
            let by_id = ask(SHORT, edge.get(&document)).await;
            let by_id = by_id.ok().filter(|reply| reply.status == 404);
            let found = ask(SHORT, edge.post(&search, &query)).await;
            let found = found.ok().filter(|reply| {
                let hits = reply.at("/hits").as_array();
                hits.is_some_and(|hits| hits.iter().all(|hit| hit["id"] != id))
            });
            let lacking = by_id.into_iter().chain(found);
            let lines = lacking.map(|reply| format!("{}: {id}: {}", edge.base(), reply.text));
            lines.collect::<Vec<_>>()
        });
        let lines = futures_util::future::join_all(reads).await.concat();
        self.note(|noted| noted.stale.extend(lines));
    }

    /// Searches all the time.
    async fn read(self) {
        let edge = &self.edges[self.edge];
        while *self.goes_on.borrow() {
            let sent = Instant::now();
            let path = format!("/indexes/{INDEX}/search?q=amber&limit=3");
            let failed = match ask(PATIENCE, edge.get(&path)).await {
                Ok(reply) if reply.status == 200 => None,
                Ok(reply) => Some(format!(
                    "edge {} {:?}: {} {:?}: {}",
                    self.edge,
                    std::time::SystemTime::now(),
                    reply.status,
                    reply.headers,
                    reply.text
                )),
                Err(why) => Some(why),
            };
            self.note(|noted| noted.reads.push((self.edge, sent, failed)));
            tokio::time::sleep(STEP).await;
        }
    }

    fn note<T>(&self, what: impl FnOnce(&mut Noted) -> T) {
        what(&mut lock(&self.noted));
    }
}

impl Noted {
    fn accepted(&mut self, edge: usize, task: u64, document: u64) {
        self.accepted.push((edge, Instant::now()));
        if let Some(other) = self.tasks.insert(task, document) {
            self.twice.push((task, other, document));
        }
    }
}

/// An answer, if it comes in time.
async fn ask(
    patience: Duration,
    request: impl Future<Output = Result<Reply, weft_cluster::HarnessError>>,
) -> Result<Reply, String> {
    match tokio::time::timeout(patience, request).await {
        Ok(answer) => answer.map_err(|error| error.line()),
        Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
    }
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}
