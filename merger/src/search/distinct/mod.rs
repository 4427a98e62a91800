//! Documents of the same value, across shards: the best one stays.
//!
//! Each shard has left out its own duplicates already; what remains is one of each value a shard. [`values`] compares them.
//! With numbered pages a node counts exactly, and so the shards' whole lists are united ([`whole`]); values that hits don't
//! show, and those of the facets of hits that were left out, are asked for by the documents' ids ([`by_id`]).

mod by_id;
mod values;
mod whole;

pub(super) use by_id::{Documents, fetch, losers, values_of_hidden};

pub(super) use values::{Seen, Values, values_at, values_in, values_of};
pub(super) use whole::fetch_whole;

#[cfg(test)]
mod properties;
