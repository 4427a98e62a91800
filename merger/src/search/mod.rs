//! Every read that returns documents or counts: read → plan → scatter → gather → rank → merge → respond.
//!
//! An answer may be [`remembered`] from before. Otherwise [`mod@read`] says what a client's request is, once, before anything is done about it. What orders hits ([`rank`]), how lists
//! are merged ([`merge`]) and how facets are summed ([`facets`]) are pure functions. Only [`scatter`] and its callers do I/O.
//! This part knows nothing of writes.

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
mod one_document;
mod one_index;
pub mod performance;
mod phase;
pub mod plan;
pub mod policy;
pub mod rank;
mod read;
mod remembered;
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
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use weft_routing::operation::Operation;
use weft_routing::placement::ShardId;

pub use remembered::{Remembered, canonical};
pub use settings_cache::SettingsCache;
pub use word_counts::WordCounts;

use crate::answer::Answer;
use crate::base::stands_on;
use crate::call::{Call, ReadError, read_whole};
use crate::cluster::{self, ClusterError, Placement};
use crate::filters::KnownFields;
use crate::tasks;
use crate::upstream::UpstreamError;

use one_index::ShardHits;
use phase::Phase;
use plan::Plan;
use policy::Policy;
use read::Read;
use scan::Malformed;
use scatter::Reader;
use settings_cache::settings_of;

/// What reads need. Nothing that changes a node or the cluster is reachable from here.
pub struct Context {
    /// Shards and nodes.
    pub base: Arc<cluster::Context>,
    /// Which tasks were applied; `None` in a merger that follows, where only the leader knows.
    pub tasks: Option<Arc<tasks::Context>>,
    /// What a read does when a shard gives no answer, unless the client says otherwise.
    pub when_missing: Policy,
    /// Indexes' settings, as far as merges need them.
    pub search_settings: SettingsCache,
    /// How many documents each word finds, as far as searches need it.
    pub word_counts: WordCounts,
    /// Which fields each shard is known to have.
    pub known_fields: KnownFields,
    /// Answers that still hold, and searches under way.
    pub remembered: Remembered,
}

stands_on!(Context, base, cluster::Context);

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

/// Answers a read: reads what it is, then carries it out.
///
/// # Errors
/// [`SearchError`]. A node's refusal is an answer, not an error.
pub async fn handle(ctx: &Arc<Context>, mut call: Call) -> Result<Answer, SearchError> {
    let body = take_body(ctx, &mut call).await?;
    remembered::answer(ctx, call, body).await
}

/// How often a read is repeated because slots were moved meanwhile.
const ATTEMPTS: usize = 5;

/// The outcome of a read.
struct Attempt {
    answer: Result<Answer, SearchError>,
    /// False if a node failed on the way: then the answer may be one of the next best kind.
    exact: bool,
}

/// Carries out a read, however often that takes.
async fn attempts(ctx: &Arc<Context>, call: &Call, body: &Bytes) -> Attempt {
    let mut left = ATTEMPTS;
    loop {
        let moved = ctx.cluster.placements.moved();
        let trouble = Arc::default();
        let answer = read(ctx, call, body, &trouble).await;
        // While slots move, a shard may have been asked for documents that had just left it.
        if left == 0 || ctx.cluster.placements.moved() == moved {
            let exact = !trouble.load(Ordering::Relaxed);
            return Attempt { answer, exact };
        }
        left -= 1;
    }
}

async fn read(
    ctx: &Arc<Context>,
    call: &Call,
    body: &Bytes,
    trouble: &Arc<AtomicBool>,
) -> Result<Answer, SearchError> {
    let planning = Phase::begin(ctx, call.forwarded.span(), "plan");
    let mut reader = Reader::new(ctx, call).await?;
    reader.trouble = Arc::clone(trouble);
    if matches!(
        call.operation,
        Operation::ListDocuments | Operation::FetchDocuments
    ) {
        reader.read_one_replica();
    }
    let index = call.index.as_deref().unwrap_or_default();
    let placement = ctx.cluster.placement(index);
    let placement = placement.as_deref();
    let shards = placement.map_or(&[][..], Placement::shards);
    reader.index_shards = shards.len();
    let first = || ctx.cluster.shards().first().copied();
    let anyone = shards.first().copied().or_else(first);
    let anyone = anyone.ok_or(SearchError::NoShards)?;
    let whole_path = call.path_and_query.as_str();
    let path = whole_path.split('?').next().unwrap_or_default();
    let read = Read::of(ctx, reader.from(), call, body, (placement, anyone)).await?;
    let settings = || settings_of(ctx, reader.from(), index, shards);
    match read {
        Read::Whole(shard) => {
            drop(planning);
            reader.pass_on(call, body.clone(), shard).await
        }
        Read::Search(search, matching) => {
            let settings = settings().await?;
            let primary_key = placement.and_then(|placement| placement.primary_key.as_deref());
            let plan = Plan::new(search, &settings, primary_key);
            drop(planning);
            one_index::search(&reader, index, path, &plan, &settings, &matching).await
        }
        Read::FacetSearch(carrier, matching) => {
            let settings = settings().await?;
            drop(planning);
            facet_search::search(&reader, path, &carrier, &settings.facets, &matching).await
        }
        Read::Documents(listing, matching) => {
            drop(planning);
            documents::list(&reader, path, &listing, &matching).await
        }
        Read::Document(shards) => {
            drop(planning);
            one_document::get(&reader, call, &shards).await
        }
        Read::Similar(similar, owner, matching) => {
            let settings = settings().await?;
            drop(planning);
            let owner = match owner {
                Some(owner) => owner,
                None => one_document::holder(&reader, index, &similar.id, shards).await?,
            };
            let (settings, on) = (settings.as_ref(), (owner, matching.as_slice()));
            similar::search(&reader, path, index, &similar, settings, on).await
        }
        Read::Several(queries, shares) => {
            drop(planning);
            multi_search::search(&reader, whole_path, &queries, &shares).await
        }
        Read::Federated(search, shares) => {
            drop(planning);
            federated::search(&reader, whole_path, &search, &shares).await
        }
    }
}

/// What a task that ends may have changed of that which searches remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stale {
    /// The documents of an index.
    Documents(String),
    /// The documents and the settings of an index.
    Index(String),
    /// Anything.
    Everything,
}

impl Stale {
    /// What a task of this kind and index may have changed.
    pub fn by(kind: &str, index_uid: Option<&str>) -> Self {
        match (kind, index_uid) {
            ("documentAdditionOrUpdate" | "documentDeletion" | "documentEdition", Some(uid)) => {
                Self::Documents(uid.to_owned())
            }
            ("indexSwap" | "indexUpdate", _) | (_, None) => Self::Everything,
            (_, Some(uid)) => Self::Index(uid.to_owned()),
        }
    }
}

/// Forgets what may not hold any more.
pub fn forget(ctx: &Context, stale: &Stale) {
    match stale {
        Stale::Documents(uid) => ctx.word_counts.forget(uid),
        Stale::Index(uid) => {
            ctx.word_counts.forget(uid);
            ctx.search_settings.forget(uid);
            ctx.known_fields.forget(uid);
        }
        Stale::Everything => {
            ctx.word_counts.forget_all();
            ctx.search_settings.forget_all();
            ctx.known_fields.forget_all();
        }
    }
    // An answer that was merged by what is forgotten now isn't given again.
    let changing = ctx.upstream.changing();
    match stale {
        Stale::Documents(uid) | Stale::Index(uid) => changing.touch(uid),
        Stale::Everything => changing.touch_all(),
    }
}

async fn take_body(ctx: &Context, call: &mut Call) -> Result<Bytes, SearchError> {
    let body = std::mem::replace(&mut call.body, crate::call::empty());
    let idle = ctx.pace.idle;
    Ok(read_whole(body, ctx.max_body_bytes, idle).await?)
}

fn where_it_is(asked: &[ShardId], all: usize) -> String {
    let asked = asked.len();
    match asked < all {
        true => format!(
            "the index has documents on {all} shards, and the filter can match on {asked} of them"
        ),
        false => {
            format!("the index has documents on {asked} shards, and any of them may match")
        }
    }
}
