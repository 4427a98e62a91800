//! Writes of documents: decode → split → sequence → deliver.
//!
//! [`mod@add`] and [`remove`] define what each operation means. The stages are separate modules: [`decode`] turns a body into plain
//! bytes, [`split`] builds each shard's part, [`crate::replication`] orders the writes to a shard, and [`deliver`] sends the parts
//! to all replicas and makes one task of them.
//!
//! Invariants: nothing is delivered before the whole body has been read and found valid, and no shard waits for a client. A
//! delivery that has begun is completed even if the client disconnects. This module knows nothing about searches.

mod add;
pub(crate) mod bench;
mod coalesce;
mod decode;
mod deliver;
pub(crate) mod dry_run;
mod format;
pub mod judge;
mod layout;
mod locate;
mod params;
mod removals;
mod remove;
mod reworded;
pub mod split;
mod spool;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde_json::{Map, Value};
use tokio::sync::OwnedMutexGuard;
use weft_routing::operation::Operation;
use weft_routing::placement::ShardId;

pub use self::decode::DecodeError;
pub(crate) use self::decode::Plain;
pub use self::format::{Format, FormatError};
pub use self::split::{Fault, SplitError};

use self::add::of_split;
use self::coalesce::Coalescer;
use self::deliver::{Delivered, Delivery, ShardPayload};
use crate::answer::Answer;
use crate::base::{Stopping, stands_on};
use crate::bounds::{NoRoom, Slot};
use crate::call::Call;
use crate::cluster::{ClusterError, Placement};
use crate::desired::DesiredSettings;
use crate::replication;
use crate::store::StoreError;
use crate::tasks::{NewTask, SharedEnd, TaskError};
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// The state that writes of documents need.
pub struct Context {
    /// Locks, and the means to reach all replicas.
    pub replication: Arc<replication::Context>,
    /// The sizes and switches of writes.
    pub options: WriteOptions,
    /// State that writes share.
    pub writes: Writes,
    /// The settings that indexes must have.
    pub settings: Arc<DesiredSettings>,
}

stands_on!(Context, replication, replication::Context);

/// Limits on sizes, and whether small writes are merged.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Whether small writes that wait for the same shard are merged.
    pub coalesce: bool,
    /// How long the first small write waits for others to merge with.
    pub coalesce_wait: Duration,
    /// The largest body of an import, in bytes, after decompression.
    pub max_import_bytes: u64,
    /// The largest piece that is sent to a node in one request, in bytes.
    pub max_node_payload_bytes: u64,
    /// How much of one shard's part is kept in memory, in bytes.
    pub spool_memory_bytes: usize,
    /// The folder for the rest of the part.
    pub spool_folder: PathBuf,
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The content type isn't valid.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The body can't be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The body doesn't consist of documents.
    #[error("{fault}")]
    Fault {
        /// The format that the body should have.
        format: Format,
        /// What is wrong with the body.
        #[source]
        fault: Fault,
    },
    /// There is no body.
    #[error("A {} payload is missing.", .0.name())]
    Missing(Format),
    /// A single document is larger than a node accepts.
    #[error("a document is larger than {limit} bytes")]
    DocumentTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A part of the body can't be kept in memory or on disk.
    #[error("a part of the write could not be kept")]
    Spool(#[source] io::Error),
    /// A shard can't be reached, and nothing was written.
    #[error("shard-{}: {source}; nothing was written", .shard.0)]
    Unreachable {
        /// The shard.
        shard: ShardId,
        /// Why it can't be reached.
        source: UpstreamError,
    },
    /// A shard that may have got the write gave no answer.
    #[error("shard-{}: {detail}; it is not known whether it was written", .shard.0)]
    Unknown {
        /// The shard.
        shard: ShardId,
        /// How the request ended.
        detail: String,
    },
    /// Fewer replicas took a write than its mode requires; those that didn't are out of sync.
    #[error("shard-{}: {taken} of the {wanted} replicas that a quorum needs took the write: it may have been applied; sending it again is safe", .shard.0)]
    NoQuorum {
        /// The shard.
        shard: ShardId,
        /// How many replicas took it.
        taken: usize,
        /// How many replicas had to take it.
        wanted: usize,
    },
    /// A node didn't answer a question that the write depends on.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A shard or placement isn't usable.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task registry failed.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The write failed together with those that it was merged with.
    #[error(transparent)]
    Together(Arc<WriteError>),
    /// Writes under way decide what a write's filter means, and they take too long.
    #[error(
        "the index `{0}` has tasks under way on which the filter depends; nothing was changed: try again when they have ended"
    )]
    Busy(String),
    /// Nobody knows where the documents of an update lie before tasks under way have ended, and they take too long.
    #[error(
        "the index `{0}` has tasks under way, and only when they have ended it is known where the documents to update lie; nothing was written: try again"
    )]
    NotLocated(String),
    /// An edition by function of an index that lies by a field: the function might change the field.
    #[error(
        "Documents of the index `{0}` can't be edited by function: its documents lie by a field, which the function might change. Update or replace the documents instead."
    )]
    NoEdition(String),
    /// Whole documents are to be added to an index that lies by a field, but none that doesn't exist.
    #[error(
        "Invalid value for parameter `skipCreation`: documents of the index `{0}` lie by a field, and only `PUT` can leave out those that don't exist"
    )]
    NoSkipping(String),
    /// The index was moved or deleted in each attempt.
    #[error("the index `{0}` changes too often")]
    Unsettled(String),
    /// There is no memory or disk space for more writes.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The merger is stopping.
    #[error(transparent)]
    Stopping(#[from] Stopping),
}

/// State that writes share.
#[derive(Debug, Default)]
pub struct Writes {
    coalescer: Coalescer,
    /// The rules that documents are judged by.
    judged_by: judge::Known,
    /// By index: the lock for first writes, one at a time, while the primary key isn't known.
    lines: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Writes {
    /// Notes that indexes are created, deleted or renamed: earlier writes must not be repeated after that. The caller holds the
    /// locks of all shards concerned.
    pub fn indexes_change(&self) {
        self.coalescer.note_all();
    }

    async fn first_write(&self, index_uid: &str) -> OwnedMutexGuard<()> {
        let line = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            // Locks that no write uses are dropped, so that the map stays small.
            lines.retain(|uid, line| uid == index_uid || Arc::strong_count(line) > 1);
            Arc::clone(lines.entry(index_uid.to_owned()).or_default())
        };
        line.lock_owned().await
    }
}

impl WriteError {
    /// Whether some replica may have the write despite this error.
    pub(crate) fn may_be_written(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::NoQuorum { .. } | Self::Store(_) | Self::Task(_) => true,
            Self::Cluster(error) => matches!(error, ClusterError::Store(_)),
            Self::Together(error) => error.may_be_written(),
            _ => false,
        }
    }
}

/// Answers an addition or update of documents. `reading` is held while the body arrives.
///
/// # Errors
/// [`WriteError`].
pub async fn add(
    ctx: &Arc<Context>,
    call: Call,
    reading: Option<Slot>,
) -> Result<Answer, WriteError> {
    add::documents(ctx, call, reading).await
}

/// Answers any other write of documents; its body is held in memory.
///
/// # Errors
/// [`WriteError`].
pub async fn handle(ctx: &Arc<Context>, call: Call) -> Result<Answer, WriteError> {
    match call.operation {
        Operation::DeleteDocument => remove::one(ctx, call).await,
        Operation::DeleteDocumentsBatch => remove::batch(ctx, call).await,
        _ => remove::everywhere(ctx, call).await,
    }
}

/// Handles the end of node tasks that several small writes were merged into.
pub fn shared_tasks_ended(ctx: &Arc<Context>, ends: Vec<SharedEnd>) {
    coalesce::ended(ctx, ends);
}

/// How often a write is laid out again because its index changed meanwhile.
const ATTEMPTS: usize = 5;
/// From this attempt on, a write keeps its index's slots from being moved.
const HOLDS_FROM: usize = 2;

/// Lays out the parts by shard, delivers them and registers the task; continues even if the client disconnects.
async fn deliver_as_task(
    ctx: &Arc<Context>,
    mut delivery: Delivery,
    task: NewTask,
    lay_out: impl Fn(Option<&Placement>) -> Vec<ShardPayload> + Send + 'static,
) -> Result<Answer, WriteError> {
    let begun = Arc::clone(ctx);
    ctx.run_to_completion(async move {
        let mut held = None;
        for attempt in 0..ATTEMPTS {
            if attempt == HOLDS_FROM {
                held = delivery
                    .index_uid
                    .as_deref()
                    .map(|uid| begun.cluster.moves.hold(uid));
            }
            let uid = delivery.index_uid.as_deref();
            let placement = uid.and_then(|uid| begun.cluster.placement(uid));
            let slots = placement.as_ref().map(|placement| &placement.slots);
            delivery.loads = lay_out(placement.as_deref());
            match deliver::deliver(&begun, slots, &mut delivery).await? {
                None => {}
                Some((Delivered::Refused(answer), _)) => return Ok(answer),
                Some((Delivered::Taken(parts), uid)) => {
                    let task = NewTask { parts, ..task };
                    let enqueued = begun.tasks.create_as(uid, task, Vec::new()).await?;
                    return Ok(Answer::json(StatusCode::ACCEPTED, &enqueued));
                }
            }
        }
        drop(held);
        Err(WriteError::Unsettled(
            delivery.index_uid.unwrap_or_default(),
        ))
    })
    .await?
}

/// Lets a node word the refusal of a request whose path, query or content type is invalid. The node gets no body, so that it
/// can't accept anything.
async fn refused_by_node(ctx: &Context, call: &Call) -> Result<Answer, WriteError> {
    let shard = first_shard(ctx)?;
    let timeout = ctx.search_timeout;
    let path = call.path_and_query.clone();
    let mut request = NodeRequest::new(
        Target::Shard(shard),
        call.method.clone(),
        path,
        &call.forwarded,
        timeout,
    );
    if let Some(content_type) = call.headers.get(CONTENT_TYPE) {
        request = request.header(CONTENT_TYPE, content_type.clone());
    }
    if call.method == Method::POST || call.method == Method::PUT {
        request = request.body(crate::call::full(Bytes::new()));
    }
    Ok(ctx.upstream.send(request).await?.pass_on())
}

fn first_shard(ctx: &Context) -> Result<ShardId, WriteError> {
    ctx.cluster
        .shards()
        .into_iter()
        .next()
        .ok_or(WriteError::Cluster(ClusterError::NoShards))
}

fn details<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
