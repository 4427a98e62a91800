//! The options of `weft config envoy`, as clap reads them. [`Topology`](super::Topology) is the checked form.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args};
use weft_routing::ShardNames;

use super::address::Address;
use super::tls::TlsArgs;
use super::topology::AccessLog;
use crate::sockets::SocketMode;

/// Options of `weft config envoy`.
#[derive(Debug, Clone, Args)]
pub struct EnvoyArgs {
    /// Number of shards.
    #[arg(long, default_value_t = 3, conflicts_with = "nodes")]
    pub shards: u16,

    /// Nodes in each shard.
    #[arg(long, default_value_t = 1, conflicts_with = "nodes")]
    pub replicas: u16,

    /// First port: edge PORT, admin PORT+1, egress PORT+2, merger PORT+3, readiness PORT+4, nodes from PORT+10.
    #[arg(long, default_value_t = 7700)]
    pub port: u16,

    /// Where nodes are, with {shard}, {replica} and {port} filled in ({port} counts up from PORT+10).
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:{port}")]
    pub node_host: String,

    /// One node, SHARD=HOST:PORT; repeat it for every node, instead of --shards, --replicas and --node-host.
    #[arg(
        long = "node",
        value_name = "SHARD=HOST:PORT",
        conflicts_with = "node_host"
    )]
    pub nodes: Vec<NodeArg>,

    /// Envoy watches files in this folder for the shards: `weft config shards` writes them. Then shards and nodes come and go
    /// without a restart of Envoy.
    #[arg(long, value_name = "DIR")]
    pub dynamic: Option<PathBuf>,

    /// Each shard's nodes are in a file of their own, in which the merger may put a spare node in another's place.
    #[arg(long, requires = "dynamic")]
    pub eds: bool,

    /// A spare node; repeat it for each. The merger takes one when another node stays away (--replace-after-s).
    #[arg(long = "spare", value_name = "IP:PORT", requires = "eds")]
    pub spares: Vec<Address>,

    /// What the shards' clusters are called: a prefix before the shard's number, or a text with {} in the number's place.
    #[arg(long, env = "WEFT_SHARD_PREFIX", default_value = "shard-")]
    pub shard_prefix: ShardNames,

    /// Where clients arrive [default: 127.0.0.1:PORT].
    #[arg(long, value_name = "IP:PORT")]
    pub edge: Option<Address>,

    /// Envoy's admin interface [default: 127.0.0.1:PORT+1].
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<Address>,

    /// The merger's way to the nodes [default: 127.0.0.1:PORT+2].
    #[arg(long, value_name = "IP:PORT")]
    pub egress: Option<Address>,

    /// Where the merger listens [default: 127.0.0.1:PORT+3].
    #[arg(long, value_name = "HOST:PORT")]
    pub merger: Option<Address>,

    /// Where health checks arrive if the merger is a DNS name or has TLS [default: 127.0.0.1:PORT+4].
    #[arg(long, value_name = "IP:PORT")]
    pub readiness: Option<Address>,

    /// Folder with the Unix sockets between Envoy and the merger (merger.sock, egress.sock), which must see it under the same
    /// path. Start the merger with --listen unix:DIR/merger.sock --egress unix:DIR/egress.sock.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["merger", "egress", "readiness"])]
    pub sockets: Option<PathBuf>,

    /// Who may connect to Envoy's socket: its own user (600), its group, too (660), or everybody (666).
    #[arg(long, default_value_t = SocketMode::default(), requires = "sockets")]
    pub socket_mode: SocketMode,

    /// This Envoy's merger is one of several (--etcd): reads end here when it has been silent for two seconds, because another
    /// merger may acknowledge writes meanwhile.
    #[arg(long)]
    pub several_mergers: bool,

    /// Another merger of the same cluster; repeat it for each. While this Envoy's own merger is gone, they answer its clients.
    #[arg(
        long = "other-merger",
        value_name = "HOST:PORT",
        requires = "several_mergers"
    )]
    pub other_mergers: Vec<Address>,

    /// The filter, as Envoy will find it.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/wasm32-wasip1/release/weft_filter.wasm"
    )]
    pub wasm: PathBuf,

    /// Leave the filter out: everything goes through the merger.
    #[arg(long)]
    pub no_filter: bool,

    /// Whether the filter looks into small bodies for document ids.
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub body_routing: bool,

    /// Collector (OTLP over gRPC) to which Envoy sends its spans; give the merger's --otlp-endpoint the same one.
    #[arg(long, value_name = "HOST:PORT")]
    pub otlp_tracing: Option<Address>,

    /// How many percent of the requests that come without `traceparent` are traced.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value = "100",
        value_parser = millionths,
        requires = "otlp_tracing"
    )]
    pub otlp_sampling: u32,

    /// TLS at the edge, to the nodes, to and from the mergers, to the collector.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// What the edge logs on standard output, as JSON lines.
    #[arg(long, value_enum, default_value_t = AccessLog::All)]
    pub access_log: AccessLog,
}

/// Reads percent as a number of requests in a million.
fn millionths(text: &str) -> Result<u32, String> {
    let percent = text.parse::<f64>().ok();
    match percent.filter(|percent| (0.0..=100.0).contains(percent)) {
        Some(percent) => Ok((percent * 10_000.0).round() as u32),
        None => Err(format!("`{text}` is not a number from 0 to 100")),
    }
}

/// A node as given with `--node`: `0=10.0.0.7:7700`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeArg {
    /// Number of its shard.
    pub shard: u16,
    /// Where it listens.
    pub address: Address,
}

impl FromStr for NodeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (shard, address) = text
            .split_once('=')
            .ok_or("expected SHARD=HOST:PORT, such as 0=10.0.0.7:7700")?;
        Ok(Self {
            shard: shard
                .parse()
                .map_err(|_| format!("`{shard}` is no number of a shard"))?,
            address: address
                .parse::<Address>()
                .map_err(|error| error.to_string())?,
        })
    }
}
