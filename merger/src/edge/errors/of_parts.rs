//! Which status and code each error of the merger's other parts has for clients: one exhaustive `match` a part.

use http::StatusCode;

use super::ApiError;
use crate::base::Stopping;
use crate::bounds::NoRoom;
use crate::broadcast::BroadcastError;
use crate::call::{ReadError, TooLarge};
use crate::cluster::ClusterError;
use crate::search::SearchError;
use crate::store::StoreError;
use crate::tasks::TaskError;
use crate::tasks::size::print_limit;
use crate::upstream::UpstreamError;
use crate::webhooks::WebhookError;
use crate::write::{DecodeError, Fault, FormatError, WriteError};

const TASK_FILTERS: &str = "`uids`, `indexUids`, `statuses`, `types`, `canceledBy`, `beforeEnqueuedAt`, `afterEnqueuedAt`, \
     `beforeStartedAt`, `afterStartedAt`, `beforeFinishedAt`, `afterFinishedAt`";

impl From<UpstreamError> for ApiError {
    fn from(error: UpstreamError) -> Self {
        match &error {
            UpstreamError::NoEgress { .. }
            | UpstreamError::Unreachable { .. }
            | UpstreamError::NotLeading { .. } => Self::unavailable(error.to_string()),
            UpstreamError::TimedOut { .. } => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "remote_timeout",
                "system",
                error.to_string(),
            ),
            UpstreamError::TooLarge { .. } => Self::new(
                StatusCode::BAD_GATEWAY,
                "remote_bad_response",
                "system",
                error.to_string(),
            ),
            UpstreamError::NoRoom { full, .. } => (*full).into(),
            UpstreamError::Malformed { .. } => Self::invalid("bad_request", error.to_string()),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooLarge(TooLarge { limit }) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload_too_large",
                "invalid_request",
                format!(
                    "The provided payload reached the size limit. The maximum accepted payload size is {}.",
                    print_limit(limit)
                ),
            ),
            ReadError::Late(_) => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "bad_request",
                "invalid_request",
                error.to_string(),
            ),
            ReadError::NoRoom(full) => full.into(),
            ReadError::Broken(_) => Self::invalid("bad_request", error.to_string()),
        }
    }
}

impl From<NoRoom> for ApiError {
    fn from(full: NoRoom) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_search_requests",
            "system",
            full.to_string(),
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::of_store(&error)
    }
}

impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::UnknownNode(_)
            | ClusterError::UnknownShard(_)
            | ClusterError::UnknownMove(_)
            | ClusterError::UnknownPath(_) => Self::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "invalid_request",
                error.to_string(),
            ),
            ClusterError::InvalidWish(message) => Self::invalid("bad_request", message),
            ClusterError::UnknownTask(_) => Self::new(
                StatusCode::NOT_FOUND,
                "task_not_found",
                "invalid_request",
                error.to_string(),
            ),
            ClusterError::NotApplied { .. } => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "remote_timeout",
                "system",
                error.to_string(),
            ),
            ClusterError::UnknownBackup(_) => Self::new(
                StatusCode::NOT_FOUND,
                "backup_not_found",
                "invalid_request",
                error.to_string(),
            ),
            ClusterError::BackupRunning => Self::new(
                StatusCode::CONFLICT,
                "backup_running",
                "invalid_request",
                error.to_string(),
            ),
            ClusterError::BackupBroken(_) => Self::new(
                StatusCode::CONFLICT,
                "backup_broken",
                "system",
                error.to_string(),
            ),
            ClusterError::BackupUnordered => {
                Self::invalid("feature_not_enabled", error.to_string())
            }
            ClusterError::UnknownIndex(_) => Self::new(
                StatusCode::NOT_FOUND,
                "index_not_found",
                "invalid_request",
                error.to_string(),
            ),
            ClusterError::LastReplica(_) | ClusterError::LastShard(_) => Self::new(
                StatusCode::CONFLICT,
                "last_replica_in_sync",
                "invalid_request",
                error.to_string(),
            ),
            ClusterError::InvalidBody(message) => Self::invalid("bad_request", message),
            ClusterError::Read(error) => error.into(),
            ClusterError::NoShards
            | ClusterError::ShardEmpty(_)
            | ClusterError::ShardLost(_)
            | ClusterError::InDoubt(_)
            | ClusterError::Held(_)
            | ClusterError::Silent(_)
            | ClusterError::Unread(_)
            | ClusterError::BackupUnread(_)
            | ClusterError::NoQuorum { .. } => Self::unavailable(error.to_string()),
            ClusterError::TooManyShards { .. }
            | ClusterError::TooFewReplicas { .. }
            | ClusterError::BadChange(_) => Self::invalid(
                "bad_request",
                format!("Invalid value at `.sharding`: {error}"),
            ),
            ClusterError::Corrupt(_) => Self::internal(error.to_string()),
            ClusterError::Store(error) => error.into(),
        }
    }
}

impl From<TaskError> for ApiError {
    fn from(error: TaskError) -> Self {
        let message = error.to_string();
        match error {
            TaskError::Store(error) => error.into(),
            TaskError::NotFound { .. } => Self::new(
                StatusCode::NOT_FOUND,
                "task_not_found",
                "invalid_request",
                message,
            ),
            TaskError::FileNotFound { .. } => Self::new(
                StatusCode::NOT_FOUND,
                "task_file_not_found",
                "invalid_request",
                message,
            ),
            TaskError::BatchNotFound { .. } => Self::new(
                StatusCode::NOT_FOUND,
                "batch_not_found",
                "invalid_request",
                message,
            ),
            TaskError::InvalidUid { .. } => Self::invalid("invalid_task_uids", message),
            TaskError::MissingFilters { .. } => Self::invalid(
                "missing_task_filters",
                format!("{message} Available query parameters are: {TASK_FILTERS}."),
            ),
            TaskError::InvalidFilter { .. } => Self::invalid("bad_request", message),
            TaskError::CompactionNotEnabled => Self::invalid("feature_not_enabled", message),
            TaskError::Cluster(error) => error.into(),
            TaskError::Upstream(error) => error.into(),
            TaskError::UnknownNode(_) => Self::unavailable(message),
            TaskError::Corrupt { .. } => Self::internal(message),
        }
    }
}

impl From<BroadcastError> for ApiError {
    fn from(error: BroadcastError) -> Self {
        let message = error.to_string();
        match error {
            BroadcastError::Upstream(error) => error.into(),
            BroadcastError::Cluster(error) => error.into(),
            BroadcastError::Store(error) => error.into(),
            BroadcastError::Task(error) => error.into(),
            BroadcastError::Read(error) => WriteError::Decode(error).into(),
            BroadcastError::InvalidSharding { .. } => Self::invalid("bad_request", message),
            BroadcastError::Changing { .. } => Self::new(
                StatusCode::CONFLICT,
                "index_changes_strategy",
                "invalid_request",
                message,
            ),
            BroadcastError::Unreadable { .. } => Self::new(
                StatusCode::BAD_GATEWAY,
                "remote_bad_response",
                "system",
                message,
            ),
            BroadcastError::Unsettled(_)
            | BroadcastError::Busy(_)
            | BroadcastError::Silent(_)
            | BroadcastError::Unknown { .. }
            | BroadcastError::Unfinished => Self::unavailable(message),
            BroadcastError::Misrouted { .. } => Self::internal(message),
        }
    }
}

impl From<WebhookError> for ApiError {
    fn from(error: WebhookError) -> Self {
        let message = error.to_string();
        match error {
            WebhookError::MissingUrl(_) | WebhookError::InvalidUrl(..) => {
                Self::invalid("invalid_webhook_url", message)
            }
            WebhookError::TooMany => Self::invalid("invalid_webhooks", message),
            WebhookError::TooManyHeaders(_)
            | WebhookError::InvalidHeaderName(..)
            | WebhookError::InvalidHeaderValue(..) => {
                Self::invalid("invalid_webhook_headers", message)
            }
            WebhookError::Immutable(_) => Self::invalid("immutable_webhook", message),
            WebhookError::NotFound(_) => Self::new(
                StatusCode::NOT_FOUND,
                "webhook_not_found",
                "invalid_request",
                message,
            ),
            WebhookError::InvalidUuid(_) => Self::invalid("invalid_webhook_uuid", message),
            WebhookError::InvalidBody { .. } => Self::invalid("bad_request", message),
            WebhookError::Read(error) => error.into(),
            WebhookError::Cluster(error) => error.into(),
            WebhookError::Upstream(error) => error.into(),
            WebhookError::Store(error) => error.into(),
        }
    }
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        let message = error.to_string();
        match error {
            // Clients get the same error for a shard that hangs and for one that is gone.
            SearchError::Upstream(UpstreamError::TimedOut { .. }) => Self::unavailable(message),
            SearchError::Upstream(error) => error.into(),
            SearchError::Read(error) => error.into(),
            SearchError::Cluster(error) => error.into(),
            SearchError::NoShardAnswered | SearchError::NoShards => Self::unavailable(message),
            SearchError::Unreadable { .. } => Self::new(
                StatusCode::BAD_GATEWAY,
                "remote_bad_response",
                "system",
                message,
            ),
        }
    }
}

impl From<Stopping> for ApiError {
    fn from(error: Stopping) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Together(shared) => match &*shared {
                WriteError::Store(_) | WriteError::Task(_) => Self::of_store(&*shared),
                error => Self::unavailable(error.to_string()),
            },
            WriteError::Upstream(error) => error.into(),
            WriteError::NoRoom(full) => full.into(),
            WriteError::Unreachable { .. }
            | WriteError::Unknown { .. }
            | WriteError::NoQuorum { .. }
            | WriteError::Stopping(_)
            | WriteError::Unsettled(_)
            | WriteError::NotLocated(_)
            | WriteError::Busy(_) => Self::unavailable(error.to_string()),
            WriteError::NoEdition(_) => Self::invalid("feature_not_enabled", error.to_string()),
            WriteError::NoSkipping(_) => Self::invalid("bad_request", error.to_string()),
            WriteError::Format(error) => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                match error {
                    FormatError::Missing => "missing_content_type",
                    FormatError::Unknown(_) | FormatError::Delimiter(_) => "invalid_content_type",
                },
                "invalid_request",
                error.to_string(),
            ),
            WriteError::Decode(DecodeError::Read(error)) => error.into(),
            WriteError::Decode(error @ DecodeError::Corrupt) => {
                Self::invalid("bad_request", error.to_string())
            }
            WriteError::Missing(_) => Self::invalid("missing_payload", error.to_string()),
            WriteError::Fault {
                format,
                fault: Fault::Malformed(words),
            } => Self::malformed_documents(format, &words),
            WriteError::Fault {
                fault: Fault::NotAnObject(words),
                ..
            } => Self::internal(words),
            WriteError::DocumentTooLarge { limit } => TooLarge { limit }.into(),
            WriteError::Spool(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a write could not be kept on disk"
                );
                Self::internal("Weft could not keep the body on its disk; see the merger's log.")
            }
            WriteError::Cluster(error) => error.into(),
            WriteError::Store(error) => error.into(),
            WriteError::Task(error) => error.into(),
        }
    }
}

impl From<TooLarge> for ApiError {
    fn from(error: TooLarge) -> Self {
        ReadError::TooLarge(error).into()
    }
}
