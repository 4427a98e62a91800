//! Builds everything that lives as long as the merger leads, or is alone with its store; and in [`shared`] what follows.

mod background;
mod copy;
mod errors;
mod forgetting;
#[cfg(test)]
mod passing_on;
mod phase;
mod publish;
mod reports;
mod shared;
mod timed;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::base::Base;
use crate::bounds::Bounds;
use crate::broadcast::{self, Intents};
use crate::cluster::{self, Cluster, Directory, EnvoyAdmin};
use crate::desired::DesiredSettings;
use crate::edge::{self, Context};
use crate::fence::Fence;
use crate::filters::KnownFields;
use crate::keys::Keys;
use crate::options::ServeOptions;
use crate::repair::{self, Resyncs, Verification};
use crate::replication::{self, RecentContacts, ShardLocks};
use crate::search::{self, Remembered, SettingsCache, WordCounts};
use crate::sockets::Listeners;
use crate::spans::Spans;
use crate::spares::{self, SpareOptions};
use crate::store::{RedbStore, Store, StoreError};
use crate::supervise::supervise;
use crate::tasks::{self, SettledTask, Tasks};
use crate::telemetry::Metrics;
use crate::upstream::{EgressClient, NodeApi, Upstream};
use crate::webhooks::{self, Webhooks};
use crate::write::{self, Writes};

use self::forgetting::Forgetting;
use self::traces::Traces;

pub use self::errors::StartError;
#[cfg(test)]
pub(crate) use self::phase::Threads;
#[cfg(test)]
pub(crate) use self::shared::{Merger, Outside};

pub use self::copy::{CopyOptions, CopyStoreError, Place, copy_store};

/// What the merger needs from outside: where it keeps its state, and how it reaches nodes and learns of them.
pub struct Surroundings {
    /// Where tasks, placements and epochs are kept.
    pub store: Arc<dyn Store>,
    /// The client for nodes.
    pub nodes: Arc<dyn NodeApi>,
    /// The source of the topology.
    pub directory: Arc<dyn Directory>,
    /// Until when requests to nodes may leave.
    pub fence: Fence,
    /// What this process knows already.
    pub shared: cluster::Shared,
    /// The metrics of this process.
    pub metrics: Metrics,
    /// Spans of clients' requests.
    pub spans: Spans,
    /// The mergers that share the store.
    pub peers: Arc<edge::Peers>,
    /// Whether other mergers follow this one.
    pub has_followers: bool,
}

impl Surroundings {
    /// Those of a merger that is alone with its store.
    ///
    /// # Errors
    /// The metrics can't be registered.
    pub fn alone(
        store: Arc<dyn Store>,
        nodes: Arc<dyn NodeApi>,
        directory: Arc<dyn Directory>,
        address: Option<std::net::SocketAddr>,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            store,
            nodes,
            directory,
            fence: Fence::always_open(),
            shared: cluster::Shared::default(),
            metrics: Metrics::new()?,
            spans: Spans::default(),
            peers: Arc::new(edge::Peers::alone(address)),
            has_followers: false,
        })
    }
}

/// A merger whose state is read, and whose background work has not begun.
pub struct Opened {
    ctx: Arc<Context>,
    spares: Option<SpareOptions>,
    settling: mpsc::Receiver<SettledTask>,
    directory: Arc<dyn Directory>,
}

/// How many ended tasks may wait until they are acted on. Further ones are marked in the store and passed on when there is room.
const MOST_SETTLING: usize = 10_000;

impl Opened {
    /// Reads the state that the store holds.
    ///
    /// # Errors
    /// The state can't be read.
    pub async fn open(
        options: ServeOptions,
        surroundings: Surroundings,
    ) -> Result<Self, StartError> {
        let Surroundings {
            store,
            nodes,
            directory,
            fence,
            shared,
            metrics,
            spans,
            peers,
            has_followers,
        } = surroundings;
        let cluster = Cluster::open(Arc::clone(&store), options.cluster(), shared).await?;
        let (settled, settling) = mpsc::channel(MOST_SETTLING);
        let marks = Arc::clone(&cluster.marks);
        let tasks = Tasks::open(Arc::clone(&store), options.task_limits(), settled, marks).await?;
        let allowed = options.webhook_allowed_ip_networks.clone();
        let settings = Arc::new(DesiredSettings::new(Arc::clone(&store)));
        let intents = Intents::new(Arc::clone(&store));
        let webhooks = Webhooks::open(store, allowed.unwrap_or_default()).await?;
        tasks.announce(!webhooks.is_empty());
        let keys = Arc::new(Keys::default());
        let spares = options.spares();
        let base = base(&options, nodes, fence, (metrics, spans), cluster);
        let registry = Arc::new(tasks::Context { base, tasks });
        let search = search_of(&options, &registry.base, Some(Arc::clone(&registry)));
        let forgetting = Forgetting::new(&search, has_followers);
        registry.tasks.before_ends(forgetting);
        let replication = Arc::new(replication::Context {
            base: Arc::clone(&registry),
            options: options.replication(),
            locks: ShardLocks::default(),
            contacts: RecentContacts::default(),
        });
        let write = Arc::new(write::Context {
            replication: Arc::clone(&replication),
            options: options.write(),
            writes: Writes::default(),
            settings,
        });
        let broadcast = Arc::new(broadcast::Context {
            write,
            settings_check_interval: Duration::from_millis(options.settings_check_interval_ms),
            intents,
            keys: Arc::clone(&keys),
        });
        let repair = Arc::new(repair::Context {
            replication,
            keys: Arc::clone(&keys),
            options: options.repair(),
            resyncs: Resyncs::default(),
            verification: Verification::default(),
        });
        let webhooks = Arc::new(webhooks::Context {
            base: Arc::clone(&registry),
            webhooks,
        });
        let reading = edge::Reading {
            search,
            keys,
            cors_origins: options.cors_origins,
        };
        let ctx = Arc::new(Context {
            registry,
            reading: Arc::new(reading),
            broadcast,
            repair,
            webhooks,
            peers,
        });
        Ok(Self {
            ctx,
            spares,
            settling,
            directory,
        })
    }

    /// What the background work will use.
    pub fn context(&self) -> Arc<Context> {
        Arc::clone(&self.ctx)
    }

    /// Finishes what the last run left open, and starts the background work, which goes on until the runtime ends.
    ///
    /// # Errors
    /// The store failed.
    pub async fn start(self) -> Result<Arc<Context>, StartError> {
        let ctx = self.ctx;
        for node in ctx.tasks.pending() {
            let reason = "the merger ended before the replica had an acknowledged write";
            replication::remove_replica(&ctx.repair, &node, reason).await?;
            ctx.tasks.abandon(&node).await;
        }
        broadcast::take_up_intents(&ctx.broadcast).await?;
        tasks::give_up_deletions(&ctx).await;
        ctx.tasks.tell_again().await?;
        background::spawn(&ctx, self.settling, self.directory);
        keep_spares(&ctx.registry.base, self.spares.as_ref());
        if let Some(spares) = self.spares {
            let panics = &ctx.metrics.panics;
            supervise(&ctx.registry.base, panics, "replace-absent", move |base| {
                spares::replace_absent(base, spares.clone())
            });
        }
        Ok(ctx)
    }
}

/// What everything stands on.
fn base(
    options: &ServeOptions,
    nodes: Arc<dyn NodeApi>,
    fence: Fence,
    (metrics, spans): (Metrics, Spans),
    cluster: Cluster,
) -> Arc<cluster::Context> {
    let base = Arc::new(Base {
        master_key: options.master_key.clone(),
        search_timeout: options.search_timeout(),
        write_timeout: options.write_timeout(),
        pace: options.pace(),
        max_body_bytes: options.max_body_bytes,
        bounds: Bounds::new(options.limits(), metrics.under_way.clone()),
        upstream: Upstream::new(nodes, fence),
        metrics,
        spans,
        begun: TaskTracker::new(),
    });
    let cluster = Arc::new(cluster);
    Arc::new(cluster::Context { base, cluster })
}

fn search_of(
    options: &ServeOptions,
    base: &Arc<cluster::Context>,
    tasks: Option<Arc<tasks::Context>>,
) -> Arc<search::Context> {
    Arc::new(search::Context {
        base: Arc::clone(base),
        tasks,
        when_missing: options.when_missing(),
        search_settings: SettingsCache::default(),
        word_counts: WordCounts::default(),
        known_fields: KnownFields::default(),
        remembered: Remembered::new(options.answer_cache_bytes),
    })
}

/// Runs the merger until `stop` resolves, and then lets running requests finish.
///
/// # Errors
/// The merger could not start, or leads no more.
pub async fn run(
    mut options: ServeOptions,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    options.load_certificates()?;
    let data_dir = options.data_dir.clone();
    std::fs::create_dir_all(&data_dir)
        .map_err(|error| StartError::DataDir(data_dir.clone(), error))?;
    if let Some(etcd) = options.etcd.options()? {
        return shared::run(options, etcd, stop).await;
    }
    let file = data_dir.join("weft.redb");
    let store = match options.keep_state_format {
        true => RedbStore::open_as_it_is(&file),
        false => RedbStore::open(&file),
    };
    let store = store.map_err(|error| match error {
        error @ StoreError::NewerFormat { .. } => StartError::NewerFormat(file, error),
        error => error.into(),
    })?;
    let store = Arc::new(store);
    let (nodes, directory) = (nodes(&options), directory(&options));
    let address = options.advertised();
    let certificates = options.tls.certificates();
    let report_to = options.reports();
    let mut surroundings = Surroundings::alone(store, nodes, directory, address)?;
    let traces = Traces::begin(&options, &surroundings.metrics)?;
    surroundings.spans = traces.spans();
    let (places, mode) = (options.listen.clone(), options.socket_mode);
    let listen = options.listens_on();
    let opened = Opened::open(options, surroundings).await?;
    let listeners = Listeners::bind(&places, mode).await?;
    let door = edge::Door::new(listeners, certificates);
    let ctx = opened.start().await?;
    ctx.metrics.leads.set(1);
    tracing::info!(listen, "the merger listens");
    let (_role, roles) = watch::channel(edge::Role::Leads(ctx));
    reports::begin(report_to, roles.clone())?;
    edge::serve(roles, door, stop).await;
    traces.finish().await;
    Ok(())
}

/// Begins to keep the files of this merger's Envoy, if it has any.
fn keep_spares(base: &Arc<cluster::Context>, options: Option<&SpareOptions>) {
    let Some(options) = options else { return };
    let folder = options.folder.clone();
    supervise(base, &base.metrics.panics, "keep-files", move |base| {
        spares::keep_files(base, folder.clone())
    });
}

/// The real nodes, behind Envoy.
fn nodes(options: &ServeOptions) -> Arc<dyn NodeApi> {
    Arc::new(EgressClient::new(options.egress()))
}

/// The real list of nodes, which is Envoy's.
fn directory(options: &ServeOptions) -> Arc<dyn Directory> {
    Arc::new(EnvoyAdmin::new(
        options.way_to_admin(),
        &options.shard_prefix,
    ))
}
