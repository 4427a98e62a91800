//! Tasks as clients see them: one cluster-wide `taskUid` over the local tasks on nodes.
//!
//! `create` makes a task durable before its uid leaves the merger; [`mod@follow`] polls each node for its outstanding tasks, one
//! request at a time however many clients wait; [`aggregate`] builds one task from the parts; [`filter`] selects and pages tasks for lists.
//!
//! Invariant: only this module assigns a `taskUid`, and it never assigns one twice.

mod aggregate;
mod change;
mod deletion;
mod documents;
mod ending;
mod filter;
mod follow;
mod group;
mod handle;
mod note;
mod notes;
mod pending;
mod read_from;
mod record;
mod registry;
pub mod size;
mod sweep;

pub use deletion::give_up_deletions;
pub use ending::BeforeEnd;
pub use follow::{TaskEvents, follow};
pub use group::{MOST_MEMBERS, Member, Sent, Share};
pub use handle::handle;
pub use pending::{Unknown, are_pending, ask_primary, ask_until};
pub use read_from::read_from;
pub use record::{
    Enqueued, LateTicket, LocalState, NewTask, ReadBack, ReplicaTask, ShardTask, Status,
    TaskRecord, TaskView, Touches,
};
pub use registry::{Applied, Limits, SettledTask, SharedEnd, Tasks};
pub use sweep::forget_old;

use std::sync::Arc;

use crate::base::stands_on;
use crate::cluster::{self, NodeId};
use crate::store::StoreError;
use crate::upstream::UpstreamError;

/// The task registry and the cluster state that it needs.
pub struct Context {
    /// Shards and nodes.
    pub base: Arc<cluster::Context>,
    /// The registry.
    pub tasks: Tasks,
}

stands_on!(Context, base, cluster::Context);

/// Parses a query of `GET /tasks`, and says whether it restricts the list: for fuzzing.
///
/// # Errors
/// [`TaskError::InvalidFilter`].
pub fn read_filter(query: &str) -> Result<bool, TaskError> {
    match filter::Filter::parse(form_urlencoded::parse(query.as_bytes())) {
        Ok(filter) => Ok(filter.narrows),
        Err(filter::Unreadable { parameter, value }) => {
            Err(TaskError::InvalidFilter { parameter, value })
        }
    }
}

/// Why an operation on tasks failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The store failed; it is unknown whether the task was stored, so the client gets no uid.
    #[error("the task could not be stored")]
    Store(#[from] StoreError),
    /// There is no such task.
    #[error("Task `{uid}` not found.")]
    NotFound {
        /// The uid that was asked for.
        uid: u32,
    },
    /// There is no such batch.
    #[error("Batch `{uid}` not found.")]
    BatchNotFound {
        /// The uid that was asked for.
        uid: u32,
    },
    /// A path's uid is not a number.
    #[error("Invalid value in parameter `uid`: could not parse `{text}` as a positive integer")]
    InvalidUid {
        /// The text that was given as a uid.
        text: String,
    },
    /// `DELETE /tasks` or `POST /tasks/cancel` without a filter, which would apply to every task.
    #[error("Query parameters to filter the tasks to {verb} are missing.")]
    MissingFilters {
        /// `cancel` or `delete`.
        verb: &'static str,
    },
    /// A filter that the merger can't read though a node accepts it.
    #[error("Invalid value in parameter `{parameter}`: `{value}`")]
    InvalidFilter {
        /// The name of the query parameter.
        parameter: String,
        /// The value of the parameter.
        value: String,
    },
    /// The task has no documents any more: nodes keep them only until they are indexed.
    #[error(
        "Task `{uid}` does not contain any documents. Only `documentAdditionOrUpdate` tasks with the statuses `enqueued` or `processing` contain documents"
    )]
    FileNotFound {
        /// The task.
        uid: u32,
    },
    /// An experimental feature of the nodes that isn't enabled.
    #[error(
        "Using the /tasks/compact route requires enabling the `task queue compaction route` experimental feature. See https://github.com/orgs/meilisearch/discussions/883"
    )]
    CompactionNotEnabled,
    /// There is no shard to ask.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::ClusterError),
    /// A required node gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The acknowledgement of a write names a node that the cluster doesn't know.
    #[error("node {0} is not known")]
    UnknownNode(NodeId),
    /// A stored task can't be parsed.
    #[error("task {uid} is stored in a form that can't be read")]
    Corrupt {
        /// The task.
        uid: u32,
    },
}
