//! Rewrites filters that don't mean the same on every shard.
//!
//! Documents have no schema, and an index learns of a field with the first document that has it. For a field that an index
//! never saw, every condition matches no document. A known field without values gives the same result, except with `!=`: if
//! the field is known, `rare != 7` matches all documents without it. One node knows the fields of all its documents. A
//! shard knows only those of its own documents, and silently loses hits. `NOT rare = 7` means the same and doesn't depend
//! on what is known. So if any shard knows the field, filters go to the shards with `NOT … = …` in place of `!=`. If none
//! knows it, one node finds nothing, and neither do the shards: then the filter stays as it is.
//!
//! [`unequal`] finds and rewrites such conditions, [`requests`] finds the filters of a request, [`KnownFields`] are the
//! fields that shards are known to have, and [`tenant`] reads the filters of a token. [`crate::search`] and [`crate::write`]
//! ask the shards.
//!
//! Invariants: a text that can't be read as a filter isn't changed, so that the node's own error is returned. Nothing is
//! weakened: a rewritten filter matches the documents that it would match on one node.

pub mod remembered;
pub mod requests;
pub mod words;

use http::HeaderMap;
use http::header::AUTHORIZATION;
pub use weft_routing::filters::{TenantRules, tenant, unequal};

use remembered::Remembered;

/// Which fields any shard of an index knows.
///
/// An index never forgets a field, not even when all its documents are deleted; only deleting the index removes it. So a
/// known field stays known until the index is deleted, or its name is given to another index. An unknown field is never
/// remembered as unknown: any document may introduce it.
pub type KnownFields = Remembered<String, (), 2_000>;

/// The rules of the tenant token in a request's headers. A node judges the token and adds its filters to the searches; what is
/// read here is used only after a node has accepted the token.
pub fn rules_of(headers: &HeaderMap) -> Option<TenantRules> {
    TenantRules::of(headers.get(AUTHORIZATION)?.to_str().ok()?)
}

/// The most fields that are asked for because of one request. Conditions on other fields stay as the client wrote them.
pub const MOST_FIELDS: usize = 200;
