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
//! | `filter/src/` | the wasm skin: phases of a request, table poll, registration of direct writes; every host call behind one trait |
//! | `merger/src/edge/` | listener, authorisation, dispatch; errors as clients see them |
//! | `merger/src/search/` | reads that return documents or counts |
//! | `merger/src/write/` | writes of documents |
//! | `merger/src/tasks/` | one task of many: registry, followers, aggregation, lists |
//! | `merger/src/broadcast/` | indexes, settings, keys: the same on every node |
//! | `merger/src/cluster/` | topology, placements; in-sync set, watch, resync, verification; `/_cluster` |
//! | `merger/src/replication/` | one request to every in-sync replica of a shard, in the shard's order of writes |
//! | `merger/src/store/` | a small ordered map with versions; redb |
//! | `merger/src/filters/` | filters that mean the same on every shard |
//! | `merger/src/upstream/` | the only way to a node |
//! | `merger/src/webhooks/` | tells clients' servers of ended tasks |
//! | `merger/src/cli/` | `weft serve`, `weft config envoy` |
//! | `merger/src/sim/` | tests only: the merger over simulated nodes, in random sequences of trouble |
//! | `tests/node/` | the embedded node |
//! | `tests/cluster/` | starts and breaks real processes |
//! | `tests/lab/` | `make up`, `demo`, `bench`, `oracle` |
//! | `tests/fuzz/` | fuzzing targets and their corpus, a workspace of its own for `cargo fuzz` |
//! | `tests/scenarios/` | the end-to-end tests, in one binary |
//!
//! # Invariants
//!
//! * `filter/routing` does no I/O, has no clock and knows no proxy-wasm.
//! * The filter is safe to remove: a bypassed, stale or crashed filter costs speed, never correctness.
//! * `search` and `write` don't know each other. Ranking and merging are functions of values.
//! * Three parts open connections: `upstream` to nodes, `webhooks` to clients' servers, `cluster` to Envoy's admin interface.
//! * Only `cluster` changes an epoch.
//! * Only `tasks` hands out a `taskUid`, and it is durable before a client sees it.
//! * `edge` alone turns errors into statuses and Meilisearch's error codes. Errors of tasks are written where the task fails.
//! * Documents are never in the store. They stay in memory or in a temporary file until the replicas have taken them; small writes
//!   that went together stay in memory until their task has ended.

pub mod answer;
pub mod app;
pub mod bounds;
pub mod broadcast;
pub mod call;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod edge;
pub mod filters;
pub mod ids;
pub mod options;
#[cfg(test)]
mod pages;
pub mod replication;
pub mod search;
#[cfg(test)]
mod sim;
pub mod store;
pub mod supervise;
pub mod tasks;
pub mod telemetry;
pub mod upstream;
pub mod webhooks;
pub mod write;
