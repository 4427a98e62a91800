//! Tasks as clients see them: one cluster-wide `taskUid` over the local tasks on nodes.
//!
//! `create` makes a task durable before its uid leaves the merger; [`follow`] asks each node for what is outstanding there, one
//! request at a time however many clients wait; [`aggregate`] makes one task of the parts; [`list`] filters and pages.
//!
//! Invariant: only this module hands out a `taskUid`, and never one twice.

mod aggregate;
mod change;
mod deletion;
mod documents;
mod filter;
mod follow;
mod handle;
mod pending;
mod read_from;
mod record;
mod registry;
pub mod size;
mod sweep;

pub use deletion::give_up_deletions;
pub use follow::{TaskEvents, follow};
pub use handle::handle;
pub use pending::{Unknown, are_pending, ask_primary};
pub use read_from::read_from;
pub use record::{
    Enqueued, LateTicket, LocalState, NewTask, ReadBack, ReplicaTask, Sent, ShardTask, Share,
    Status, TaskRecord, TaskView, Touches,
};
pub use registry::{Applied, Limits, SettledTask, SharedEnd, Tasks};
pub use sweep::forget_old;

use std::sync::Arc;

use crate::base::stands_on;
use crate::cluster::{self, NodeId};
use crate::store::StoreError;
use crate::upstream::UpstreamError;

/// The task registry, and what it stands on.
pub struct Context {
    /// Shards and nodes.
    pub base: Arc<cluster::Context>,
    /// The registry.
    pub tasks: Tasks,
}

stands_on!(Context, base, cluster::Context);

/// Reads a query of `GET /tasks`, and says whether it narrows what is listed: for fuzzing.
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

/// Why the task registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The store failed; whether the task was kept is unknown, so the client gets no uid.
    #[error("the task could not be stored")]
    Store(#[from] StoreError),
    /// There is no such task.
    #[error("Task `{uid}` not found.")]
    NotFound {
        /// What was asked for.
        uid: u32,
    },
    /// There is no such batch.
    #[error("Batch `{uid}` not found.")]
    BatchNotFound {
        /// What was asked for.
        uid: u32,
    },
    /// A path's uid is not a number.
    #[error("Invalid value in parameter `uid`: could not parse `{text}` as a positive integer")]
    InvalidUid {
        /// What was asked for.
        text: String,
    },
    /// `DELETE /tasks` or `POST /tasks/cancel` without a filter: it would mean every task.
    #[error("Query parameters to filter the tasks to {verb} are missing.")]
    MissingFilters {
        /// `cancel` or `delete`.
        verb: &'static str,
    },
    /// A filter that can't be read, and that a node would have taken.
    #[error("Invalid value in parameter `{parameter}`: `{value}`")]
    InvalidFilter {
        /// The query's parameter.
        parameter: String,
        /// Its value.
        value: String,
    },
    /// The documents of a task are kept by nodes until they are indexed.
    #[error(
        "Task `{uid}` does not contain any documents. Only `documentAdditionOrUpdate` tasks with the statuses `enqueued` or `processing` contain documents"
    )]
    FileNotFound {
        /// The task.
        uid: u32,
    },
    /// A node's feature that isn't enabled.
    #[error(
        "Using the /tasks/compact route requires enabling the `task queue compaction route` experimental feature. See https://github.com/orgs/meilisearch/discussions/883"
    )]
    CompactionNotEnabled,
    /// No shard to ask.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::ClusterError),
    /// A node was needed and gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A write's acknowledgement names a node that the cluster doesn't know.
    #[error("node {0} is not known")]
    UnknownNode(NodeId),
    /// A stored task can't be read back.
    #[error("task {uid} is stored in a form that can't be read")]
    Corrupt {
        /// The task.
        uid: u32,
    },
}
