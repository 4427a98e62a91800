//! The node as a whole: the state that all requests and the worker share.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use milli_core::update::IndexerConfig;
use milli_core::{ThreadPoolNoAbort, ThreadPoolNoAbortBuilder};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::auth::Keys;
use crate::engine::Indexes;
use crate::errors::{ApiError, ApiResult, Code};
use crate::options::Options;
use crate::queue::{Payloads, Queue};
use crate::store::{SINGLES, Store};

/// The engine's version in the form of a server's version, marked as this node's.
pub(crate) const ENGINE_VERSION: &str = "1.15.1-weft-node";

const FEATURES: &str = "features";

/// The most searches that run at the same time, per processor.
const SEARCHES_PER_PROCESSOR: usize = 2;

/// The most searches that wait to run; further ones are told to retry.
const WAITING_SEARCHES: usize = 1000;

/// A node.
pub(crate) struct Node {
    /// The options with which it was started.
    pub(crate) options: Options,
    /// Its API keys.
    pub(crate) keys: Keys,
    /// Its tasks.
    pub(crate) queue: Queue,
    /// Its indexes.
    pub(crate) indexes: Indexes,
    /// The configuration of memory and threads for changes of settings.
    pub(crate) indexer: IndexerConfig,
    /// Threads for changes of documents.
    pub(crate) pool: ThreadPoolNoAbort,
    /// Limits the number of searches.
    pub(crate) turns: Turns,
    store: Arc<Store>,
    features: RwLock<Map<String, Value>>,
}

/// Limits searches: how many run, and how many wait.
pub(crate) struct Turns {
    running: Semaphore,
    waiting: Semaphore,
}

impl Turns {
    /// Waits until the search may run. Dropping the result lets the next one run.
    pub(crate) async fn take(&self) -> ApiResult<tokio::sync::SemaphorePermit<'_>> {
        let _place = self.waiting.try_acquire().map_err(|_| {
            ApiError::new(
                Code::TooManySearchRequests,
                format!("Too many search requests running at the same time: {WAITING_SEARCHES}. Retry after 10s."),
            )
        })?;
        self.running.acquire().await.map_err(ApiError::internal)
    }
}

impl Node {
    /// Opens everything in the folder that the options name.
    pub(crate) fn open(options: Options) -> ApiResult<Node> {
        let folder: &Path = &options.db_path;
        std::fs::create_dir_all(folder)?;
        let store = Arc::new(Store::open(&folder.join("node.redb"))?);
        let singles: Vec<(String, Value)> = store.all(SINGLES)?;
        let features = singles.into_iter().find_map(|(name, value)| match value {
            Value::Object(features) if name == FEATURES => Some(features),
            _ => None,
        });
        let threads = options.indexing_threads();
        let pool = |name: &'static str| {
            ThreadPoolNoAbortBuilder::new()
                .num_threads(threads)
                .thread_name(move |index| format!("{name}-{index}"))
                .build()
                .map_err(ApiError::internal)
        };
        let indexer = IndexerConfig {
            max_memory: options.max_indexing_memory,
            thread_pool: Some(pool("settings")?),
            ..IndexerConfig::default()
        };
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Node {
            keys: Keys::open(Arc::clone(&store), options.master_key.clone())?,
            queue: Queue::open(
                Arc::clone(&store),
                Payloads::open(&folder.join("payloads"))?,
            )?,
            indexes: Indexes::open(
                Arc::clone(&store),
                &folder.join("indexes"),
                options.max_index_size,
            )?,
            indexer,
            pool: pool("documents")?,
            turns: Turns {
                running: Semaphore::new(processors * SEARCHES_PER_PROCESSOR),
                waiting: Semaphore::new(WAITING_SEARCHES),
            },
            store,
            features: RwLock::new(features.unwrap_or_default()),
            options,
        })
    }

    /// The experimental features that have been set, on or off.
    pub(crate) fn features(&self) -> Map<String, Value> {
        self.features
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// True if an experimental feature is on.
    pub(crate) fn has_feature(&self, name: &str) -> bool {
        self.features().get(name).is_some_and(|value| value == true)
    }

    /// Sets experimental features; the others stay as they are.
    pub(crate) fn set_features(&self, change: Map<String, Value>) -> ApiResult<()> {
        let mut features = self
            .features
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut changed = features.clone();
        changed.extend(change);
        self.store.put(SINGLES, FEATURES, &changed)?;
        *features = changed;
        Ok(())
    }
}
