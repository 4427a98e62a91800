//! Several mergers over one simulated etcd and the same simulated nodes, in random histories of trouble.
//!
//! Each merger has an Envoy of its own: it knows which nodes serve reads from its own merger alone, and stops reading when that is
//! silent. A merger that is killed sends nothing any more, and what it has sent stays sent. What must hold at any time: no task uid
//! is given twice, and a document whose task has succeeded is found by each read that begins afterwards, through whichever merger.
//! When all is well again: every acknowledged document is there, on all replicas.

mod begins;
mod clients;
mod moves;
mod sidecar;
mod strategies;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::moves::Changed;
use self::sidecar::Sidecar;
use super::BEGIN;
use super::disk::Index;
use super::mesh::{Mesh, id};
use super::nodes::{Event, Power};
use super::world::options;
use crate::call::{empty, full};
use crate::clock::simulated;
use crate::cluster::{Cluster, Readiness};
use crate::edge::{self, Role};
use crate::etcd::simulated::{Line, Simulated};
use crate::runtime::{Merger, Outside, Threads};
use crate::sockets::Peer;

/// How often an Envoy asks its merger.
const ENVOY_ASKS: Duration = Duration::from_millis(200);

const INDEX: &str = "films";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a history is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    Plain,
    /// Slots move all the time.
    Moving,
    /// The index goes from one strategy to another, and slots move beside that.
    Changing,
}

impl History {
    fn moves(self) -> bool {
        self != Self::Plain
    }
}

/// A merger and its Envoy.
struct Pair {
    merger: Arc<Merger>,
    roles: watch::Receiver<Role>,
    line: Line,
    sidecar: Arc<Sidecar>,
}

impl Pair {
    fn is_gone(&self) -> bool {
        self.sidecar.gone.load(Ordering::SeqCst)
    }

    fn kill(&self) {
        self.sidecar.gone.store(true, Ordering::SeqCst);
        self.line.set_cut(true);
    }
}

fn cluster(role: &Role) -> &Cluster {
    match role {
        Role::Leads(ctx) => &ctx.reading.cluster,
        Role::Follows(follower) => &follower.reading.cluster,
    }
}

fn may_send(role: &Role) -> bool {
    match role {
        Role::Leads(ctx) => ctx.reading.upstream.may_send(),
        Role::Follows(follower) => follower.reading.upstream.may_send(),
    }
}

/// What clients were told.
#[derive(Default)]
struct Told {
    /// Documents whose write was acknowledged.
    acknowledged: BTreeSet<u32>,
    /// Those whose task has succeeded.
    succeeded: Vec<u32>,
    uids: BTreeSet<u64>,
    /// Each acknowledged write: when it began, when it was acknowledged, and its task.
    writes: Vec<(Instant, Instant, u64)>,
    changed: Changed,
    reads: u32,
    failed: u32,
    wrong: Vec<String>,
}

#[derive(Clone)]
struct World {
    server: Simulated,
    mesh: Mesh,
    pairs: Arc<Mutex<Vec<Arc<Pair>>>>,
    told: Arc<Mutex<Told>>,
    folder: Arc<tempfile::TempDir>,
    seed: u64,
    ends: Arc<AtomicBool>,
}

impl World {
    /// Starts one more merger.
    async fn start(&self) {
        let number = lock(&self.pairs).len() as u64;
        let line = self
            .server
            .line(self.seed.wrapping_mul(31).wrapping_add(number));
        let sidecar = Sidecar::new(self.mesh.clone(), self.seed ^ (number << 32));
        let sidecar = Arc::new(sidecar);
        let folder = self.folder.path().join(number.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let folder = format!("--data-dir={}", folder.display());
        let listen = format!("--listen=127.0.0.1:{}", 20_000 + number);
        let options = options(&[&folder, &listen]);
        let outside = Outside {
            nodes: sidecar.clone(),
            directory: sidecar.clone(),
            threads: Threads::Shared,
        };
        let merger = Merger::new(options, Arc::new(line.clone()), outside).unwrap();
        let merger = Arc::new(merger);
        let following = merger.follow().await.unwrap();
        let (role, roles) = watch::channel(merger.role(&following));
        let living = Arc::clone(&merger);
        tokio::spawn(async move {
            let serving = tokio::spawn(async {});
            let ended = living
                .live(following, role, CancellationToken::new(), serving)
                .await;
            panic!("a merger has ended by itself: {ended:?}");
        });
        let pair = Arc::new(Pair {
            merger,
            roles,
            line,
            sidecar,
        });
        tokio::spawn(envoy_asks(self.mesh.clone(), Arc::clone(&pair)));
        lock(&self.pairs).push(pair);
    }

    fn alive(&self) -> Vec<Arc<Pair>> {
        let pairs = lock(&self.pairs);
        pairs
            .iter()
            .filter(|pair| !pair.is_gone())
            .cloned()
            .collect()
    }

    fn pair_of(&self, merger: &str) -> Option<Arc<Pair>> {
        let pairs = lock(&self.pairs);
        pairs
            .iter()
            .find(|pair| pair.merger.id() == merger)
            .cloned()
    }

    fn any(&self, random: &mut fastrand::Rng) -> Arc<Pair> {
        let alive = self.alive();
        Arc::clone(&alive[random.usize(..alive.len())])
    }

    /// Asks a merger as its Envoy does, and, where it passes the request on, the leader; `None` if there is no answer.
    async fn ask(
        &self,
        pair: &Arc<Pair>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header("content-type", "application/json")
            .header("authorization", "Bearer master");
        let request = request.body(()).unwrap();
        pair.sidecar.thaws().await;
        let role = pair.roles.borrow().clone();
        let (role, answering) = match role {
            Role::Follows(follower) if follower.passes_on(&request) => {
                let leader = follower.leader.borrow().clone()?;
                let leader = self.pair_of(&leader.id)?;
                leader.sidecar.thaws().await;
                let role = leader.roles.borrow().clone();
                let leads = !leader.is_gone() && matches!(role, Role::Leads(_));
                (leads.then_some(role)?, leader)
            }
            role => (role, Arc::clone(pair)),
        };
        let (parts, ()) = request.into_parts();
        let body = body.map_or_else(empty, |body| full(body.to_string()));
        let asked = role.clone();
        // The work goes on if the client gives up.
        let work = tokio::spawn(async move {
            let (_, answer) = match asked {
                Role::Leads(ctx) => edge::dispatch(&ctx, &parts, body).await,
                Role::Follows(follower) => follower.answer(&parts, body).await,
            };
            answering.sidecar.thaws().await;
            answer
        });
        let answer = timeout(Duration::from_secs(20), work).await.ok()?.unwrap();
        // The edge throws away what a leader says whose lease has ended meanwhile, unless it was acknowledged in etcd.
        if pair.is_gone() || (!may_send(&role) && answer.status != 202) {
            return None;
        }
        let said = serde_json::from_slice(&answer.body).unwrap_or_default();
        Some((answer.status.as_u16(), said))
    }
}

async fn envoy_asks(mesh: Mesh, pair: Arc<Pair>) {
    loop {
        let names: Vec<String> = mesh.lock().nodes.keys().cloned().collect();
        for name in names {
            let role = pair.roles.borrow().clone();
            let silent = pair.is_gone() || pair.sidecar.frozen.load(Ordering::SeqCst);
            let readiness = match (silent, may_send(&role)) {
                (true, _) => None,
                (false, false) => Some(Readiness::NotReady("its lease is over")),
                (false, true) => {
                    let listener = Peer::Local(1);
                    Some(cluster(&role).readiness(&id(&name), listener))
                }
            };
            pair.sidecar.hears(&name, readiness);
        }
        sleep(ENVOY_ASKS).await;
    }
}

/// One piece of trouble.
async fn trouble(world: &World, random: &mut fastrand::Rng) {
    let lasts = Duration::from_millis(random.u64(200..6_000));
    let pair = world.any(random);
    match random.u8(0..10) {
        0 | 1 => {
            pair.line.set_cut(true);
            sleep(lasts).await;
            pair.line.set_cut(pair.is_gone());
        }
        2 => {
            pair.sidecar.cut.store(true, Ordering::SeqCst);
            sleep(lasts).await;
            pair.sidecar.cut.store(false, Ordering::SeqCst);
        }
        3 | 4 => {
            if world.alive().len() > 1 {
                pair.kill();
            }
            sleep(lasts / 2).await;
            world.start().await;
        }
        5 => {
            let path = "/_cluster/leader/step-down";
            let _ = world.ask(&pair, Method::POST, path, None).await;
            sleep(lasts / 4).await;
        }
        6 | 7 => {
            let (node, after) = {
                let mut state = world.mesh.lock();
                let names: Vec<String> = state.nodes.keys().cloned().collect();
                let name = names[random.usize(..names.len())].clone();
                // One at a time, so that each shard keeps a replica.
                if state.nodes.values().any(|node| node.power != Power::Up) {
                    return;
                }
                let after = u64::try_from(lasts.as_millis()).unwrap();
                state.kill(&name);
                (name, after)
            };
            let at = world.mesh.now() + after;
            world.mesh.lock().plan(at, &node, Event::Starts);
            sleep(lasts / 2).await;
        }
        8 => {
            pair.line.set_cut(true);
            pair.sidecar.frozen.store(true, Ordering::SeqCst);
            sleep(lasts).await;
            pair.line.set_cut(pair.is_gone());
            pair.sidecar.frozen.store(false, Ordering::SeqCst);
        }
        _ => {
            for pair in world.alive() {
                pair.line.set_trouble(random.u8(5..40));
            }
            sleep(lasts).await;
            for pair in world.alive() {
                pair.line.set_trouble(0);
            }
        }
    }
}

async fn heal(world: &World) {
    for pair in world.alive() {
        pair.line.set_cut(false);
        pair.line.set_trouble(0);
        pair.sidecar.cut.store(false, Ordering::SeqCst);
    }
    for _ in 0..3_000 {
        let pair = Arc::clone(&world.alive()[0]);
        let health = world
            .ask(&pair, Method::GET, "/_cluster/health", None)
            .await;
        // Yellow for a while after mergers were killed; all replicas must be there.
        if let Some((200, health)) = health
            && health["activeShards"] == health["nodeCount"]
            && world
                .mesh
                .lock()
                .nodes
                .values()
                .all(|node| node.disk.is_idle())
        {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let pair = Arc::clone(&world.alive()[0]);
    let nodes = world.ask(&pair, Method::GET, "/_cluster/nodes", None).await;
    panic!(
        "seed {}: the replicas don't get well: {nodes:?}",
        world.seed
    );
}

/// Three mergers that have just been started.
async fn world_of(seed: u64, history: History) -> World {
    simulated::begin(BEGIN);
    let moving = history.moves();
    let shards = 1 + u16::from(seed.is_multiple_of(3)) + u16::from(moving);
    let mesh = Mesh::new(seed, shards, 2);
    mesh.lock().merger_begins();
    let world = World {
        server: Simulated::default(),
        mesh,
        pairs: Arc::default(),
        told: Arc::default(),
        folder: Arc::new(tempfile::tempdir().unwrap()),
        seed,
        ends: Arc::default(),
    };
    let telling = world.mesh.clone();
    tokio::spawn(async move {
        loop {
            telling.lock().advance();
            sleep(Duration::from_millis(10)).await;
        }
    });
    for _ in 0..3 {
        world.start().await;
    }
    world
}

async fn play(seed: u64, steps: usize, history: History) {
    let world = world_of(seed, history).await;
    let moving = history.moves();
    heal(&world).await;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut clients = Vec::new();
    for writer in 1..4 {
        clients.push(tokio::spawn(world.clone().write(random.fork(), writer)));
        clients.push(tokio::spawn(world.clone().read(random.fork())));
    }
    if history == History::Changing {
        clients.push(tokio::spawn(world.clone().replace(random.fork())));
    }
    if moving {
        clients.push(tokio::spawn(world.clone().rearrange(random.fork())));
        clients.push(tokio::spawn(world.clone().list(random.fork())));
        for remainder in 0..2 {
            let changing = world.clone().change(random.fork(), remainder);
            clients.push(tokio::spawn(changing));
        }
    }
    for _ in 0..steps {
        trouble(&world, &mut random).await;
        sleep(Duration::from_millis(random.u64(0..3_000))).await;
    }
    heal(&world).await;
    world.ends.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    heal(&world).await;
    if moving {
        world.until_settled().await;
        if history == History::Changing {
            world.place_by_field().await;
            world.until_settled().await;
        }
        heal(&world).await;
        world.assert_in_place();
    }
    let told = lock(&world.told);
    assert!(told.wrong.is_empty(), "seed {seed}: {:#?}", told.wrong);
    assert_in_order(seed, &told.writes);
    assert!(
        told.succeeded.len() > 5 && told.reads > 20,
        "seed {seed}: hardly anything was done"
    );
    let state = world.mesh.lock();
    let mut found: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
    for (name, node) in &state.nodes {
        let index = node.disk.indexes.get(INDEX);
        let documents = index.map(Index::contents).unwrap_or_default();
        let own: BTreeSet<u32> = documents.keys().filter_map(|id| id.parse().ok()).collect();
        let before = found.entry(node.shard).or_insert_with(|| own.clone());
        assert_eq!(*before, own, "seed {seed}: {name} differs");
    }
    let everywhere: BTreeSet<u32> = found.into_values().flatten().collect();
    let lost = told.acknowledged.difference(&everywhere);
    let lost: Vec<&u32> = lost.filter(|one| !told.is_doomed(**one)).collect();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
}

/// Task uids are linearisable: a write that began after another one was acknowledged has the higher uid.
fn assert_in_order(seed: u64, writes: &[(Instant, Instant, u64)]) {
    let (mut by_end, mut by_begin) = (writes.to_vec(), writes.to_vec());
    by_end.sort_by_key(|(_, ended, _)| *ended);
    by_begin.sort_by_key(|(began, ..)| *began);
    let (mut ended, mut highest) = (by_end.into_iter().peekable(), None);
    for (began, _, uid) in by_begin {
        while let Some((_, _, earlier)) = ended.next_if(|(_, end, _)| *end < began) {
            highest = highest.max(Some(earlier));
        }
        assert!(
            highest < Some(uid),
            "seed {seed}: {uid} came after {highest:?}"
        );
    }
}

/// Does something on a clock that stands still while there is work.
fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = runtime.block_on(work);
    drop(runtime);
    simulated::end();
    outcome
}

fn number(variable: &str, default: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.and_then(|set| set.parse().ok()).unwrap_or(default)
}

/// `WEFT_SIM_RUNS` and `WEFT_SIM_SEED` say how many histories, and from which seed on.
#[test]
fn with_several_mergers_nothing_acknowledged_is_lost_and_no_read_is_stale_whatever_goes() {
    let (from, runs) = (number("WEFT_SIM_SEED", 1), number("WEFT_SIM_RUNS", 6));
    for seed in from..from + runs {
        on_a_runtime(play(seed, 8, History::Plain));
    }
}
