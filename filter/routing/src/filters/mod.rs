//! Filters of searches, as far as they tell which shards can match, and what depends on the fields that a shard knows.
//!
//! [`asked`] is the decision for a whole search, shared by the merger, which asks fewer shards, and the filter, which sends a
//! search of one shard there. It stands on [`prune`], which reads one filter; on [`tenant`], which reads the filters of a token;
//! and on [`unequal`], which finds the conditions that don't mean the same on every shard.
//!
//! Pure: functions of values.

pub mod asked;
mod parse;
mod prune;
mod region;
pub mod tenant;
pub mod unequal;

pub use asked::Asked;
pub use tenant::TenantRules;
