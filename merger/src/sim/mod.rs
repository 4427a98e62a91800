//! Tests between unit tests and tests with real processes: the whole merger over simulated nodes, with a simulated clock.
//!
//! ```text
//!   steps ──► play ──► world: App, its background work, its dispatch ──► mesh: the network ──► nodes ──► api, disk: a node each
//!               └──► model: what clients were told                          └──► store: what a crash undoes
//!                       └── check: compares both, when all is quiet
//! ```
//!
//! A sequence of steps comes from a seed; the same seed plays the same sequence. A failing sequence is shortened and stored in `kept`.

mod api;
mod check;
mod disk;
mod mesh;
mod model;
mod moves;
mod nodes;
mod panics;
mod play;
mod played;
mod promises;
mod readiness;
mod remembered;
mod rules;
mod several;
mod small_by_field;
mod steps;
mod store;
mod tests;
mod twice;
mod world;

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;

/// The time of day when a simulation begins.
const BEGIN: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

/// A time as nodes print it, from milliseconds since [`BEGIN`].
fn time_of(ms: u64) -> String {
    let at = BEGIN + Duration::from_millis(ms);
    at.format(&Rfc3339).unwrap_or_default()
}
