//! Traces: what a real collector (OTLP over gRPC) gets of requests through Envoy, merger, Envoy and nodes; and that a collector which
//! is gone or silent costs nobody anything.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use weft_cluster::{
    Api, Cluster, Deadline, Lifetime, PortBlock, Process, Program, StandInCluster, until,
};

use crate::support::{documents, start};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Who began the trace, outside of the cluster.
const OUTSIDE: &str = "b7ad6b7169203331";

fn parent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{OUTSIDE}-{flags}")
}

/// A running collector, and the file into which it writes each span.
pub(crate) struct Collector {
    pub(crate) address: String,
    spans: PathBuf,
    _process: Process,
    _folder: TempDir,
    _port: PortBlock,
}

impl Collector {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With a certificate and its key: it speaks TLS.
    pub(crate) async fn start_with(own: &[String]) -> Self {
        let port = PortBlock::claim(1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let spans = folder.path().join("spans.jsonl");
        let top = Path::new(TOP).canonicalize().unwrap();
        let program = Program {
            name: "collector".to_owned(),
            // `make clients` installs it.
            executable: top.join(".venv/bin/python"),
            arguments: [
                top.join("tests/clients/otlp.py").into(),
                port.base().to_string().into(),
                spans.clone().into(),
            ]
            .into_iter()
            .chain(own.iter().map(Into::into))
            .collect(),
            environment: Vec::new(),
            folder: folder.path().to_owned(),
            log: folder.path().join("collector.log"),
        };
        let process = Process::start(program, Lifetime::WithUs).unwrap();
        let address = format!("127.0.0.1:{}", port.base());
        let listens = || async {
            process.check_alive().map_err(|error| error.to_string())?;
            std::net::TcpStream::connect(&address).map_err(|error| error.to_string())
        };
        let deadline = Deadline::after(Duration::from_secs(30));
        until("the collector", deadline, listens).await.unwrap();
        Self {
            address,
            spans,
            _process: process,
            _folder: folder,
            _port: port,
        }
    }

    /// The spans of a trace that have come so far.
    pub(crate) fn spans(&self, trace: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.spans).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|span: &Value| span["trace"] == trace)
            .collect()
    }

    /// The values of a metric that have come so far, with their labels.
    fn points(&self, metric: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.spans).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|point: &Value| point["metric"] == metric)
            .collect()
    }

    /// The tree of a trace, once `is_whole` says that nothing is missing. Envoy keeps spans for up to five seconds.
    async fn tree(&self, trace: &str, is_whole: impl Fn(&Tree) -> bool) -> Tree {
        let look = || async {
            let tree = Tree(self.spans(trace));
            match is_whole(&tree) {
                true => Ok(tree),
                false => Err(tree.to_string()),
            }
        };
        let deadline = Deadline::after(Duration::from_secs(30));
        until("a trace", deadline, look).await.unwrap()
    }
}

/// The spans of one trace.
struct Tree(Vec<Value>);

impl Tree {
    /// Where a span stands: the programs and names from the outermost down to it.
    fn place(&self, span: &Value) -> String {
        let name = format!("{} {}", text(span, "program"), text(span, "name"));
        let above = self.0.iter().find(|other| other["id"] == span["parent"]);
        match above {
            Some(above) => format!("{} > {name}", self.place(above)),
            None => format!("{} > {name}", text(span, "parent")),
        }
    }

    fn of<'a>(&'a self, program: &'a str, name: &'a str) -> impl Iterator<Item = &'a Value> {
        let fits = move |span: &&Value| span["program"] == program && text(span, "name") == name;
        self.0.iter().filter(fits)
    }

    fn one<'a>(&'a self, program: &'a str, name: &'a str) -> &'a Value {
        let mut found = self.of(program, name);
        found
            .next()
            .unwrap_or_else(|| panic!("no {program} {name} in {self}"))
    }

    fn beneath<'a>(&'a self, above: &'a Value) -> impl Iterator<Item = &'a Value> {
        self.0
            .iter()
            .filter(move |span| span["parent"] == above["id"])
    }

    /// The names of what is beneath a span, in the order of their beginnings.
    fn phases<'a>(&'a self, above: &'a Value) -> Vec<&'a str> {
        let mut found: Vec<&Value> = self.beneath(above).collect();
        found.sort_by_key(|span| span["start"].as_u64());
        found.iter().map(|span| text(span, "name")).collect()
    }

    /// What of the merger's requests to nodes is followed by both of Envoy's spans: one for the request, one for the attempt.
    fn through_egress(&self, client: &Value) -> bool {
        self.beneath(client).any(|server| {
            server["program"] == "weft-egress" && self.beneath(server).next().is_some()
        })
    }

    /// The merger's requests to nodes.
    fn clients(&self) -> Vec<&Value> {
        let is_client = |span: &&Value| span["program"] == "weft-merger" && span["kind"] == 3;
        self.0.iter().filter(is_client).collect()
    }

    /// Whether Envoy's spans are all there.
    fn has_envoys(&self, clients: usize) -> bool {
        let clients_are = self.clients();
        clients_are.len() >= clients
            && clients_are.iter().all(|client| self.through_egress(client))
            && self
                .0
                .iter()
                .any(|span| span["program"] == "weft-edge" && span["parent"] == OUTSIDE)
    }
}

impl std::fmt::Display for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut places: Vec<String> = self.0.iter().map(|span| self.place(span)).collect();
        places.sort();
        write!(f, "{}", places.join("\n"))
    }
}

fn text<'a>(span: &'a Value, member: &str) -> &'a str {
    span[member].as_str().unwrap_or_default()
}

async fn traced(api: &Api, path: &str, body: &Value, traceparent: &str) {
    let headers = [
        ("content-type", "application/json"),
        ("traceparent", traceparent),
    ];
    let body = body.to_string().into_bytes();
    let sent = api.send(reqwest::Method::POST, path, &headers, body).await;
    let reply = sent.unwrap();
    assert!(reply.status < 300, "{path}: {}", reply.text);
}

async fn cluster(collector: &Collector, filter: bool) -> (Cluster, Api) {
    let builder = Cluster::builder()
        .shards(3)
        .filter(filter)
        .merger_env(
            "WEFT_OTLP_ENDPOINT",
            format!("http://{}", collector.address),
        )
        .envoy_args(["--otlp-tracing", &collector.address]);
    let (cluster, api) = start(builder).await;
    let path = "/indexes/x/documents?primaryKey=id";
    let accepted = api.post(path, &documents(0..60)).await.unwrap();
    api.succeed(&accepted).await.unwrap();
    (cluster, api)
}

const SEARCH: &str = "0af7651916cd43dd8448eb211c80319c";
const WRITE: &str = "1bf7651916cd43dd8448eb211c80319c";
const SMALL: &str = "2cf7651916cd43dd8448eb211c80319c";
const UNSAMPLED: &str = "3df7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn a_trace_leads_from_the_edge_through_all_phases_to_each_node() {
    let collector = Collector::start().await;
    for filter in [true, false] {
        let (_cluster, api) = cluster(&collector, filter).await;
        let trace = |of: &str| format!("{}{of}", if filter { "a" } else { "b" });
        let (search, write) = (trace(&SEARCH[1..]), trace(&WRITE[1..]));
        let (small, unsampled) = (trace(&SMALL[1..]), trace(&UNSAMPLED[1..]));
        let query = json!({"q": "amber"});
        traced(&api, "/indexes/x/search", &query, &parent(&unsampled, "00")).await;
        traced(&api, "/indexes/x/search", &query, &parent(&search, "01")).await;
        let many = documents(100..200);
        traced(&api, "/indexes/x/documents", &many, &parent(&write, "01")).await;
        let one = documents(7..8);
        traced(&api, "/indexes/x/documents", &one, &parent(&small, "01")).await;

        let tree = collector.tree(&search, |tree| tree.has_envoys(3)).await;
        let server = tree.one("weft-merger", "POST search-post");
        assert_eq!(
            tree.phases(server),
            ["plan", "scatter", "gather", "merge"],
            "{tree}"
        );
        // The edge's span of the client's request, the one of its attempt at the merger, and the merger's.
        let place = tree.place(server);
        assert_eq!(place.matches("weft-edge").count(), 2, "{place}");
        assert!(place.starts_with(OUTSIDE), "{place}");
        let attributes = &server["attributes"];
        for (name, value) in [
            ("http.request.method", json!("POST")),
            ("url.path", json!("/indexes/x/search")),
            ("http.response.status_code", json!(200)),
            ("weft.index", json!("x")),
            ("weft.operation", json!("search-post")),
        ] {
            assert_eq!(attributes[name], value, "{name}");
        }
        let scatter = tree.one("weft-merger", "scatter");
        let shards: BTreeSet<i64> = tree
            .beneath(scatter)
            .map(|client| client["attributes"]["weft.shard"].as_i64().unwrap())
            .collect();
        assert_eq!(shards, BTreeSet::from([0, 1, 2]), "{tree}");
        for client in tree.beneath(scatter) {
            let attributes = &client["attributes"];
            assert_eq!(attributes["http.response.status_code"], 200);
            let node = format!("shard-{}-node-0", attributes["weft.shard"]);
            assert_eq!(attributes["weft.node"], node);
        }

        let tree = collector.tree(&write, |tree| tree.has_envoys(3)).await;
        let server = tree.one("weft-merger", "POST replace-documents");
        assert_eq!(
            tree.phases(server),
            ["split", "sequence", "deliver"],
            "{tree}"
        );
        let deliver = tree.one("weft-merger", "deliver");
        assert_eq!(
            tree.beneath(deliver)
                .filter(|span| text(span, "name").starts_with("POST"))
                .count(),
            3,
            "{tree}"
        );

        let tree = collector.tree(&small, |tree| tree.has_envoys(1)).await;
        let server = tree.one("weft-merger", "POST replace-documents");
        assert_eq!(tree.phases(server), ["split", "deliver"], "{tree}");

        // What came before those that are whole would be there, too.
        let left = Tree(collector.spans(&unsampled));
        assert!(left.0.is_empty(), "{left}");
    }
}

/// The merger's counter of spans with this outcome.
async fn spans(cluster: &StandInCluster, outcome: &str) -> u64 {
    let merger = Api::new(
        format!("http://127.0.0.1:{}", cluster.layout().merger()),
        None,
    );
    let metrics = merger.get("/_weft/metrics").await.unwrap().text;
    let name = format!("weft_merger_spans_total{{outcome=\"{outcome}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn a_collector_that_is_gone_or_silent_costs_spans_and_nothing_else() {
    // Somebody listens and never answers; and nobody listens.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = PortBlock::claim(1).unwrap();
    for port in [silent.local_addr().unwrap().port(), gone.base()] {
        let environment = vec![
            (
                "WEFT_OTLP_ENDPOINT".to_owned(),
                format!("http://127.0.0.1:{port}"),
            ),
            ("WEFT_OTLP_SAMPLE_RATIO".to_owned(), "1".to_owned()),
        ];
        let cluster = StandInCluster::start(3, false, environment).await.unwrap();
        let api = Api::new(cluster.url(), None);
        let path = "/indexes/x/documents?primaryKey=id";
        let accepted = api.post(path, &documents(0..60)).await.unwrap();
        api.succeed(&accepted).await.unwrap();
        let deadline = Deadline::after(Duration::from_secs(60));
        let mut times = Vec::new();
        while times.is_empty() || spans(&cluster, "not-taken").await == 0 {
            assert!(!deadline.passed(), "no span was dropped");
            for _ in 0..50 {
                let asked = Instant::now();
                let reply = api
                    .post("/indexes/x/search", &json!({"q": "a"}))
                    .await
                    .unwrap();
                assert_eq!(reply.status, 200, "{}", reply.text);
                times.push(asked.elapsed());
            }
        }
        times.sort();
        // A batch is given five seconds: nobody waited for one.
        let median = times[times.len() / 2];
        assert!(median < Duration::from_secs(2), "{median:?}");
        assert_eq!(spans(&cluster, "sent").await, 0);
        let asked = Instant::now();
        cluster.merger().terminate().unwrap();
        let took = asked.elapsed();
        assert!(
            took < Duration::from_secs(6),
            "{took:?} until the merger had ended"
        );
    }
}

#[tokio::test]
async fn metrics_go_to_the_collector_if_one_asks_for_that() {
    let collector = Collector::start().await;
    let builder = Cluster::builder()
        .shards(2)
        .merger_env(
            "WEFT_OTLP_ENDPOINT",
            format!("http://{}", collector.address),
        )
        .merger_env("WEFT_OTLP_METRICS", "true")
        .merger_env("WEFT_OTLP_METRICS_INTERVAL_MS", "200");
    let (_cluster, api) = start(builder).await;
    let path = "/indexes/x/documents?primaryKey=id";
    let accepted = api.post(path, &documents(0..60)).await.unwrap();
    api.succeed(&accepted).await.unwrap();
    let searched = api.post("/indexes/x/search", &json!({"q": "a"})).await;
    assert_eq!(searched.unwrap().status, 200);
    let wanted = [
        (
            "weft_merger_requests_total",
            "sum",
            ("operation", "search-post"),
        ),
        (
            "weft_merger_request_seconds",
            "histogram",
            ("operation", "search-post"),
        ),
        (
            "weft_merger_tasks_ended_total",
            "sum",
            ("status", "succeeded"),
        ),
        ("weft_merger_replicas", "gauge", ("standing", "in-sync")),
    ];
    let look = || async {
        for (metric, kind, (label, value)) in wanted {
            let points = collector.points(metric);
            let mut own = points
                .iter()
                .filter(|point| point["attributes"][label] == value && point["kind"] == kind);
            if !own.any(|point| point["value"].as_f64() >= Some(1.0)) {
                return Err(format!("{metric}: {points:?}"));
            }
        }
        Ok(())
    };
    let deadline = Deadline::after(Duration::from_secs(30));
    until("metrics", deadline, look).await.unwrap();
}
