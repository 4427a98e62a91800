//! Weft's proxy-wasm filter: a thin layer over `weft-routing`.
//!
//! A request passes [`request`]: its head is read in one host call, then classified and decided by `weft-routing`. It is
//! either sent directly to the shard that owns what it asks for, or marked and left to the merger. [`root`] keeps the
//! routing table fresh under a [`lease`]. [`register`] gives a direct write the cluster's task uid. In front of a node the same
//! filter can be a [`guard`] instead, and then does nothing else.
//!
//! Invariants: the filter only shortens what the merger can do too, so every doubtful or failed case goes to the merger (but a
//! guard lets no doubtful write through); only [`host`] talks to Envoy; nothing panics, because a panic poisons the VM of a whole Envoy worker.

pub mod config;
#[cfg(target_arch = "wasm32")]
mod entry;
pub mod guard;
mod head;
pub mod head_block;
pub mod host;
pub mod lease;
pub mod metrics;
pub mod register;
pub mod request;
pub mod root;
