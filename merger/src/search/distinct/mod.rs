//! `distinct` across shards: of all documents with the same value, only the best one is shown.
//!
//! Each shard has already left out its own duplicates, so one document per value and shard remains. [`values`] compares
//! them. With numbered pages a node counts exactly, so the shards' whole lists are merged ([`whole`]). Values that hits
//! don't show, and the values of left-out documents that facets count, are fetched by the documents' ids ([`by_id`]).

mod by_id;
mod values;
mod whole;

pub(super) use by_id::{Documents, fetch, losers, values_of_hidden};

pub(super) use values::{Seen, Values, values_at, values_in, values_of};
pub(super) use whole::fetch_whole;

#[cfg(test)]
mod properties;
