//! Everything that lives as long as the merger, put together once.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::broadcast::{self, Intents, Settings};
use crate::call::Along;
use crate::cluster::{self, Cluster, ClusterError};
use crate::edge;
use crate::edge::Keys;
use crate::options::ServeOptions;
use crate::search::{self, SettingsCache, WordCounts};
use crate::sequence::Sequencer;
use crate::store::{Patience, RedbStore, Store, StoreError};
use crate::tasks::{self, SettledTask, TaskError, Tasks};
use crate::telemetry::Metrics;
use crate::upstream::Upstream;
use crate::webhooks::{self, Webhooks};
use crate::write::Writes;

/// The merger's parts.
pub struct App {
    /// The knobs.
    pub options: ServeOptions,
    /// The only way out.
    pub upstream: Upstream,
    /// One order of writes a shard.
    pub sequencer: Sequencer,
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
        self.begun.spawn(work).await.map_err(|_| Stopping)
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
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(&data_dir.join("weft.redb"))?);
    let cluster = Cluster::open(Arc::clone(&store), &options).await?;
    let (settled, settling) = mpsc::unbounded_channel();
    let tasks = Tasks::open(Arc::clone(&store), options.task_limits(), settled).await?;
    cluster.remember(tasks.newest_local());
    let allowed = options.webhook_allowed_ip_networks.clone();
    let settings = Settings::new(Arc::clone(&store));
    let intents = Intents::new(Arc::clone(&store));
    let webhooks = Webhooks::open(store, allowed.unwrap_or_default()).await?;
    tasks.announce(!webhooks.is_empty());
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|error| StartError::Listen(options.listen, error))?;
    let app = Arc::new(App {
        upstream: Upstream::new(&options.egress, options.max_node_answer_bytes),
        cluster: Arc::new(cluster),
        tasks,
        webhooks,
        settings,
        intents,
        sequencer: Sequencer::default(),
        writes: Writes::default(),
        keys: Keys::default(),
        search_settings: SettingsCache::default(),
        word_counts: WordCounts::default(),
        metrics: Metrics::new()?,
        begun: TaskTracker::new(),
        options,
    });
    for node in app.tasks.pending() {
        let reason = "the merger ended before the replica had an acknowledged write";
        cluster::take_out(&app, &node, reason).await?;
        app.tasks.abandon(&node).await;
    }
    broadcast::take_up_intents(&app).await?;
    app.tasks.tell_again().await?;
    spawn_background(&app, settling);
    tracing::info!(listen = %app.options.listen, "the merger listens");
    edge::serve(app, listener, stop).await;
    Ok(())
}

fn spawn_background(app: &Arc<App>, settling: mpsc::UnboundedReceiver<SettledTask>) {
    tokio::spawn(cluster::discover(Arc::clone(app)));
    tokio::spawn(cluster::watch(Arc::clone(app)));
    tokio::spawn(cluster::keep_in_sync(Arc::clone(app)));
    tokio::spawn(cluster::verify_now_and_then(Arc::clone(app)));
    tokio::spawn(tasks::follow(Arc::clone(app)));
    tokio::spawn(broadcast::equalise_keys(Arc::clone(app)));
    tokio::spawn(act_on_settled(Arc::clone(app), settling));
    tokio::spawn(broadcast::watch_settings(Arc::clone(app)));
    tokio::spawn(webhooks::announce(Arc::clone(app)));
    tokio::spawn(tasks::forget_old(Arc::clone(app)));
}

/// Hands each settled task to those who wait for its end.
async fn act_on_settled(app: Arc<App>, mut settling: mpsc::UnboundedReceiver<SettledTask>) {
    while let Some(settled) = settling.recv().await {
        search::on_settled(&app, &settled.view);
        let mut patience = Patience::with("what follows from a task's end");
        let mut outcome = broadcast::on_settled(&app, &settled.view).await;
        while patience.after(outcome).await.is_continue() {
            outcome = broadcast::on_settled(&app, &settled.view).await;
        }
    }
}
