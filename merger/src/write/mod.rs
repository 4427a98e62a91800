//! Writes of documents: decode → split → sequence → deliver.
//!
//! [`add`] and [`remove`] say what each operation means; the stages are modules of their own: [`decode`] makes plain bytes
//! of a body, [`split`] makes each shard's part of them, [`crate::sequence`] orders the writes to a shard, [`deliver`]
//! brings the parts to all replicas and makes one task of it.
//!
//! Invariants: nothing is delivered before the whole body has been read and found good, and no shard waits for a client.
//! What was begun is finished though the client be gone. This module knows nothing of searches.

mod add;
pub mod bench;
mod coalesce;
mod decode;
mod deliver;
pub mod dry_run;
mod format;
pub mod judge;
mod params;
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
use weft_routing::placement::{ShardId, SlotMap};

pub use self::decode::DecodeError;
pub(crate) use self::decode::Plain;
pub use self::format::{Format, FormatError};
pub use self::split::{Fault, SplitError};

use self::coalesce::Coalescer;
use self::deliver::{Delivered, Delivery, ShardPayload};
use crate::answer::Answer;
use crate::base::{Stopping, stands_on};
use crate::bounds::{NoRoom, Slot};
use crate::call::Call;
use crate::cluster::ClusterError;
use crate::desired::DesiredSettings;
use crate::replication;
use crate::store::StoreError;
use crate::tasks::{NewTask, SharedEnd, TaskError};
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// What documents are written with.
pub struct Context {
    /// Locks, and the way to all replicas.
    pub replication: Arc<replication::Context>,
    /// Sizes, and whether small writes go together.
    pub options: WriteOptions,
    /// What writes keep from one to the next.
    pub writes: Writes,
    /// What indexes' settings shall be.
    pub settings: Arc<DesiredSettings>,
}

stands_on!(Context, replication, replication::Context);

/// Sizes, and whether small writes go together.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Whether small writes that wait for the same shard go to it together.
    pub coalesce: bool,
    /// How long the first of them waits for company.
    pub coalesce_wait: Duration,
    /// The largest body of an import, in bytes, after decompression.
    pub max_import_bytes: u64,
    /// The largest piece that is sent to a node at once, in bytes.
    pub max_node_payload_bytes: u64,
    /// How much of one shard's part is kept in memory, in bytes.
    pub spool_memory_bytes: usize,
    /// Where the rest of it goes.
    pub spool_folder: PathBuf,
}

/// Why a write came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The content type.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The body couldn't be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The body isn't documents.
    #[error("{fault}")]
    Fault {
        /// What the body should be.
        format: Format,
        /// What is wrong.
        #[source]
        fault: Fault,
    },
    /// There is no body.
    #[error("A {} payload is missing.", .0.name())]
    Missing(Format),
    /// One document is larger than what a node takes.
    #[error("a document is larger than {limit} bytes")]
    DocumentTooLarge {
        /// The bound, in bytes.
        limit: u64,
    },
    /// The body couldn't be kept.
    #[error("a part of the write could not be kept")]
    Spool(#[source] io::Error),
    /// A shard can't be reached, and nothing was written.
    #[error("shard-{}: {source}; nothing was written", .shard.0)]
    Unreachable {
        /// The shard.
        shard: ShardId,
        /// Why.
        source: UpstreamError,
    },
    /// A shard gave no answer after it may have got the write.
    #[error("shard-{}: {detail}; it is not known whether it was written", .shard.0)]
    Unknown {
        /// The shard.
        shard: ShardId,
        /// What the request came to.
        detail: String,
    },
    /// Fewer replicas took a write than its mode wants; those that didn't are out of sync.
    #[error("shard-{}: {taken} of the {wanted} replicas that a quorum needs took the write: it may have been applied; sending it again is safe", .shard.0)]
    NoQuorum {
        /// The shard.
        shard: ShardId,
        /// How many took it.
        taken: usize,
        /// How many had to.
        wanted: usize,
    },
    /// A node was asked something and gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Shards or placements.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task registry.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A write failed with those that it was sent together with.
    #[error(transparent)]
    Together(Arc<WriteError>),
    /// Writes under way decide what the filter of a write means, and go on for long.
    #[error(
        "the index `{0}` has tasks under way on which the filter depends; nothing was changed: try again when they have ended"
    )]
    Busy(String),
    /// The index was moved or deleted again and again while the write was under way.
    #[error("the index `{0}` changes too often")]
    Unsettled(String),
    /// There is no room for more writes.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The merger ends.
    #[error(transparent)]
    Stopping(#[from] Stopping),
}

/// What writes keep from one to the next.
#[derive(Debug, Default)]
pub struct Writes {
    coalescer: Coalescer,
    /// What documents are judged by.
    judged_by: judge::Known,
    /// One first write at a time to an index whose primary key isn't known.
    lines: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Writes {
    /// Indexes come, go or change their names: what was written before must not be written again after it. The caller has the
    /// turn of all shards that it concerns.
    pub fn indexes_change(&self) {
        self.coalescer.note_all();
    }

    async fn first_write(&self, index_uid: &str) -> OwnedMutexGuard<()> {
        let line = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            // Lines that nobody stands in are forgotten, so that the map stays small.
            lines.retain(|uid, line| uid == index_uid || Arc::strong_count(line) > 1);
            Arc::clone(lines.entry(index_uid.to_owned()).or_default())
        };
        line.lock_owned().await
    }
}

impl WriteError {
    /// Whether a replica may have taken the write all the same.
    pub(crate) fn may_be_written(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::NoQuorum { .. } | Self::Store(_) | Self::Task(_) => true,
            Self::Cluster(error) => matches!(error, ClusterError::Store(_)),
            Self::Together(error) => error.may_be_written(),
            _ => false,
        }
    }
}

/// Answers an addition or update of documents. `reading` is held while the body comes.
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

/// Answers any other write, whose body is in memory.
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

/// Node tasks have ended that several small writes were merged into.
pub fn shared_tasks_ended(ctx: &Arc<Context>, ends: Vec<SharedEnd>) {
    coalesce::ended(ctx, ends);
}

/// How often a write is laid out anew because its index changed under it.
const ATTEMPTS: usize = 5;

/// Lays out where each part goes, delivers, and registers the task; goes on though the client be gone.
async fn deliver_as_task(
    ctx: &Arc<Context>,
    mut delivery: Delivery,
    task: NewTask,
    lay_out: impl Fn(Option<&SlotMap>) -> Vec<ShardPayload> + Send + 'static,
) -> Result<Answer, WriteError> {
    let begun = Arc::clone(ctx);
    ctx.run_to_completion(async move {
        for _ in 0..ATTEMPTS {
            let uid = delivery.index_uid.as_deref();
            let placement = uid.and_then(|uid| begun.cluster.placement(uid));
            let slots = placement.as_ref().map(|placement| &placement.slots);
            delivery.loads = lay_out(slots.map(|slots| &**slots));
            match deliver::deliver(&begun, slots, &delivery).await? {
                None => {}
                Some((Delivered::Refused(answer), _)) => return Ok(answer),
                Some((Delivered::Taken(parts), uid)) => {
                    let task = NewTask { parts, ..task };
                    let enqueued = begun.tasks.create_as(uid, task, Vec::new()).await?;
                    return Ok(Answer::json(StatusCode::ACCEPTED, &enqueued));
                }
            }
        }
        Err(WriteError::Unsettled(
            delivery.index_uid.unwrap_or_default(),
        ))
    })
    .await?
}

/// Lets a node word why it refuses a request whose path, query or content type is not what it may be. The node gets no body,
/// so that there is nothing that it could accept.
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
