//! Tests the filter against a mock of Envoy: every phase of a request, natively.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail, and that is how"
)]

mod guard;
mod mock;
mod polls;
mod readme;
mod reads;
mod single_headers;
mod writes;
