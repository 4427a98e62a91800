//! Filters that don't mean the same on every shard.
//!
//! Documents have no schema, and an index learns of a field with the first document that has it. To an index that never saw
//! a field, every condition on it is true of no document. That is what a field without values would give, too, but for
//! `!=`: where the field is known, `rare != 7` is true of all documents without it. One node knows what any of its documents
//! had; a shard knows what its own had, and loses hits without a word. `NOT rare = 7` says the same and doesn't depend on what
//! is known. So a filter goes to the shards with `NOT … = …` in place of `!=`, where any of them knows the field. Where none
//! does, one node finds nothing, and neither do the shards: then it stays as it is.
//!
//! [`unequal`] finds and rewrites such conditions, [`requests`] finds the filters of a request, [`known`] remembers which
//! fields are known, [`tenant`] reads the filters of a token; who asks the shards is up to [`crate::search`] and [`crate::write`].
//!
//! Invariants: what can't be read as a filter isn't changed, so that the node's own error comes back. Nothing is weakened: a
//! rewritten filter lets through what one node would.

pub mod known;
pub mod requests;
pub mod tenant;
pub mod unequal;
pub mod words;

pub use known::KnownFields;

/// So many fields are asked for because of one request. Conditions on others stay as the client wrote them.
pub const MOST_FIELDS: usize = 200;
