//! What a read is: the first step of each, before it is carried out.
//!
//! One node answers best what the merger can't read (the node judges it and words the error), and what needs no merge. All
//! of that is [`Read::Whole`]; everything else comes with its parameters, read once.
//!
//! Pure, except for several searches: they are planned as they are read, by the settings of their indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Method;
use serde_json::Value;
use weft_routing::document_id::DocumentId;
use weft_routing::filters::Asked;
use weft_routing::filters::asked::FREQUENCY;
use weft_routing::operation::Operation;
use weft_routing::placement::ShardId;

use super::documents::Listing;
use super::federated::Federated;
use super::multi_search::{Query, Searches, Shares, named, shares};
use super::request::{Carrier, Search};
use super::settings_cache::settings_of;
use super::similar::Similar;
use super::{Context, SearchError};
use crate::call::Call;
use crate::cluster::{Placement, ReadFrom};
use crate::filters::rules_of;

/// A client's read.
pub(super) enum Read {
    /// This shard answers the request as it came.
    Whole(ShardId),
    /// A search in one index, on those of its shards that may have hits.
    Search(Search, Vec<ShardId>),
    /// A search of a facet's values, on the shards that may have some.
    FacetSearch(Carrier, Vec<ShardId>),
    /// A list of documents, on the shards that may have some.
    Documents(Listing, Vec<ShardId>),
    /// Documents similar to the one that the first shard holds (any, if it isn't known), on the shards that may have some.
    Similar(Similar, Option<ShardId>, Vec<ShardId>),
    /// A document that any of these shards may hold.
    Document(Vec<ShardId>),
    /// Several searches, each with its own answer.
    Several(Vec<Query>, Shares),
    /// Several searches with one list of hits.
    Federated(Federated, Shares),
}

impl Read {
    /// Reads a request, which is answered `from` certain replicas. `placement` is that of the index in its path. `anyone` is the shard
    /// that answers what isn't merged, if no other shard must.
    ///
    /// # Errors
    /// Of several searches: no shard returns the settings of an index.
    pub(super) async fn of(
        ctx: &Arc<Context>,
        from: &ReadFrom,
        call: &Call,
        body: &[u8],
        (placement, anyone): (Option<&Placement>, ShardId),
    ) -> Result<Self, SearchError> {
        let read = match (call.operation, placement) {
            (Operation::MultiSearch, _) => several(ctx, from, call, body, anyone).await?,
            (_, Some(placement)) => in_one_index(call, body, placement),
            (_, None) => None,
        };
        Ok(read.unwrap_or(Self::Whole(anyone)))
    }
}

/// A read in one index; `None` if it can't be read, or needs no merge.
fn in_one_index(call: &Call, body: &[u8], placement: &Placement) -> Option<Read> {
    // With one shard, a node's own answer is the best one.
    if placement.shards().len() <= 1 {
        return None;
    }
    let parameters = || parameters(call, body);
    match call.operation {
        Operation::SearchGet | Operation::SearchPost => {
            let search = Search::read(parameters()?)?;
            let shards = matching(call, &search.carrier, placement);
            Some(match *shards.as_slice() {
                [only] => Read::Whole(only),
                _ => Read::Search(search, shards),
            })
        }
        Operation::FacetSearch => {
            let carrier = parameters()?;
            let shards = matching(call, &carrier, placement);
            Some(Read::FacetSearch(carrier, shards))
        }
        Operation::ListDocuments | Operation::FetchDocuments => {
            let primary_key = placement.primary_key.as_deref();
            let carrier = parameters()?;
            let shards = matching(call, &carrier, placement);
            let listing = Listing::read(carrier, primary_key)?;
            Some(Read::Documents(listing, shards))
        }
        Operation::SimilarGet | Operation::SimilarPost => {
            let carrier = parameters()?;
            let shards = matching(call, &carrier, placement);
            let similar = Similar::read(carrier)?;
            let id = DocumentId::from_text(&similar.id).ok()?;
            let owner = placement.slots.shard_of(&id);
            Some(Read::Similar(similar, owner, shards))
        }
        Operation::GetDocument => {
            let id = DocumentId::from_text(call.document.as_deref()?).ok()?;
            Some(match placement.slots.shard_of(&id) {
                Some(owner) => Read::Whole(owner),
                None => Read::Document(placement.shards().to_vec()),
            })
        }
        _ => None,
    }
}

/// Several searches, each planned by its index's settings; `None` as for [`in_one_index`].
async fn several(
    ctx: &Arc<Context>,
    from: &ReadFrom,
    call: &Call,
    body: &[u8],
    anyone: ShardId,
) -> Result<Option<Read>, SearchError> {
    let Some(searches) = parameters(call, body).and_then(Searches::read) else {
        return Ok(None);
    };
    let mut queries = Vec::with_capacity(searches.queries.len());
    for query in searches.queries {
        let Some((index, search)) = named(query) else {
            return Ok(None);
        };
        let placement = ctx.cluster.placement(&index);
        let settings = match &placement {
            Some(placement) => settings_of(ctx, from, &index, placement.shards()).await?,
            None => Arc::default(),
        };
        let placement = placement.as_deref();
        let matching = placement.map(|placement| matching(call, &search.carrier, placement));
        let query = Query::new(index, search, placement, settings, anyone);
        queries.push(Query {
            shards: matching.unwrap_or(query.shards),
            ..query
        });
    }
    if searches.federation.is_some() {
        ask_alike(&mut queries);
    }
    Ok(together(queries, searches.federation))
}

/// Has all queries of an index asked on the same shards: a federated search has one count of facets for an index.
fn ask_alike(queries: &mut [Query]) {
    let mut asked: BTreeMap<String, BTreeSet<ShardId>> = BTreeMap::new();
    for query in queries.iter() {
        let shards = asked.entry(query.index.clone()).or_default();
        shards.extend(&query.shards);
    }
    for query in queries {
        if let Some(shards) = asked.get(&query.index) {
            query.shards = shards.iter().copied().collect();
        }
    }
}

/// What planned searches are together; `None` if there are none, or if the federation can't be read.
fn together(queries: Vec<Query>, federation: Option<Value>) -> Option<Read> {
    let shares = shares(&queries);
    match shares.as_slice() {
        [] => return None,
        [(only, _)] => return Some(Read::Whole(*only)),
        _ => {}
    }
    match federation {
        None => Some(Read::Several(queries, shares)),
        Some(Value::Object(federation)) => {
            let search = Federated::read(federation, queries)?;
            Some(Read::Federated(search, shares))
        }
        Some(_) => None,
    }
}

/// The parameters, from the body or the query; `None` if they can't be read or the body isn't JSON.
pub(super) fn parameters(call: &Call, body: &[u8]) -> Option<Carrier> {
    if call.method == Method::GET {
        return Some(Carrier::from_query(call.query_pairs()));
    }
    let json = call.header("content-type").is_some_and(|value| {
        value
            .split(';')
            .next()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    });
    if json { Carrier::from_body(body) } else { None }
}

/// The shards that may have documents for a read.
fn matching(call: &Call, carrier: &Carrier, placement: &Placement) -> Vec<ShardId> {
    pruned(call, carrier, placement).unwrap_or_else(|| placement.shards().to_vec())
}

/// The shards that a search can match, if its filter or the filter of its tenant token restricts them. If a shard's answer may
/// depend on what only other shards know, all shards are asked.
fn pruned(call: &Call, carrier: &Carrier, placement: &Placement) -> Option<Vec<ShardId>> {
    let asked = Asked {
        filter: carrier.filter(),
        searches_on: carrier.has("attributesToSearchOn"),
        by_frequency: carrier.text("matchingStrategy").flatten() == Some(FREQUENCY),
    };
    let Placement {
        uid,
        slots,
        primary_key,
        ..
    } = placement;
    let rules = rules_of(&call.headers);
    asked.shards(uid, rules.as_ref(), slots, primary_key.as_deref())
}

#[cfg(test)]
mod tests;
