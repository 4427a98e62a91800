//! A cluster with stand-ins for nodes: they accept everything, store nothing, and remember the requests they received.
//!
//! A write that contains [`POISON`] fails, like a document that only the indexer rejects.
//!
//! For tests of what reaches a node (headers), and for measurements that the work of real nodes would hide (the merger's
//! memory during a large import).

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::cluster::{get, get_json, hosts};
use crate::{
    Binaries, ClusterPlan, Deadline, Edit, HarnessError, Layout, Lifetime, PortBlock, Process,
};

/// A write whose body contains this text becomes a task that fails.
pub const POISON: &str = "poison";
/// The longest body that is searched for it.
const SEARCHED_BYTES: u64 = 4 << 20;
/// The most requests that are remembered.
const REMEMBERED: usize = 10_000;

/// The head of a request that a stand-in received.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The length of the body in bytes.
    pub body_bytes: u64,
}

/// A stand-in for one node.
#[derive(Debug, Default)]
pub struct StandIn {
    tasks: AtomicU64,
    /// True while no task may end.
    holds_tasks: AtomicBool,
    failed: Mutex<HashSet<u64>>,
    seen: Mutex<Vec<Seen>>,
    /// Files for browsers by path: their content type and their text.
    files: Mutex<HashMap<String, (&'static str, &'static str)>>,
    searches: Mutex<Searches>,
    /// How many bytes its answers to searches had.
    found_bytes: AtomicU64,
}

/// How a stand-in answers searches.
#[derive(Debug, Clone, Default)]
pub struct Searches {
    /// The answer; by default, one without hits.
    pub answer: Bytes,
    /// How long an answer takes.
    pub takes: Takes,
}

/// A time that is drawn anew for each answer: as long as work takes that waits in a queue, and now and then much longer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Takes {
    /// The least.
    pub least: Duration,
    /// How much more it is on average.
    pub more: Duration,
    /// One answer in so many is slow; 0 means none.
    pub slow_one_in: u32,
    /// How much longer a slow one takes.
    pub slow: Duration,
}

impl Takes {
    fn draw(self) -> Duration {
        let exponential = -(1.0 - fastrand::f64()).ln();
        let usual = self.least + self.more.mul_f64(exponential);
        let is_slow = self.slow_one_in > 0 && fastrand::u32(0..self.slow_one_in) == 0;
        usual + if is_slow { self.slow } else { Duration::ZERO }
    }
}

/// What kind of cluster of stand-ins to start.
#[derive(Debug, Clone)]
pub struct StandInOptions {
    /// The number of shards.
    pub shards: u16,
    /// The number of stand-ins in each.
    pub replicas: u16,
    /// Whether Envoy runs the filter.
    pub filter: bool,
    /// What the edge logs.
    pub access_log: &'static str,
    /// Environment variables for the merger.
    pub merger_environment: Vec<(String, String)>,
    /// An operator's edit of Envoy's configuration.
    pub edit_envoy: Option<Edit>,
}

/// Envoy, filter and merger over stand-ins.
#[derive(Debug)]
pub struct StandInCluster {
    /// The stand-ins, in the order of [`Layout::nodes`].
    pub nodes: Vec<Arc<StandIn>>,
    envoy: Process,
    merger: Process,
    layout: Layout,
    folder: TempDir,
    _ports: PortBlock,
}

impl StandInCluster {
    /// Starts all programs and waits until the cluster answers.
    pub async fn start(
        shards: u16,
        filter: bool,
        merger_environment: Vec<(String, String)>,
    ) -> Result<Self, HarnessError> {
        Self::start_as(StandInOptions {
            shards,
            replicas: 1,
            filter,
            access_log: "failed",
            merger_environment,
            edit_envoy: None,
        })
        .await
    }

    /// The same with all that can be chosen.
    pub async fn start_as(options: StandInOptions) -> Result<Self, HarnessError> {
        let (shards, replicas) = (options.shards, options.replicas);
        let ports = PortBlock::claim(Layout::new(1, shards, replicas)?.width())?;
        let layout = Layout::new(ports.base(), shards, replicas)?;
        let folder = tempfile::Builder::new()
            .prefix("weft-")
            .tempdir()
            .map_err(HarnessError::file(std::env::temp_dir()))?;
        let plan = ClusterPlan {
            watched: None,
            binaries: Binaries::find()?,
            layout,
            folder: folder.path().to_owned(),
            master_key: None,
            filter: options.filter,
            body_routing: true,
            access_log: options.access_log,
            merger_environment: options.merger_environment,
            envoy_arguments: Vec::new(),
            edit_envoy: options.edit_envoy,
            behind_links: None,
            guards: false,
            sockets: None,
            etcd_syncs: false,
            etcd_tls: None,
        };
        let mut nodes = Vec::new();
        for (shard, replica) in layout.nodes() {
            let node = Arc::new(StandIn::default());
            node.serve(layout.node(shard, replica)).await?;
            nodes.push(node);
        }
        let cluster = Self {
            nodes,
            envoy: Process::start(plan.envoy(0)?, Lifetime::WithUs)?,
            merger: Process::start(plan.merger(0), Lifetime::WithUs)?,
            layout,
            folder,
            _ports: ports,
        };
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .build()?;
        let version = format!("{}/version", cluster.url());
        crate::until(
            "a cluster of stand-ins",
            Deadline::after(Duration::from_secs(60)),
            || get(&client, &version),
        )
        .await?;
        let clusters = format!("http://127.0.0.1:{}/clusters?format=json", layout.admin());
        crate::until(
            "stand-ins that get reads",
            Deadline::after(Duration::from_secs(60)),
            || async {
                let clusters = get_json(&client, &clusters).await?;
                match hosts(&clusters).find(|(_, healthy)| !healthy) {
                    None => Ok(()),
                    Some((name, _)) => Err(name.to_owned()),
                }
            },
        )
        .await?;
        Ok(cluster)
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.layout.edge())
    }

    /// Its ports.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The merger's process.
    pub fn merger(&self) -> &Process {
        &self.merger
    }

    /// Envoy's process.
    pub fn envoy(&self) -> &Process {
        &self.envoy
    }

    /// The folder to which all of the cluster's programs write.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl StandIn {
    /// All requests received since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a file for browsers, like the files of a node's dashboard.
    pub fn add_file(&self, path: &str, content_type: &'static str, text: &'static str) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(path.to_owned(), (content_type, text));
    }

    /// Sets how searches are answered.
    pub fn answer_searches(&self, searches: Searches) {
        *self.searches() = searches;
    }

    /// How many bytes its answers to searches had since the last call.
    pub fn take_found_bytes(&self) -> u64 {
        self.found_bytes.swap(0, Ordering::Relaxed)
    }

    fn searches(&self) -> MutexGuard<'_, Searches> {
        self.searches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops all tasks from ending, or lets them end.
    pub fn hold_tasks(&self, hold: bool) {
        self.holds_tasks.store(hold, Ordering::Relaxed);
    }

    /// Answers on this port of loopback as long as the runtime lives.
    ///
    /// # Errors
    /// The port isn't free.
    pub async fn serve(self: &Arc<Self>, port: u16) -> Result<(), HarnessError> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .map_err(HarnessError::file(format!("port {port}")))?;
        let this = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let this = Arc::clone(&this);
                let service = service_fn(move |request| {
                    let this = Arc::clone(&this);
                    async move { Ok::<_, Infallible>(this.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(())
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, mut body) = request.into_parts();
        let (mut body_bytes, mut text) = (0, Vec::new());
        while let Some(Ok(frame)) = body.frame().await {
            let data = frame.into_data().unwrap_or_default();
            body_bytes += data.len() as u64;
            if body_bytes <= SEARCHED_BYTES {
                text.extend_from_slice(&data);
            }
        }
        let poisoned = String::from_utf8_lossy(&text).contains(POISON);
        let path = head
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string);
        let file = {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.get(&path).copied()
        };
        let (status, answer) = self.answer_to(&head.method, &path, poisoned);
        let is_search = head.uri.path().ends_with("/search");
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() < REMEMBERED {
                seen.push(Seen {
                    method: head.method,
                    path,
                    headers: head.headers,
                    body_bytes,
                });
            }
        }
        if let Some((content_type, text)) = file {
            let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
            let content_type = HeaderValue::from_static(content_type);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            return response;
        }
        let mut answer = Bytes::from(answer.to_string());
        if is_search {
            let Searches { answer: set, takes } = self.searches().clone();
            tokio::time::sleep(takes.draw()).await;
            if !set.is_empty() {
                answer = set;
            }
            let bytes = answer.len() as u64;
            self.found_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let mut response = Response::new(Full::new(answer));
        *response.status_mut() = status;
        response
    }

    fn answer_to(
        &self,
        method: &Method,
        path_and_query: &str,
        poisoned: bool,
    ) -> (StatusCode, Value) {
        let (path, query) = path_and_query
            .split_once('?')
            .unwrap_or((path_and_query, ""));
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let answer = match (method.as_str(), segments.as_slice()) {
            ("GET", ["version"]) => {
                json!({"commitSha": "", "commitDate": "", "pkgVersion": "1.50.0"})
            }
            ("GET", ["tasks"]) => return (StatusCode::OK, self.tasks(query)),
            ("GET", ["keys" | "indexes"]) => {
                json!({"results": [], "offset": 0, "limit": 20, "total": 0})
            }
            ("GET", ["indexes", uid]) => json!({
                "uid": uid, "primaryKey": "id",
                "createdAt": "2025-01-01T00:00:00Z", "updatedAt": "2025-01-01T00:00:00Z",
            }),
            (_, [.., "search"]) => json!({
                "hits": [], "query": "", "processingTimeMs": 0, "limit": 20, "offset": 0, "estimatedTotalHits": 0,
            }),
            ("GET", _) => json!({}),
            _ => {
                let uid = self.tasks.fetch_add(1, Ordering::Relaxed);
                if poisoned {
                    self.failed().insert(uid);
                }
                let index = segments.get(1).copied().unwrap_or("x");
                let accepted = json!({
                    "taskUid": uid, "indexUid": index, "status": "enqueued",
                    "type": "documentAdditionOrUpdate", "enqueuedAt": "2025-01-01T00:00:00Z",
                });
                return (StatusCode::ACCEPTED, accepted);
            }
        };
        (StatusCode::OK, answer)
    }

    fn failed(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every requested task has ended, unless tasks are held.
    fn tasks(&self, query: &str) -> Value {
        let uids = query.split('&').find_map(|pair| pair.strip_prefix("uids="));
        // Without a filter, the newest task: the merger checks whether a node's task numbers continue.
        let newest = self.tasks.load(Ordering::Relaxed).checked_sub(1);
        let newest = newest.map(|uid| uid.to_string()).unwrap_or_default();
        let uids = uids.unwrap_or(&newest);
        let failed = self.failed();
        let held = self.holds_tasks.load(Ordering::Relaxed);
        let task = |uid: u64| {
            let (status, error) = if held {
                ("enqueued", Value::Null)
            } else if failed.contains(&uid) {
                let error = json!({"message": "Poison.", "code": "internal", "type": "internal", "link": ""});
                ("failed", error)
            } else {
                ("succeeded", Value::Null)
            };
            json!({
                "uid": uid, "batchUid": uid, "indexUid": "x", "status": status,
                "type": "documentAdditionOrUpdate", "canceledBy": null, "error": error,
                "details": {"receivedDocuments": 1, "indexedDocuments": 1}, "duration": "PT0.001S",
                "enqueuedAt": "2025-01-01T00:00:00Z",
                "startedAt": if held { Value::Null } else { "2025-01-01T00:00:00Z".into() },
                "finishedAt": if held { Value::Null } else { "2025-01-01T00:00:00Z".into() },
            })
        };
        let uids = uids.split(',').filter_map(|uid| uid.parse().ok());
        let results: Vec<Value> = uids.map(task).collect();
        json!({"results": results, "total": results.len(), "limit": 200, "from": null, "next": null})
    }
}
