//! Everything that lives as long as the merger, put together once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::bounds::Bounds;
use crate::broadcast::{self, Intents, Settings};
use crate::call::Along;
use crate::cluster::{self, Cluster, ClusterError, Directory, EnvoyAdmin};
use crate::edge;
use crate::edge::Keys;
use crate::filters::KnownFields;
use crate::options::ServeOptions;
use crate::replication::{RecentContacts, ShardLocks};
use crate::search::{self, SettingsCache, WordCounts};
use crate::store::{Patience, RedbStore, Store, StoreError};
use crate::supervise::{note_panic, supervise, supervise_or_exit};
use crate::tasks::{self, SettledTask, TaskError, Tasks};
use crate::telemetry::Metrics;
use crate::upstream::{EgressClient, NodeApi, Upstream};
use crate::webhooks::{self, Webhooks};
use crate::write::Writes;

/// The merger's parts.
pub struct App {
    /// The knobs.
    pub options: ServeOptions,
    /// What all requests together may take.
    pub bounds: Bounds,
    /// The only way out.
    pub upstream: Upstream,
    /// One order of writes for each shard.
    pub locks: ShardLocks,
    /// When nodes last answered a write.
    pub contacts: RecentContacts,
    /// Shards, nodes, placements.
    pub cluster: Arc<Cluster>,
    /// The task registry.
    pub tasks: Tasks,
    /// Who is told of ended tasks.
    pub webhooks: Webhooks,
    /// What writes keep from one to the next.
    pub writes: Writes,
    /// What is known of the API keys.
    pub keys: Keys,
    /// Indexes' settings, as far as merges need them.
    pub search_settings: SettingsCache,
    /// How many documents words find, as far as searches need it.
    pub word_counts: WordCounts,
    /// Which fields shards are known to know.
    pub known_fields: KnownFields,
    /// What indexes' settings shall be.
    pub settings: Settings,
    /// Changes of indexes that are not on all shards yet.
    pub intents: Intents,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// What is [seen through](Self::see_through) at this moment.
    pub begun: TaskTracker,
}

/// What was begun was cut short by the merger's own end.
#[derive(Debug, thiserror::Error)]
#[error("the merger is stopping")]
pub struct Stopping;

/// Why the merger could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error("the data folder {0} can't be used")]
    DataDir(std::path::PathBuf, #[source] std::io::Error),
    /// The address to listen on.
    #[error("can't listen on {0}")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    /// The store.
    #[error("the store can't be opened (does another merger hold it?)")]
    Store(#[from] StoreError),
    /// The cluster's state.
    #[error("the cluster's state can't be read")]
    Cluster(#[from] ClusterError),
    /// The tasks.
    #[error("the tasks can't be read")]
    Tasks(#[from] TaskError),
    /// The counters.
    #[error("the metrics can't be registered")]
    Metrics(#[from] prometheus::Error),
}

impl App {
    /// The merger's own authority, for requests that no client stands behind.
    pub fn own_authority(&self) -> Along {
        Along::default().with_key(self.options.master_key.as_deref())
    }

    /// Does what changes something to its end, though the client be gone: some nodes would have the change and others not. A stop
    /// waits for it.
    ///
    /// # Errors
    /// The merger ends before it does.
    pub async fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Stopping> {
        self.begun.spawn(work).await.map_err(|error| {
            note_panic(self, "see-through", error);
            Stopping
        })
    }
}

/// What the merger stands on: where it keeps its state, and how it reaches nodes and learns of them.
pub struct Surroundings {
    /// Where tasks, placements and epochs are kept.
    pub store: Arc<dyn Store>,
    /// The way to the nodes.
    pub nodes: Arc<dyn NodeApi>,
    /// Who knows which nodes there are.
    pub directory: Arc<dyn Directory>,
}

/// A merger whose state is read, and whose background work has not begun.
pub struct Opened {
    app: Arc<App>,
    settling: mpsc::Receiver<SettledTask>,
    directory: Arc<dyn Directory>,
}

/// How many tasks' ends may wait for those who act on them. What ends beyond is told of when there is room, by the marks in the store.
const MOST_SETTLING: usize = 10_000;

impl Opened {
    /// Reads the state that the store holds.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn open(
        options: ServeOptions,
        surroundings: Surroundings,
    ) -> Result<Self, StartError> {
        let Surroundings {
            store,
            nodes,
            directory,
        } = surroundings;
        let cluster = Cluster::open(Arc::clone(&store), &options).await?;
        let (settled, settling) = mpsc::channel(MOST_SETTLING);
        let marks = Arc::clone(&cluster.marks);
        let tasks = Tasks::open(Arc::clone(&store), options.task_limits(), settled, marks).await?;
        let allowed = options.webhook_allowed_ip_networks.clone();
        let settings = Settings::new(Arc::clone(&store));
        let intents = Intents::new(Arc::clone(&store));
        let webhooks = Webhooks::open(store, allowed.unwrap_or_default()).await?;
        tasks.announce(!webhooks.is_empty());
        let metrics = Metrics::new()?;
        let app = Arc::new(App {
            bounds: Bounds::new(&options, metrics.under_way.clone()),
            upstream: Upstream::new(nodes),
            cluster: Arc::new(cluster),
            tasks,
            webhooks,
            settings,
            intents,
            locks: ShardLocks::default(),
            contacts: RecentContacts::default(),
            writes: Writes::default(),
            keys: Keys::default(),
            search_settings: SettingsCache::default(),
            word_counts: WordCounts::default(),
            known_fields: KnownFields::default(),
            metrics,
            begun: TaskTracker::new(),
            options,
        });
        Ok(Self {
            app,
            settling,
            directory,
        })
    }

    /// Takes up what the last run left, and begins the background work, which goes on until the runtime ends.
    ///
    /// # Errors
    /// The store failed.
    pub async fn start(self) -> Result<Arc<App>, StartError> {
        let app = self.app;
        for node in app.tasks.pending() {
            let reason = "the merger ended before the replica had an acknowledged write";
            cluster::take_out(&app, &node, reason).await?;
            app.tasks.abandon(&node).await;
        }
        broadcast::take_up_intents(&app).await?;
        tasks::give_up_deletions(&app).await;
        app.tasks.tell_again().await?;
        spawn_background(&app, self.settling, self.directory);
        Ok(app)
    }
}

/// Runs the merger until `stop` resolves; then lets requests under way finish.
///
/// # Errors
/// It could not start.
pub async fn run(options: ServeOptions, stop: impl Future<Output = ()>) -> Result<(), StartError> {
    let data_dir = options.data_dir.clone();
    std::fs::create_dir_all(&data_dir)
        .map_err(|error| StartError::DataDir(data_dir.clone(), error))?;
    let surroundings = Surroundings {
        store: Arc::new(RedbStore::open(&data_dir.join("weft.redb"))?),
        nodes: Arc::new(EgressClient::new(&options)),
        directory: Arc::new(EnvoyAdmin::new(&options.envoy_admin, &options.shard_prefix)),
    };
    let listen = options.listen;
    let opened = Opened::open(options, surroundings).await?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| StartError::Listen(listen, error))?;
    let app = opened.start().await?;
    tracing::info!(%listen, "the merger listens");
    edge::serve(app, listener, stop).await;
    Ok(())
}

fn spawn_background(
    app: &Arc<App>,
    settling: mpsc::Receiver<SettledTask>,
    directory: Arc<dyn Directory>,
) {
    let own = || Arc::clone(app);
    supervise_or_exit(app, "discover", cluster::discover(own(), directory));
    supervise_or_exit(app, "watch", cluster::watch(own()));
    supervise_or_exit(app, "keep-in-sync", cluster::keep_in_sync(own()));
    supervise(app, "verify", cluster::verify_now_and_then);
    supervise(app, "follow-tasks", tasks::follow);
    supervise(app, "equalise-keys", broadcast::equalise_keys);
    let settling = Arc::new(tokio::sync::Mutex::new(settling));
    let began = AtomicBool::new(false);
    supervise(app, "act-on-settled", move |app| {
        let again = began.swap(true, Ordering::Relaxed);
        act_on_settled(app, Arc::clone(&settling), again)
    });
    supervise(app, "watch-settings", broadcast::watch_settings);
    supervise(app, "announce", webhooks::announce);
    supervise(app, "forget-old-tasks", tasks::forget_old);
}

/// Hands each settled task to those who wait for its end.
async fn act_on_settled(
    app: Arc<App>,
    settling: Arc<tokio::sync::Mutex<mpsc::Receiver<SettledTask>>>,
    again: bool,
) {
    let mut settling = settling.lock().await;
    if again {
        hear_the_untold(&app).await;
    }
    while let Some(settled) = settling.recv().await {
        search::on_settled(&app, &settled.view);
        let mut patience = Patience::with("what follows from a task's end");
        let mut outcome = broadcast::on_settled(&app, &settled.view).await;
        while patience.after(outcome).await.is_continue() {
            outcome = broadcast::on_settled(&app, &settled.view).await;
        }
        // When there is room again, those are told of that found none.
        if settling.is_empty() && app.tasks.left_some_untold() {
            hear_the_untold(&app).await;
        }
    }
}

/// Takes up those ends that nobody acted on.
async fn hear_the_untold(app: &App) {
    search::on_many_settled(app);
    if let Err(error) = app.tasks.tell_again().await {
        tracing::error!(%error, "what follows from some tasks' ends waits for a restart");
    }
}
