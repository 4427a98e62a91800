//! Every knob of `weft serve`, with its default, in one place.

mod etcd;
mod otlp;
mod parts;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use weft_routing::{Origins, ShardNames, Strategy};

use crate::cluster::WriteMode;
use crate::leadership::OnLostStore;
use crate::sockets::{Egress, Listen, SocketMode};
use crate::webhooks::Networks;

pub use etcd::EtcdArgs;
pub use otlp::{OtlpArgs, ReportOptions};
pub use tls::{TlsArgs, TlsOptionsError};

/// What `weft serve` may be told; each flag has a `WEFT_*` variable beside it.
#[derive(Debug, Clone, Args)]
pub struct ServeOptions {
    /// Where the merger listens for Envoy (clients' requests, table polls, readiness checks): an address, `unix:` and a path, or several of them, separated by commas.
    #[arg(
        long,
        env = "WEFT_LISTEN",
        default_value = "127.0.0.1:7703",
        value_delimiter = ','
    )]
    pub listen: Vec<Listen>,
    /// Who may connect to such a socket of the merger's: its own user (`600`), its group, too (`660`), or everybody (`666`).
    #[arg(long, env = "WEFT_SOCKET_MODE", default_value_t = SocketMode::default())]
    pub socket_mode: SocketMode,
    /// Envoy's admin interface, from which shards and nodes are learned; `https://HOST:PORT`: the egress listener, where that has TLS.
    #[arg(long, env = "WEFT_ENVOY_ADMIN", default_value = "127.0.0.1:7701")]
    pub envoy_admin: String,
    /// Envoy's egress listener: the only way from the merger to a node. An address, `https://HOST:PORT` where it has TLS, or `unix:` and a path.
    #[arg(long, env = "WEFT_EGRESS", default_value = "127.0.0.1:7702")]
    pub egress: Egress,
    /// TLS between this merger, Envoys and other mergers.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Folder for tasks, placements and epochs. Created if missing.
    #[arg(long, env = "WEFT_DATA_DIR", default_value = "weft-data")]
    pub data_dir: PathBuf,
    /// The etcd that several mergers share.
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// How long a merger that died is still taken for the leader, in milliseconds; etcd may grant no less than 2 or 3 seconds.
    #[arg(
        long,
        env = "WEFT_LEADER_LEASE_MS",
        default_value_t = 3_000,
        value_parser = clap::value_parser!(u64).range(1_000..=60_000)
    )]
    pub leader_lease_ms: u64,
    /// What a merger does with reads while it can't hear etcd: `refuse` them and call no node ready, or `serve-reads` by what it knew.
    #[arg(long, env = "WEFT_ON_LOST_STORE", default_value = "refuse")]
    pub on_lost_store: OnLostStore,
    /// Address at which other mergers' Envoys reach this merger, if that isn't the one on which it listens.
    #[arg(long, env = "WEFT_ADVERTISE")]
    pub advertise: Option<SocketAddr>,
    /// The nodes' master key. Without it the nodes must run without one.
    #[arg(long, env = "WEFT_MASTER_KEY", hide_env_values = true)]
    pub master_key: Option<String>,
    /// Envoy clusters of this name are shards: a prefix before the shard's number, or a text with `{}` in the number's place.
    #[arg(long, env = "WEFT_SHARD_PREFIX", default_value = "shard-")]
    pub shard_prefix: ShardNames,
    /// How often Envoy is asked for shards and nodes, in milliseconds.
    #[arg(long, env = "WEFT_DISCOVERY_INTERVAL_MS", default_value_t = 1_000)]
    pub discovery_interval_ms: u64,
    /// How often each node is asked whether it is there and still the same, in milliseconds.
    #[arg(long, env = "WEFT_PROBE_INTERVAL_MS", default_value_t = 100)]
    pub probe_interval_ms: u64,
    /// After how long without an answer a node is down, in milliseconds; its shard goes on without it if another replica is in sync.
    #[arg(long, env = "WEFT_NODE_DOWN_AFTER_MS", default_value_t = 15_000)]
    pub node_down_after_ms: u64,
    /// The same in two numbers, as older versions had it: the length of a heartbeat in milliseconds.
    #[arg(long, env = "WEFT_HEARTBEAT_INTERVAL_MS", hide = true)]
    pub heartbeat_interval_ms: Option<u64>,
    /// How many heartbeats without an answer make a node down.
    #[arg(long, env = "WEFT_HEARTBEAT_MISSES", hide = true)]
    pub heartbeat_misses: Option<u32>,
    /// How long the other replicas may take for a write that one has taken, in milliseconds, beside twice the time that it took; one that is later is out of sync.
    #[arg(long, env = "WEFT_REPLICA_PATIENCE_MS", default_value_t = 2_000)]
    pub replica_patience_ms: u64,
    /// How many replicas must have taken a write before it is acknowledged, where neither request nor index says: `sync`, `quorum` or `async`.
    #[arg(long, env = "WEFT_WRITE_MODE", default_value = "sync")]
    pub write_mode: WriteMode,
    /// Whether large writes and settings are applied by one half of a shard's replicas while the other half answers searches, and then the other way round.
    #[arg(long, env = "WEFT_STAGGERED", default_value_t = false, action = clap::ArgAction::Set)]
    pub staggered: bool,
    /// From how many bytes on a shard's part of a write is large in that sense.
    #[arg(long, env = "WEFT_STAGGERED_MIN_BYTES", default_value_t = 1 << 20)]
    pub staggered_min_bytes: u64,
    /// How much a resync may copy, in bytes per second; 0 means as fast as it goes.
    #[arg(long, env = "WEFT_RESYNC_BYTES_PER_SECOND", default_value_t = 32 << 20)]
    pub resync_bytes_per_second: u64,
    /// How many documents of an index two shards hold at the same time, at most, while slots are moved.
    #[arg(
        long,
        env = "WEFT_MOVE_BATCH",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub move_batch: u32,
    /// How much fuller than the mean a shard may be, in percent, before slots are moved without being asked for; 0 means never.
    #[arg(
        long,
        env = "WEFT_REBALANCE_THRESHOLD_PERCENT",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=1_000)
    )]
    pub rebalance_threshold_percent: u32,
    /// Folder with the files in which this merger's Envoy finds the nodes of its shards (`weft config shards --eds`), for the merger to put spare nodes there.
    #[arg(long, env = "WEFT_EDS_DIR")]
    pub eds_dir: Option<PathBuf>,
    /// For how long a replica must be away, in seconds, before a spare node takes its place; 0 means never. It needs `--eds-dir`.
    #[arg(
        long,
        env = "WEFT_REPLACE_AFTER_S",
        alias = "replace-after",
        default_value_t = 0,
        requires = "eds_dir"
    )]
    pub replace_after_s: u64,
    /// How often all replicas of a shard are compared, in seconds; 0 means never by itself.
    #[arg(long, env = "WEFT_VERIFY_INTERVAL_S", default_value_t = 3_600)]
    pub verify_interval_s: u64,
    /// How long a filter may route by a table after polling it, in milliseconds.
    #[arg(long, env = "WEFT_LEASE_MS", default_value_t = 5_000)]
    pub lease_ms: u64,
    /// On how many shards an index is placed that asks for nothing else; 0 means all.
    #[arg(long, env = "WEFT_DEFAULT_SHARD_COUNT", default_value_t = 0)]
    pub default_shard_count: u16,
    /// How documents get their shards in an index that asks for nothing else: `hash`, `range:` and boundaries, separated by commas, or `field:` and the name of a field
    #[arg(long, env = "WEFT_DEFAULT_STRATEGY", default_value = "hash")]
    pub default_strategy: Strategy,
    /// Which way small writes take: straight from the filter to a shard of one replica, or together through the merger.
    #[arg(long, env = "WEFT_DIRECT_WRITES", default_value_t = false, action = clap::ArgAction::Set)]
    pub direct_writes: bool,
    /// Whether small writes that wait for the same shard go to it together, as one task of its node. Never with direct writes.
    #[arg(long, env = "WEFT_COALESCE", default_value_t = true, action = clap::ArgAction::Set)]
    pub coalesce: bool,
    /// How long the first of them waits for company, in milliseconds, beside the time that the shard is busy anyway.
    #[arg(long, env = "WEFT_COALESCE_WAIT_MS", default_value_t = 0)]
    pub coalesce_wait_ms: u64,
    /// Largest body of a document write, in bytes, after decompression.
    #[arg(long, env = "WEFT_MAX_IMPORT_BYTES", default_value_t = 4 << 30)]
    pub max_import_bytes: u64,
    /// Largest body of any other request, in bytes.
    #[arg(long, env = "WEFT_MAX_BODY_BYTES", default_value_t = 100 << 20)]
    pub max_body_bytes: u64,
    /// Largest piece of a write sent to a node at once, in bytes; below the nodes' own payload limit (100 MB by default).
    #[arg(long, env = "WEFT_MAX_NODE_PAYLOAD_BYTES", default_value_t = 90 << 20)]
    pub max_node_payload_bytes: u64,
    /// How much of one shard's part of a write is kept in memory before it goes to a temporary file, in bytes.
    #[arg(long, env = "WEFT_SPOOL_MEMORY_BYTES", default_value_t = 1 << 20)]
    pub spool_memory_bytes: u64,
    /// Largest answer of one node that is read, in bytes.
    #[arg(long, env = "WEFT_MAX_NODE_ANSWER_BYTES", default_value_t = 512 << 20)]
    pub max_node_answer_bytes: u64,
    /// Requests that may be worked on at once; more are answered 503. A request whose body is still on its way isn't counted.
    #[arg(long, env = "WEFT_MAX_REQUESTS", default_value_t = 4_096)]
    pub max_requests: usize,
    /// Requests whose body may be on its way at once; more are answered 503.
    #[arg(long, env = "WEFT_MAX_READING", default_value_t = 8_192)]
    pub max_reading: usize,
    /// How much memory the bodies of all requests may take together, in bytes; more are answered 503.
    #[arg(long, env = "WEFT_MAX_BODIES_BYTES", default_value_t = 1 << 30)]
    pub max_bodies_bytes: u64,
    /// How much disk the parts of all writes may take together until they are delivered, in bytes; more are answered 503.
    #[arg(long, env = "WEFT_MAX_SPOOLS_BYTES", default_value_t = 16 << 30)]
    pub max_spools_bytes: u64,
    /// How much memory the nodes' answers to all requests may take together, in bytes, beside 256 KiB of each; more are answered 503.
    #[arg(long, env = "WEFT_MAX_ANSWERS_BYTES", default_value_t = 2 << 30)]
    pub max_answers_bytes: u64,
    /// How much memory remembered answers to searches may take, in bytes; 0 means that none are remembered.
    #[arg(long, env = "WEFT_ANSWER_CACHE_BYTES", default_value_t = 64 << 20)]
    pub answer_cache_bytes: u64,
    /// How long a search may take on a shard, in milliseconds.
    #[arg(long, env = "WEFT_SEARCH_TIMEOUT_MS", default_value_t = 30_000)]
    pub search_timeout_ms: u64,
    /// How long a node may take to accept a write, in milliseconds.
    #[arg(long, env = "WEFT_WRITE_TIMEOUT_MS", default_value_t = 300_000)]
    pub write_timeout_ms: u64,
    /// How long a client may pause in the middle of its body, in milliseconds.
    #[arg(long, env = "WEFT_BODY_IDLE_TIMEOUT_MS", default_value_t = 60_000)]
    pub body_idle_timeout_ms: u64,
    /// How long a client may take for its body in all, in milliseconds, beside a second for every 16 KiB that have come.
    #[arg(long, env = "WEFT_BODY_TIMEOUT_MS", default_value_t = 120_000)]
    pub body_timeout_ms: u64,
    /// What a search does when a shard gives no answer: `error`, `partial` or `wait`.
    #[arg(long, env = "WEFT_PARTIAL", default_value = "error")]
    pub partial: String,
    /// How many tasks are kept; at that many, the oldest tenth of the finished ones goes.
    #[arg(long, env = "WEFT_MAX_TASKS", default_value_t = 1_000_000)]
    pub max_tasks: usize,
    /// Keep the state's format, so that an older merger can take over again; small writes that go together then have a stored record each.
    #[arg(long, env = "WEFT_KEEP_STATE_FORMAT", default_value_t = false, action = clap::ArgAction::Set)]
    pub keep_state_format: bool,
    /// How long finished tasks are kept, in seconds; 0 means as long as there is room, as on a node.
    #[arg(long, env = "WEFT_MAX_TASK_AGE_SECONDS", default_value_t = 0)]
    pub max_task_age_seconds: u64,
    /// How often settings are compared between nodes and with what was last set, in milliseconds; 0 means never.
    #[arg(
        long,
        env = "WEFT_SETTINGS_CHECK_INTERVAL_MS",
        default_value_t = 60_000
    )]
    pub settings_check_interval_ms: u64,
    /// Private networks (`10.0.0.0/8,…` or `any`) in which webhooks may be called; public addresses always may.
    #[arg(long, env = "WEFT_WEBHOOK_ALLOWED_IP_NETWORKS")]
    pub webhook_allowed_ip_networks: Option<Networks>,
    /// Pages of which origins may read answers: `any`, `none` (Envoy's `cors` filter says it), or a list such as `https://shop.example,https://*.eu.example`.
    #[arg(long, env = "WEFT_CORS_ORIGINS", default_value = "any")]
    pub cors_origins: Origins,
    /// Where the traces go.
    #[command(flatten)]
    pub otlp: OtlpArgs,
    /// Logs as JSON lines (`json`) or for people (`text`).
    #[arg(long, env = "WEFT_LOG_FORMAT", default_value = "json")]
    pub log_format: String,
    /// Which logs: an `env_logger`-style filter such as `info` or `weft_merger=debug`.
    #[arg(long, env = "WEFT_LOG", default_value = "info")]
    pub log: String,
}
