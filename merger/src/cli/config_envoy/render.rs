//! Fills the template in: a pure function from a topology to the text of its `envoy.yaml`.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;
use weft_routing::{ShardId, ShardNames, headers};

use super::address::Address;
use super::past_filter::{PAST_FILTER, WayView};
use super::tls::{ListenerView, PeersView, Tls};
use super::topology::{AccessLog, Dynamic, Filter, Node, Shard, Topology};
use crate::endpoints::{Assignment, CLUSTERS_FILE, Check, Endpoint, SPARE, SPARE_FILE, shard_file};
use crate::sockets::{SocketMode, SocketPath};
use crate::upstream::PASSED_ON;

const TEMPLATE: &str = include_str!("envoy.yaml.jinja");
const SHARDS_TEMPLATE: &str = include_str!("shards.yaml.jinja");

/// The headers by which the filter tells routes and merger what it found, and the merger tells guards who leads. A client that
/// could send them could choose its cluster, or shut a node for the merger.
const INTERNAL_HEADERS: [&str; 7] = [
    headers::CLUSTER,
    headers::OPERATION,
    headers::TERM,
    headers::DEGRADED,
    headers::LOG,
    headers::SHARDS,
    PASSED_ON,
];

/// The template and its values don't fit together. This is a mistake in Weft, not in a configuration.
#[derive(Debug, thiserror::Error)]
#[error("envoy.yaml could not be made: {0:#}")]
pub struct RenderError(#[from] minijinja::Error);

/// The text of the `envoy.yaml` for this cluster.
pub fn render(topology: &Topology) -> Result<String, RenderError> {
    let mut view = View::of(topology);
    if view.dynamic.is_none() {
        view.shard_clusters = fill(SHARDS_TEMPLATE, &view)?
            .trim_end_matches('\n')
            .to_owned();
    }
    fill(TEMPLATE, &view)
}

/// The text of the file with the clusters of the shards (CDS), for an Envoy that watches it.
pub(super) fn render_shards(topology: &Topology) -> Result<String, RenderError> {
    fill(SHARDS_TEMPLATE, &View::of(topology))
}

/// The files with the nodes of each shard, and with the spare ones (EDS): their names and texts. None, if the nodes stand beside
/// the clusters.
pub(super) fn render_endpoints(topology: &Topology) -> Vec<(String, String)> {
    let spares = topology.dynamic.as_ref().and_then(|it| it.spares.as_ref());
    let Some(spares) = spares else {
        return Vec::new();
    };
    let asked = topology.readiness.as_ref().unwrap_or(&topology.merger);
    let socket = topology.sockets.as_ref().map(|it| it.merger.to_string());
    let check = match &socket {
        Some(path) => Check::Socket(path),
        None => Check::At(asked.host(), asked.port()),
    };
    let shards = topology.shards.iter().map(|shard| {
        let cluster = topology.shard_names.of(ShardId(shard.number));
        let file = Assignment::new(&cluster, &placed(&shard.nodes), Some(check));
        (shard_file(ShardId(shard.number)), file.text())
    });
    let spare = Assignment::new(SPARE, &placed(spares), None);
    shards
        .chain([(SPARE_FILE.to_owned(), spare.text())])
        .collect()
}

/// Nodes as they stand in a file. The topology has checked that all addresses are IPs.
fn placed(nodes: &[Node]) -> Vec<Endpoint> {
    let place = |node: &Node| {
        Some(Endpoint {
            name: node.name.clone(),
            address: node.address.host().parse().ok()?,
            port: node.address.port(),
        })
    };
    nodes.iter().filter_map(place).collect()
}

/// A template with its values filled in.
pub(super) fn fill(template: &str, view: &impl Serialize) -> Result<String, RenderError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // A line with only a tag adds nothing to the file.
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()?,
    );
    // By the file's name, every value would be quoted as JSON, but the values are already flow-style YAML.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.add_template("envoy.yaml", template)?;
    Ok(environment
        .get_template("envoy.yaml")?
        .render(Serde(view))?)
}

/// How long a filter goes on by its table when its own merger is silent and others can answer: as long as Envoy goes on reading
/// when connections to that merger are refused, three checks a fifth of a second apart.
const LEASE_BESIDE_OTHERS_MS: u32 = 600;

/// The values for the template.
#[derive(Serialize)]
struct View {
    edge: String,
    admin: String,
    egress: String,
    /// Whether the merger comes to it over a Unix socket.
    sockets: bool,
    merger: String,
    merger_discovery: &'static str,
    readiness: Option<String>,
    /// The address for every health check: the merger's, or that of the listener that leads to it.
    check: String,
    several_mergers: bool,
    other_mergers: Vec<String>,
    other_mergers_discovery: &'static str,
    filter: bool,
    wasm: String,
    filter_configuration: String,
    access_log: &'static str,
    /// The collector of traces.
    tracing: Option<String>,
    tracing_discovery: &'static str,
    sampling_millionths: u32,
    tls_edge: Option<ListenerView>,
    tls_nodes: Option<PeersView>,
    tls_mergers: Option<PeersView>,
    tls_egress: Option<ListenerView>,
    tls_otlp: Option<PeersView>,
    /// True if other mergers are reached in another way than nodes.
    peers: bool,
    internal_headers: Vec<&'static str>,
    /// What goes to the merger without the filter.
    past_filter: Vec<WayView>,
    /// True if a slow read can be sent to another node.
    hedging: bool,
    node_count: usize,
    /// The prefix and the pattern of the names of the shards' clusters.
    shard_prefix: String,
    shard_pattern: String,
    /// A regular expression for those names, with the number as its group.
    shard_regex: String,
    shards: Vec<ShardView>,
    /// Where Envoy finds the shards, if not in the `envoy.yaml`.
    dynamic: Option<DynamicView>,
    /// The text with the shards' clusters, for the `envoy.yaml` that has them.
    shard_clusters: String,
}

#[derive(Serialize)]
struct DynamicView {
    folder: String,
    clusters: String,
    /// Only if each shard's nodes are in a file of their own.
    spare_file: Option<String>,
}

#[derive(Serialize)]
struct ShardView {
    number: u16,
    cluster: String,
    discovery: &'static str,
    /// The percentage at which at least one node stays: 50 for 2 nodes, 66 for 3 nodes.
    max_ejection_percent: usize,
    tls: Option<PeersView>,
    nodes: Vec<NodeView>,
    /// The file with the nodes, if they don't stand beside the cluster.
    endpoints_file: Option<String>,
}

#[derive(Serialize)]
struct NodeView {
    name: String,
    address: String,
}

impl View {
    fn of(topology: &Topology) -> Self {
        let tracing = topology.tracing.as_ref();
        let names = &topology.shard_names;
        let sockets = topology.sockets.as_ref();
        let merger = match sockets {
            Some(sockets) => pipe(&sockets.merger, None),
            None => socket(&topology.merger),
        };
        let tls = topology.tls.as_ref();
        let mergers = topology.other_mergers.iter().chain([&topology.merger]);
        Self {
            edge: socket(&topology.edge),
            admin: socket(&topology.admin),
            egress: match sockets {
                Some(sockets) => pipe(&sockets.egress, Some(sockets.mode)),
                None => socket(&topology.egress),
            },
            sockets: sockets.is_some(),
            merger: merger.clone(),
            merger_discovery: discovery([&topology.merger]),
            readiness: topology.readiness.as_ref().map(socket),
            check: topology.readiness.as_ref().map_or(merger, socket),
            several_mergers: topology.several_mergers,
            other_mergers: topology.other_mergers.iter().map(socket).collect(),
            other_mergers_discovery: discovery(
                topology.other_mergers.iter().chain([&topology.merger]),
            ),
            filter: topology.filter.is_some(),
            wasm: topology
                .filter
                .as_ref()
                .map(|filter| filter.wasm.display().to_string())
                .unwrap_or_default(),
            filter_configuration: topology
                .filter
                .as_ref()
                .map(|filter| filter_configuration(filter, topology))
                .unwrap_or_default(),
            access_log: match topology.access_log {
                AccessLog::All => "all",
                AccessLog::Detailed => "detailed",
                AccessLog::Failed => "failed",
                AccessLog::Off => "off",
            },
            tracing: tracing.map(|tracing| socket(&tracing.collector)),
            tracing_discovery: discovery(tracing.map(|tracing| &tracing.collector)),
            sampling_millionths: tracing.map_or(0, |tracing| tracing.millionths),
            tls_edge: topology.tls.as_ref().and_then(Tls::edge),
            tls_nodes: topology.tls.as_ref().and_then(|tls| {
                let shards = topology.shards.iter();
                tls.nodes(shards.flat_map(Shard::addresses))
            }),
            tls_mergers: tls.and_then(|tls| tls.mergers(mergers)),
            tls_egress: tls.and_then(Tls::egress),
            tls_otlp: tls
                .zip(tracing)
                .and_then(|(tls, to)| tls.otlp(&to.collector)),
            peers: topology.several_mergers && tls.is_some(),
            internal_headers: INTERNAL_HEADERS.to_vec(),
            past_filter: PAST_FILTER.iter().map(WayView::of).collect(),
            shard_regex: Value::from(format!(r"\Q{}\E", names.with(r"\E([0-9]+)\Q"))).to_string(),
            hedging: topology.shards.iter().any(|shard| shard.nodes.len() > 1),
            node_count: topology.shards.iter().map(|shard| shard.nodes.len()).sum(),
            shard_prefix: scalar(topology.shard_names.prefix()),
            shard_pattern: topology.shard_names.with("<number>"),
            shards: topology
                .shards
                .iter()
                .map(|shard| ShardView::of(shard, topology))
                .collect(),
            dynamic: topology.dynamic.as_ref().map(DynamicView::of),
            shard_clusters: String::new(),
        }
    }
}

impl DynamicView {
    fn of(dynamic: &Dynamic) -> Self {
        let spares = dynamic.spares.as_ref();
        Self {
            folder: dynamic.folder.display().to_string(),
            clusters: dynamic.path(CLUSTERS_FILE),
            spare_file: spares.map(|_| dynamic.path(SPARE_FILE)),
        }
    }
}

impl ShardView {
    fn of(shard: &Shard, topology: &Topology) -> Self {
        let count = shard.nodes.len();
        let number = ShardId(shard.number);
        let dynamic = topology.dynamic.as_ref();
        let with_files = dynamic.filter(|dynamic| dynamic.spares.is_some());
        Self {
            number: shard.number,
            endpoints_file: with_files.map(|dynamic| dynamic.path(&shard_file(number))),
            cluster: scalar(&topology.shard_names.of(number)),
            discovery: discovery(shard.addresses()),
            tls: topology
                .tls
                .as_ref()
                .and_then(|tls| tls.nodes(shard.addresses())),
            max_ejection_percent: count.saturating_sub(1) * 100 / count.max(1),
            nodes: shard
                .nodes
                .iter()
                .map(|node| NodeView {
                    name: node.name.clone(),
                    address: socket(&node.address),
                })
                .collect(),
        }
    }
}

/// An address as Envoy writes it.
pub(super) fn socket(address: &Address) -> String {
    format!(
        "{{ socket_address: {{ address: \"{}\", port_value: {} }} }}",
        address.host(),
        address.port()
    )
}

/// A Unix socket as Envoy writes it. The mode is for one that Envoy makes.
fn pipe(path: &SocketPath, mode: Option<SocketMode>) -> String {
    let path = serde_json::Value::from(path.to_string());
    match mode {
        Some(mode) => format!("{{ pipe: {{ path: {path}, mode: {} }} }}", mode.bits()),
        None => format!("{{ pipe: {{ path: {path} }} }}"),
    }
}

/// How Envoy finds these addresses.
pub(super) fn discovery<'a>(addresses: impl IntoIterator<Item = &'a Address>) -> &'static str {
    if addresses.into_iter().all(Address::is_ip) {
        "STATIC"
    } else {
        "DNS"
    }
}

/// A text as YAML: quoted unless it is a plain word.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match text.bytes().all(plain) {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// The filter's plugin configuration.
fn filter_configuration(filter: &Filter, topology: &Topology) -> String {
    let names = &topology.shard_names;
    // The edge listener removes what a client may not set.
    let mut configuration =
        serde_json::json!({ "body_routing": filter.body_routing, "headers_removed": true });
    if !topology.other_mergers.is_empty()
        && let Some(members) = configuration.as_object_mut()
    {
        // By then this Envoy calls no node ready, and another merger must answer.
        members.insert("max_lease_ms".to_owned(), LEASE_BESIDE_OTHERS_MS.into());
    }
    let logged = match topology.access_log {
        AccessLog::Detailed => Some("all"),
        AccessLog::Off => Some("none"),
        AccessLog::All | AccessLog::Failed => None,
    };
    if let (Some(logged), Some(members)) = (logged, configuration.as_object_mut()) {
        members.insert("log_operation".to_owned(), logged.into());
    }
    if *names != ShardNames::default()
        && let Some(members) = configuration.as_object_mut()
    {
        members.insert("shard_prefix".to_owned(), names.to_string().into());
    }
    configuration.to_string()
}
