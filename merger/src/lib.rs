//! The merger: what one node cannot do. It splits writes, fans searches out and merges the answers, keeps one task of
//! many, and tells filters where indexes lie. This page is the architecture of all of Weft; what the parts do for users stands
//! in `README.md`, `merger/README.md` and `filter/README.md`.
//!
//! # Bird's eye
//!
//! A request meets the filter, which knows the routing table and decides from method, path and, where direct writes are on, a
//! small body: straight to the owning shard, or to the merger. The merger classifies the request with the same code, judges the key, and
//! hands it to one of four parts: *search* (plan → scatter → gather → rank → merge → respond), *write* (decode → split → sequence →
//! deliver), *tasks*, or *broadcast* (the same on every node). Nodes are reached only through Envoy's egress listener: any ready
//! replica of a shard for reads, one named node for writes.
//!
//! # Code map
//!
//! | place | job |
//! |---|---|
//! | `filter/routing/` | pure: method and path → operation, id → slot → shard, the table, the decision; shared by filter and merger |
//! | `filter/src/` | the wasm skin: phases of a request, table poll, registration of direct writes, the guard of a node; every host call behind one trait |
//! | `merger/src/` | the merger: its parts are below |
//! | `merger/src/sim/` | tests only: the merger over simulated nodes, in random sequences of trouble |
//! | `tests/node/` | the embedded node |
//! | `tests/cluster/` | starts and breaks real processes |
//! | `tests/lab/` | `make up`, `demo`, `bench`, `oracle` |
//! | `tests/fuzz/` | fuzzing targets and their corpus, a workspace of its own for `cargo fuzz` |
//! | `tests/scenarios/` | the end-to-end tests, in one binary |
//!
//! # Parts
//!
//! Each part uses only parts further down, and of those only the ones that are named beside it; a test holds the code against this
//! table. What reads are answered with (`search`) and what changes something (`replication` and what stands on it) are apart: a merger
//! that only reads is one without the latter.
//!
//! | part | what it is | it uses |
//! |---|---|---|
//! | `internals` | What benchmarks, the lab and fuzzing call; nothing in the merger does. | `search`, `write` |
//! | `cli` | The command line. | `clock`, `endpoints`, `options`, `repair`, `runtime`, `sockets`, `telemetry`, `tls`, `upstream` |
//! | `runtime` | Puts all parts together, begins the background work, hands events on. | `base`, `bounds`, `broadcast`, `clock`, `cluster`, `desired`, `edge`, `etcd`, `fence`, `filters`, `follower`, `keys`, `leadership`, `options`, `repair`, `replication`, `search`, `sockets`, `spans`, `spares`, `store`, `supervise`, `tasks`, `telemetry`, `tls`, `upstream`, `webhooks`, `write` |
//! | `edge` | What clients meet: listener, authorisation, dispatch, error codes. | `answer`, `base`, `bounds`, `broadcast`, `call`, `clock`, `cluster`, `fence`, `keys`, `leadership`, `operator`, `repair`, `search`, `sockets`, `spans`, `store`, `tasks`, `telemetry`, `tls`, `upstream`, `webhooks`, `write` |
//! | `options` | The options of `weft serve`, and what each part gets of them. | `bounds`, `call`, `cluster`, `etcd`, `leadership`, `repair`, `replication`, `search`, `sockets`, `spans`, `spares`, `tasks`, `tls`, `upstream`, `webhooks`, `write` |
//! | `operator` | `/_cluster/…`: what operators ask and want. | `answer`, `call`, `cluster`, `repair`, `replication`, `spares`, `webhooks` |
//! | `broadcast` | What is the same on every node: indexes, settings, keys, features. | `answer`, `base`, `call`, `cluster`, `desired`, `keys`, `replication`, `store`, `supervise`, `tasks`, `upstream`, `write` |
//! | `write` | Writes of documents: split, judged, delivered. | `answer`, `base`, `bounds`, `call`, `cluster`, `desired`, `filters`, `ids`, `replication`, `spans`, `store`, `supervise`, `tasks`, `upstream` |
//! | `repair` | Watches nodes, compares replicas and brings them back; moves slots; reads for backups. | `base`, `call`, `clock`, `cluster`, `ids`, `keys`, `probe`, `replication`, `store`, `supervise`, `upstream` |
//! | `webhooks` | Tells of ended tasks. | `answer`, `base`, `call`, `cluster`, `store`, `tasks`, `upstream` |
//! | `follower` | Keeps up with the leader's state and with the nodes, in a merger that only answers reads. | `base`, `cluster`, `etcd`, `keys`, `leadership`, `probe`, `search`, `store`, `supervise` |
//! | `search` | Every read: scatter, gather, merge. It can reach nothing that changes anything. | `answer`, `base`, `call`, `cluster`, `filters`, `spans`, `tasks`, `upstream` |
//! | `replication` | One request to all replicas of a shard, in its order; doubts; removals. | `base`, `call`, `cluster`, `probe`, `store`, `supervise`, `tasks`, `upstream` |
//! | `probe` | Asks each node for its newest task. | `base`, `cluster`, `upstream` |
//! | `tasks` | One task of many, and what becomes of it. | `answer`, `base`, `call`, `clock`, `cluster`, `filters`, `store`, `supervise`, `upstream` |
//! | `spares` | Takes spare nodes in for replicas that stay away. | `cluster`, `endpoints`, `leadership` |
//! | `keys` | API keys, the same on all nodes. | `clock`, `cluster`, `upstream` |
//! | `cluster` | State: shards, nodes, placements, in-sync sets, health. No request to a node. | `base`, `call`, `clock`, `ids`, `leadership`, `sockets`, `store`, `tls`, `upstream` |
//! | `base` | What all contexts stand on. | `bounds`, `call`, `spans`, `supervise`, `telemetry`, `upstream` |
//! | `upstream` | The only way to a node. | `answer`, `bounds`, `call`, `fence`, `sockets`, `spans`, `tls` |
//! | `call` | A request as the parts see it. | `bounds`, `sockets`, `spans` |
//! | `desired` | What indexes' settings shall be. | `store` |
//! | `filters` | Filters that don't mean the same on every shard. |  |
//! | `store` | A small ordered map on disk, or in an etcd. | `etcd`, `leadership` |
//! | `leadership` | Who leads, where several mergers share an etcd. | `clock`, `etcd`, `fence` |
//! | `etcd` | The way to etcd. |  |
//! | `spans` | Spans of requests, and their way to a collector. | `tls` |
//! | `fence` | Until when requests to nodes may leave, and in which term. |  |
//! | `supervise` | Begins background work anew after a panic. |  |
//! | `telemetry` | Logs and metrics. |  |
//! | `bounds` | What all requests together may take. |  |
//! | `answer` | What goes back to the client. |  |
//! | `endpoints` | The files in which Envoy finds a shard's nodes. |  |
//! | `tls` | Certificates from files, and encrypted connections. | `sockets` |
//! | `sockets` | Unix sockets beside TCP. |  |
//! | `ids` | A list of document ids. |  |
//! | `clock` | The time of day. |  |
//!
//! # Invariants
//!
//! * `filter/routing` does no I/O, has no clock and knows no proxy-wasm.
//! * The filter is safe to remove: a bypassed, stale or crashed filter costs speed, never correctness.
//! * `search` and `write` don't know each other. Ranking and merging are functions of values.
//! * Six parts open connections: `upstream` to nodes and to the merger that leads, `webhooks` to clients' servers, `cluster` to
//!   Envoy's admin interface, `etcd` to etcd, `spans` to the collector of traces, `cli` to the server that a command names.
//! * Where several mergers share an etcd, one of them leads. It alone changes the state, and each of its commits names the leader's
//!   key. No request to a node leaves after its lease.
//! * Only `cluster` changes an epoch.
//! * Only `tasks` hands out a `taskUid`, and it is durable before a client sees it.
//! * `edge` alone turns errors into statuses and Meilisearch's error codes. Errors of tasks are written where the task fails.
//! * Documents are never in the store. They stay in memory or in a temporary file until the replicas have taken them; small writes
//!   that went together stay in memory until their task has ended.

pub mod answer;
#[cfg(test)]
mod architecture;
pub mod base;
pub mod bounds;
pub mod broadcast;
pub mod call;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod desired;
pub mod edge;
pub mod endpoints;
pub mod etcd;
pub mod fence;
pub mod filters;
pub mod follower;
pub mod ids;
#[doc(hidden)]
pub mod internals;
pub mod keys;
pub mod leadership;
pub mod operator;
pub mod options;
#[cfg(test)]
mod pages;
pub mod probe;
pub mod repair;
pub mod replication;
pub mod runtime;
pub mod search;
#[cfg(test)]
mod sim;
pub mod sockets;
pub mod spans;
pub mod spares;
pub mod store;
pub mod supervise;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod webhooks;
pub mod write;
