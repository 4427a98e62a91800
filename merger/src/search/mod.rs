//! Every read that returns documents or counts: plan → scatter → gather → rank → merge → respond.
//!
//! What orders hits ([`rank`]), how lists are merged ([`merge`]) and how facets are summed ([`facets`]) are pure functions.
//! Only [`scatter`] and its callers do I/O. This part knows nothing of writes.

pub mod answer;
mod degraded;
mod distinct;
mod documents;
mod explain;
mod facet_gaps;
mod facet_search;
pub mod facets;
mod federated;
mod field_path;
mod frequency;
pub mod hit;
pub mod merge;
mod multi_search;
mod one_index;
pub mod performance;
pub mod plan;
pub mod policy;
mod prune;
pub mod rank;
pub mod request;
pub mod respond;
pub(crate) mod sample;
pub mod scan;
mod scatter;
pub mod settings;
mod settings_cache;
mod similar;
mod sort_key;
mod vocabulary;
mod word_counts;

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use weft_routing::document_id::DocumentId;
use weft_routing::operation::Operation;
use weft_routing::placement::ShardId;

pub use settings_cache::SettingsCache;
pub use word_counts::WordCounts;

use crate::answer::Answer;
use crate::base::stands_on;
use crate::call::{Call, ReadError, read_whole};
use crate::cluster::{ClusterError, Placement};
use crate::filters::KnownFields;
use crate::filters::tenant::TenantRules;
use crate::tasks::{self, TaskView};
use crate::upstream::UpstreamError;

use documents::Listing;
use federated::Federated;
use one_index::ShardHits;
use plan::Plan;
use policy::Policy;
use request::{Carrier, Search};
use scan::Malformed;
use scatter::Reader;
use similar::Similar;

/// What reads need. Nothing that changes a node or the cluster is reachable from here.
pub struct Context {
    /// Shards and nodes, and which tasks were applied.
    pub base: Arc<tasks::Context>,
    /// What a read does when a shard gives no answer, unless the client says otherwise.
    pub when_missing: Policy,
    /// Indexes' settings, as far as merges need them.
    pub search_settings: SettingsCache,
    /// How many documents each word finds, as far as searches need it.
    pub word_counts: WordCounts,
    /// Which fields each shard is known to have.
    pub known_fields: KnownFields,
}

stands_on!(Context, base, tasks::Context);

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A shard gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The client's body couldn't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A request for certain replicas that can't be read or fulfilled.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Not one shard gave an answer.
    #[error("no shard could answer")]
    NoShardAnswered,
    /// There is no shard to ask.
    #[error("the cluster has no shards yet")]
    NoShards,
    /// A shard's answer doesn't have the form of a node's answer.
    #[error("shard-{shard} gave an answer that can't be read: {error}")]
    Unreadable {
        /// The shard.
        shard: ShardId,
        /// Where the answer can't be read.
        error: Malformed,
    },
}

impl SearchError {
    /// The error for an unreadable answer of one of several shards.
    fn unreadable(lists: &[ShardHits], error: Malformed) -> Self {
        Self::Unreadable {
            shard: lists.first().map_or(ShardId(0), |list| list.shard),
            error,
        }
    }
}

/// Answers a read.
///
/// # Errors
/// [`SearchError`]. A node's refusal is an answer, not an error.
pub async fn handle(ctx: &Arc<Context>, mut call: Call) -> Result<Answer, SearchError> {
    let body = take_body(ctx, &mut call).await?;
    let mut reader = Reader::new(ctx, &call).await?;
    if matches!(
        call.operation,
        Operation::ListDocuments | Operation::FetchDocuments
    ) {
        reader.read_one_replica();
    }
    let index = call.index.clone().unwrap_or_default();
    let placement = ctx.cluster.placement(&index);
    let shards: Vec<ShardId> = match &placement {
        Some(placement) => placement.shards().to_vec(),
        None => Vec::new(),
    };
    let anyone = shards
        .first()
        .copied()
        .or_else(|| ctx.cluster.shards().first().copied());
    let anyone = anyone.ok_or(SearchError::NoShards)?;
    let all = shards.clone();
    let placed = all.as_slice();
    if call.operation == Operation::MultiSearch {
        return multi_search(ctx, &reader, &call, body, anyone).await;
    }
    // With one shard, or an index that isn't in the cluster, a node's own answer is the best one.
    if shards.len() <= 1 {
        return reader.pass_on(&call, body, anyone).await;
    }
    let path = call
        .path_and_query
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let primary_key = placement
        .as_ref()
        .and_then(|placement| placement.primary_key.as_deref());
    match call.operation {
        Operation::SearchGet | Operation::SearchPost => {
            let Some(search) = read_parameters(&call, &body).and_then(Search::read) else {
                return reader.pass_on(&call, body, anyone).await;
            };
            let shards = match &placement {
                Some(placement) if !may_lack_fields(&call, &search) => {
                    pruned(placement, &search).unwrap_or(shards)
                }
                _ => shards,
            };
            if let [only] = shards.as_slice() {
                return reader.pass_on(&call, body, *only).await;
            }
            let settings = settings_cache::settings_of(ctx, &index, placed).await?;
            let plan = Plan::new(search, &settings, primary_key);
            one_index::search(&reader, &index, &path, &plan, &settings, &shards).await
        }
        Operation::FacetSearch => {
            let Some(carrier) = read_parameters(&call, &body) else {
                return reader.pass_on(&call, body, anyone).await;
            };
            let settings = settings_cache::settings_of(ctx, &index, placed).await?;
            facet_search::search(&reader, &path, &carrier, &settings.facets, &shards).await
        }
        Operation::ListDocuments | Operation::FetchDocuments => {
            let Some(listing) = read_parameters(&call, &body)
                .and_then(|parameters| Listing::read(parameters, primary_key))
            else {
                return reader.pass_on(&call, body, anyone).await;
            };
            documents::list(&reader, &path, &listing, &shards).await
        }
        Operation::SimilarGet | Operation::SimilarPost => {
            let similar = read_parameters(&call, &body).and_then(Similar::read);
            let owner = similar
                .as_ref()
                .and_then(|similar| owner_of(placement.as_deref(), &similar.id));
            let (Some(similar), Some(owner)) = (similar, owner) else {
                return reader.pass_on(&call, body, anyone).await;
            };
            let settings = settings_cache::settings_of(ctx, &index, placed).await?;
            similar::search(
                &reader,
                &path,
                &index,
                &similar,
                &settings,
                (owner, &shards),
            )
            .await
        }
        Operation::GetDocument => {
            let id = call.document.as_deref().unwrap_or_default();
            let owner = owner_of(placement.as_deref(), id).unwrap_or(anyone);
            reader.pass_on(&call, body, owner).await
        }
        _ => reader.pass_on(&call, body, anyone).await,
    }
}

/// Several searches at once.
async fn multi_search(
    ctx: &Arc<Context>,
    reader: &Reader<'_>,
    call: &Call,
    body: Bytes,
    anyone: ShardId,
) -> Result<Answer, SearchError> {
    let Some(Carrier::Body(members)) = read_parameters(call, &body) else {
        return reader.pass_on(call, body, anyone).await;
    };
    let known = members
        .keys()
        .all(|name| matches!(name.as_str(), "queries" | "federation"));
    let Some(queries) = members
        .get("queries")
        .and_then(Value::as_array)
        .filter(|_| known)
    else {
        return reader.pass_on(call, body, anyone).await;
    };
    let Some(queries) = multi_search::read_queries(ctx, queries, anyone).await? else {
        return reader.pass_on(call, body, anyone).await;
    };
    let federation = members
        .get("federation")
        .filter(|federation| !federation.is_null());
    let shares = multi_search::shares(&queries);
    match (shares.as_slice(), federation) {
        ([], _) => reader.pass_on(call, body, anyone).await,
        ([(shard, _)], _) => reader.pass_on(call, body, *shard).await,
        (_, None) => multi_search::search(reader, &call.path_and_query, &queries).await,
        (_, Some(federation)) => {
            let federation = federation.as_object().cloned();
            match federation.and_then(|federation| Federated::read(federation, queries)) {
                Some(search) => federated::search(reader, &call.path_and_query, &search).await,
                None => reader.pass_on(call, body, anyone).await,
            }
        }
    }
}

/// Forgets the cached values that a settled task may have changed.
pub fn on_settled(ctx: &Context, view: &TaskView) {
    match view.index_uid.as_deref() {
        Some(uid) if view.kind != "indexSwap" => ctx.word_counts.forget(uid),
        _ => ctx.word_counts.forget_all(),
    }
    match (view.kind.as_str(), view.index_uid.as_deref()) {
        ("documentAdditionOrUpdate" | "documentDeletion" | "documentEdition", _) => {}
        ("indexSwap" | "indexUpdate", _) | (_, None) => {
            ctx.search_settings.forget_all();
            ctx.known_fields.forget_all();
        }
        (_, Some(uid)) => {
            ctx.search_settings.forget(uid);
            ctx.known_fields.forget(uid);
        }
    }
}

/// Forgets the cached values that any settled task may have changed.
pub fn on_many_settled(ctx: &Context) {
    ctx.word_counts.forget_all();
    ctx.search_settings.forget_all();
}

/// The shards that a search can match, if its filter restricts them.
fn pruned(placement: &Placement, search: &Search) -> Option<Vec<ShardId>> {
    let filter = search.carrier.json("filter")?;
    prune::shards_of(&filter, placement.primary_key.as_deref()?, &placement.slots)
}

/// True if a shard's answer may depend on fields that only other shards know: then all shards are asked.
fn may_lack_fields(call: &Call, search: &Search) -> bool {
    let filter = search.carrier.json("filter");
    search.carrier.has("attributesToSearchOn")
        || filter.is_some_and(|filter| filter.to_string().contains("!="))
        || TenantRules::of(&call.headers).is_some_and(|rules| rules.compare())
}

/// The shard that holds a document, if `id` is a valid id.
fn owner_of(placement: Option<&Placement>, id: &str) -> Option<ShardId> {
    let id = DocumentId::from_text(id).ok()?;
    placement.map(|placement| placement.slots.shard_of(&id))
}

async fn take_body(ctx: &Context, call: &mut Call) -> Result<Bytes, SearchError> {
    let body = std::mem::replace(&mut call.body, crate::call::empty());
    let idle = ctx.pace.idle;
    Ok(read_whole(body, ctx.max_body_bytes, idle).await?)
}

/// The parameters, from the body or the query; `None` if they can't be read or the body isn't JSON.
fn read_parameters(call: &Call, body: &Bytes) -> Option<Carrier> {
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

fn where_it_is(shards: &[ShardId]) -> String {
    format!(
        "the index has documents on {} shards, and any of them may match",
        shards.len()
    )
}
