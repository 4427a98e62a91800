//! The merger: what one node cannot do. It splits writes, fans searches out and merges the answers, keeps one task of
//! many, and tells filters where indexes lie.
//!
//! Invariants: `search` and `write` don't know each other; nothing but `upstream` reaches a node; only `cluster` changes an
//! epoch; only `tasks` hands out a `taskUid`; `edge` is the only place that knows Meilisearch's error codes.
//!
//! # Parts
//!
//! Each part uses only parts further down, and of those only the ones that are named beside it; a test holds the code against this
//! table. What reads are answered with (`search`) and what changes something (`replication` and what stands on it) are apart: a merger
//! that only reads is one without the latter.
//!
//! | part | what it is | it uses |
//! |---|---|---|
//! | `cli` | The command line. | `options`, `runtime`, `telemetry` |
//! | `runtime` | Puts all parts together, begins the background work, hands events on. | `base`, `bounds`, `broadcast`, `cluster`, `desired`, `edge`, `filters`, `keys`, `options`, `repair`, `replication`, `search`, `store`, `supervise`, `tasks`, `telemetry`, `upstream`, `webhooks`, `write` |
//! | `edge` | What clients meet: listener, authorisation, dispatch, error codes. | `answer`, `base`, `bounds`, `broadcast`, `call`, `clock`, `cluster`, `keys`, `operator`, `repair`, `search`, `store`, `tasks`, `upstream`, `webhooks`, `write` |
//! | `options` | The options of `weft serve`, and what each part gets of them. | `bounds`, `call`, `cluster`, `repair`, `replication`, `search`, `tasks`, `upstream`, `webhooks`, `write` |
//! | `operator` | `/_cluster/…`: what operators ask and want. | `answer`, `call`, `cluster`, `repair`, `replication` |
//! | `broadcast` | What is the same on every node: indexes, settings, keys, features. | `answer`, `base`, `call`, `cluster`, `desired`, `keys`, `replication`, `store`, `tasks`, `upstream`, `write` |
//! | `write` | Writes of documents: split, judged, delivered. | `answer`, `base`, `bounds`, `call`, `cluster`, `desired`, `filters`, `ids`, `replication`, `store`, `supervise`, `tasks`, `upstream` |
//! | `repair` | Watches nodes, compares replicas and brings them back. | `base`, `call`, `clock`, `cluster`, `keys`, `replication`, `store`, `supervise`, `upstream` |
//! | `webhooks` | Tells of ended tasks. | `answer`, `base`, `call`, `cluster`, `store`, `tasks`, `upstream` |
//! | `search` | Every read: scatter, gather, merge. It can reach nothing that changes anything. | `answer`, `base`, `call`, `cluster`, `filters`, `tasks`, `upstream` |
//! | `replication` | One request to all replicas of a shard, in its order; doubts; removals. | `base`, `cluster`, `store`, `tasks`, `upstream` |
//! | `tasks` | One task of many, and what becomes of it. | `answer`, `base`, `call`, `clock`, `cluster`, `filters`, `store`, `upstream` |
//! | `keys` | API keys, the same on all nodes. | `clock`, `cluster`, `upstream` |
//! | `cluster` | State: shards, nodes, placements, in-sync sets, health. No request to a node. | `base`, `call`, `clock`, `ids`, `store`, `upstream` |
//! | `base` | What all contexts stand on. | `bounds`, `call`, `telemetry`, `upstream` |
//! | `upstream` | The only way to a node. | `answer`, `bounds`, `call` |
//! | `call` | A request as the parts see it. | `bounds` |
//! | `desired` | What indexes' settings shall be. | `store` |
//! | `filters` | Filters that don't mean the same on every shard. |  |
//! | `store` | A small ordered map on disk. |  |
//! | `supervise` | Begins background work anew after a panic. |  |
//! | `telemetry` | Logs and metrics. |  |
//! | `bounds` | What all requests together may take. |  |
//! | `answer` | What goes back to the client. |  |
//! | `ids` | A list of document ids. |  |
//! | `clock` | The time of day. |  |

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
pub mod filters;
pub mod ids;
pub mod keys;
pub mod operator;
pub mod options;
pub mod repair;
pub mod replication;
pub mod runtime;
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
