//! Weft's proxy-wasm filter: a thin skin over `weft-routing`.
//!
//! A request passes [`request`]: its head is read in one host call, classified and decided by `weft-routing`, and
//! either sent straight to the shard that owns what it asks for, or marked and left to the merger. [`root`] keeps the
//! routing table fresh under a [`lease`]. [`register`] gives a direct write the cluster's task uid.
//!
//! Invariants: the merger can do everything that the filter shortcuts, so every doubt and every failure ends there;
//! only [`host`] talks to Envoy; nothing panics, because a panic poisons the VM of a whole Envoy worker.

pub mod config;
#[cfg(target_arch = "wasm32")]
mod entry;
pub mod head_block;
pub mod host;
pub mod lease;
pub mod metrics;
pub mod register;
pub mod request;
pub mod root;
