//! The merger: what one node cannot do. It splits writes, fans searches out and merges the answers, keeps one task of
//! many, and tells filters where indexes lie.
//!
//! Invariants: `search` and `write` don't know each other; nothing but `upstream` reaches a node; only `cluster` changes an
//! epoch; only `tasks` hands out a `taskUid`; `edge` is the only place that knows Meilisearch's error codes.

pub mod answer;
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
