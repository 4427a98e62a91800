//! A cluster with the real merger, which is started, ended and started again on the same store, over simulated nodes.
//!
//! Each life of the merger is a runtime of its own on one thread. Its clock stands still while there is work and jumps when
//! there is none. When the runtime is dropped, everything that the merger was doing ends at that point, as in a crash.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Parser;
use http::{Method, Request};
use serde_json::Value;
use tokio::time::Instant;

use super::mesh::{Mesh, id};
use super::model::Model;
use super::store::SimStore;
use super::{BEGIN, steps::Plan};
use crate::call::{empty, full};
use crate::clock::simulated;
use crate::edge;
use crate::edge::Context;
use crate::options::ServeOptions;
use crate::runtime::{Opened, Surroundings};
use crate::sockets::Peer;

/// How often Envoy asks whether nodes may serve reads.
const ENVOY_ASKS: Duration = Duration::from_millis(200);
/// How long a merger that is told to stop may take for its open work.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// The state that outlives the merger.
#[derive(Clone)]
pub(super) struct World {
    pub(super) mesh: Mesh,
    pub(super) store: SimStore,
    model: Arc<Mutex<Model>>,
    pub(super) indexes: u8,
    /// Whether documents lie by a field: by the number of the write that last replaced them.
    by_field: bool,
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            mesh: Mesh::new(plan.seed, plan.shards, plan.replicas),
            store: SimStore::new(plan.seed),
            model: Arc::default(),
            indexes: 2,
            by_field: plan.by_field,
        }
    }

    /// A world for a test that plans its own steps.
    pub(super) fn of(shards: u16, replicas: u16) -> Self {
        Self::new(&Plan {
            seed: 1,
            shards,
            replicas,
            by_field: false,
            steps: Vec::new(),
        })
    }

    /// The same, with indexes whose documents lie by a field.
    pub(super) fn by_field(shards: u16, replicas: u16) -> Self {
        Self {
            by_field: true,
            ..Self::of(shards, replicas)
        }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node with this number.
    pub(super) fn node(&self, number: u8) -> String {
        let state = self.mesh.lock();
        let place = usize::from(number) % state.nodes.len();
        state.nodes.keys().nth(place).cloned().unwrap_or_default()
    }

    /// The name of the shard with this number.
    pub(super) fn shard(&self, number: u8) -> String {
        let state = self.mesh.lock();
        let shards: std::collections::BTreeSet<u16> =
            state.nodes.values().map(|node| node.shard.0).collect();
        format!("shard-{}", usize::from(number) % shards.len())
    }

    /// One life of the merger: starts it, runs `live` with it, and ends it at once.
    pub(super) fn life<T, F: Future<Output = T>>(&self, live: impl FnOnce(Merger) -> F) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let outcome = runtime.block_on(async {
            self.mesh.lock().merger_begins();
            // A merger that can't read or write its store ends at once, and is started again until it can.
            self.store.fail_until(0);
            let begun = BEGIN + Duration::from_millis(self.mesh.now());
            simulated::begin(begun);
            let merger = Merger::begin(self.clone()).await;
            live(merger).await
        });
        let now = runtime.block_on(async { self.mesh.now() });
        drop(runtime);
        simulated::end();
        self.mesh.lock().merger_ended(now);
        self.store.crash(now);
        self.store.is_left_by_a_newer_merger();
        self.model().cut_off();
        outcome
    }
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: ServeOptions,
}

/// Options that fit a simulation, and these.
pub(super) fn options(more: &[&str]) -> ServeOptions {
    let arguments = [
        "serve",
        "--master-key=master",
        "--node-down-after-ms=3000",
        "--replica-patience-ms=500",
        "--write-timeout-ms=5000",
        "--search-timeout-ms=3000",
        "--lease-ms=500",
        "--verify-interval-s=0",
        "--settings-check-interval-ms=5000",
        "--resync-bytes-per-second=0",
        "--move-batch=6",
    ];
    Arguments::parse_from(arguments.iter().chain(more)).options
}

/// A running merger.
#[derive(Clone)]
pub(super) struct Merger {
    pub(super) world: World,
    pub(super) ctx: Arc<Context>,
    /// How many clients are waiting for an answer.
    pub(super) waiting: Arc<Mutex<usize>>,
    /// For each index and writer, a lock: each writer does one write after the other.
    pub(super) writers: Arc<Vec<Vec<tokio::sync::Mutex<()>>>>,
}

impl Merger {
    async fn begin(world: World) -> Self {
        let mesh = || Arc::new(world.mesh.clone());
        let store = Arc::new(world.store.clone());
        let surroundings = Surroundings::alone(store, mesh(), mesh(), None).unwrap();
        tokio::spawn(tell_time(world.clone()));
        let more: &[&str] = match world.by_field {
            true => &["--default-strategy=field:first"],
            false => &[],
        };
        let opened = Opened::open(options(more), surroundings).await.unwrap();
        let ctx = opened.start().await.unwrap();
        tokio::spawn(envoy_asks(world.clone(), Arc::clone(&ctx)));
        let writers = |_| (0..4).map(|_| tokio::sync::Mutex::new(())).collect();
        Self {
            writers: Arc::new((0..world.indexes).map(writers).collect()),
            world,
            ctx,
            waiting: Arc::default(),
        }
    }

    /// Sends a request to the merger, as Envoy does.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let master = [("authorization", "Bearer master")];
        self.ask_with(method, path, &master, body).await
    }

    /// The same with additional headers.
    pub(super) async fn ask_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("content-type", "application/json");
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| {
                request.header(*name, *value)
            })
            .body(())
            .unwrap();
        let (parts, ()) = request.into_parts();
        let body = body.map_or_else(empty, |body| full(body.to_string()));
        let (_, answer) = edge::dispatch(&self.ctx, &parts, body).await;
        let said = serde_json::from_slice(&answer.body).unwrap_or_default();
        (answer.status.as_u16(), said)
    }

    /// Lets open work finish, as a merger does that is told to stop.
    pub(super) async fn stop(&self) {
        self.ctx.begun.close();
        let _ = tokio::time::timeout(STOPS_WITHIN, self.ctx.begun.wait()).await;
    }

    /// Runs a client that a comparison waits for.
    pub(super) fn client(&self, work: impl Future<Output = ()> + Send + 'static) {
        let waiting = Arc::clone(&self.waiting);
        *lock(&waiting) += 1;
        let model = self.world.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            work.await;
            let waited = u64::try_from(begun.elapsed().as_millis()).unwrap_or(0);
            let longest = model.model().longest.max(waited);
            model.model().longest = longest;
            *lock(&waiting) -= 1;
        });
    }

    pub(super) fn clients(&self) -> usize {
        *lock(&self.waiting)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Envoy's health checks, which ask the merger.
async fn envoy_asks(world: World, ctx: Arc<Context>) {
    loop {
        let names: Vec<String> = world.mesh.lock().nodes.keys().cloned().collect();
        for name in names {
            let readiness = ctx.cluster.readiness(&id(&name), Peer::Local(1));
            world.mesh.lock().envoy_hears(&name, readiness);
        }
        tokio::time::sleep(ENVOY_ASKS).await;
    }
}

/// Executes planned events even while no node gets requests.
async fn tell_time(world: World) {
    loop {
        world.mesh.lock().advance();
        world.store.tell_time(world.mesh.now());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
