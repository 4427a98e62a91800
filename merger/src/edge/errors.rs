//! Errors as clients see them, with Meilisearch's JSON and codes. No other module knows the codes.

use http::StatusCode;
use serde::Serialize;

use crate::answer::Answer;
use crate::base::Stopping;
use crate::bounds::NoRoom;
use crate::broadcast::BroadcastError;
use crate::call::{ReadError, TooLarge};
use crate::cluster::ClusterError;
use crate::search::SearchError;
use crate::store::StoreError;
use crate::tasks::TaskError;
use crate::upstream::UpstreamError;
use crate::webhooks::WebhookError;
use crate::write::{DecodeError, Fault, Format, FormatError, WriteError};

/// An error with the status, code, type and message that Meilisearch's JSON has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    kind: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    code: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    link: String,
}

const TASK_FILTERS: &str = "`uids`, `indexUids`, `statuses`, `types`, `canceledBy`, `beforeEnqueuedAt`, `afterEnqueuedAt`, \
     `beforeStartedAt`, `afterStartedAt`, `beforeFinishedAt`, `afterFinishedAt`";

impl ApiError {
    fn new(
        status: StatusCode,
        code: &'static str,
        kind: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            kind,
            message: message.into(),
        }
    }

    fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, "invalid_request", message)
    }

    fn internal(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "internal",
            message,
        )
    }

    fn of_store(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "the store failed");
        Self::internal("Weft's own store failed; see the merger's log.")
    }

    fn unavailable(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "remote_could_not_send_request",
            "system",
            message,
        )
    }

    /// The `Authorization` header is missing, or doesn't use the bearer method.
    pub(super) fn missing_authorization() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "missing_authorization_header",
            "auth",
            "The Authorization header is missing. It must use the bearer authorization method.",
        )
    }

    /// The key is unknown, expired, or doesn't allow the operation.
    pub(super) fn invalid_key() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "invalid_api_key",
            "auth",
            "The provided API key is invalid.",
        )
    }

    /// The key is for other indexes.
    pub(super) fn foreign_index(uid: &str, allowed: &[String]) -> Self {
        let mut allowed = allowed.to_vec();
        allowed.sort_unstable();
        allowed.dedup();
        Self::new(
            StatusCode::FORBIDDEN,
            "invalid_api_key",
            "auth",
            format!(
                "The API key cannot acces the index `{uid}`, authorized indexes are {allowed:?}."
            ),
        )
    }

    /// The body is not the expected JSON.
    pub(super) fn malformed_payload(detail: &str) -> Self {
        Self::invalid(
            "malformed_payload",
            format!("The json payload provided is malformed. `{detail}`."),
        )
    }

    /// The body can't be read as documents of its format.
    fn malformed_documents(format: Format, words: &str) -> Self {
        let name = format.name();
        let words = match format {
            Format::Csv { .. } => format!(": `{words}`"),
            Format::Json | Format::Ndjson => {
                format!(
                    ". `Couldn't serialize document value: {}`",
                    shortened(words)
                )
            }
        };
        Self::invalid(
            "malformed_payload",
            format!("The `{name}` payload provided is malformed{words}."),
        )
    }

    /// Weft doesn't support the operation: it makes no sense on a cluster, or isn't implemented yet.
    pub(super) fn refused(operation: &str, reason: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "feature_not_enabled",
            "invalid_request",
            format!("Weft does not answer `{operation}`: {reason}."),
        )
    }

    /// This merger doesn't lead, and the one that does can't be asked.
    pub(super) fn stands_by(why: &str) -> Self {
        Self::unavailable(format!("{why}: try again."))
    }

    /// A filter's registration of a direct write can't be accepted.
    pub(super) fn bad_registration(why: &str) -> Self {
        Self::invalid(
            "bad_request",
            format!("The write can't be registered: {why}."),
        )
    }

    /// The error as an answer.
    pub fn into_answer(self) -> Answer {
        let link = format!("https://docs.meilisearch.com/errors#{}", self.code);
        let body = Body {
            message: &self.message,
            code: self.code,
            kind: self.kind,
            link,
        };
        Answer::json(self.status, &body)
    }
}

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
                    size(limit)
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
        match error {
            StoreError::NotLeader | StoreError::Unsettled => Self::unavailable(error.to_string()),
            _ => Self::of_store(&error),
        }
    }
}

impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::UnknownNode(_) | ClusterError::UnknownPath(_) => Self::new(
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
            ClusterError::UnknownIndex(_) => Self::new(
                StatusCode::NOT_FOUND,
                "index_not_found",
                "invalid_request",
                error.to_string(),
            ),
            ClusterError::LastReplica(_) => Self::new(
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
            | ClusterError::NoQuorum { .. } => Self::unavailable(error.to_string()),
            ClusterError::TooManyShards { .. } | ClusterError::TooFewReplicas { .. } => {
                Self::invalid(
                    "bad_request",
                    format!("Invalid value at `.sharding`: {error}"),
                )
            }
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
            | WriteError::Busy(_) => Self::unavailable(error.to_string()),
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

/// A size as nodes print it: in binary units if it is a multiple of 1,024, else in decimal units.
fn size(bytes: u64) -> String {
    let (step, units) = if bytes.is_multiple_of(1024) {
        (1024.0, ["B", "KiB", "MiB", "GiB", "TiB"])
    } else {
        (1000.0, ["B", "KB", "MB", "GB", "TB"])
    };
    let mut value = bytes as f64;
    let mut units = units.into_iter().peekable();
    let mut unit = units.next().unwrap_or_default();
    while value >= step
        && let Some(next) = units.next()
    {
        value /= step;
        unit = next;
    }
    format!("{value} {unit}")
}

/// How many bytes of the start and the end of a long error text are kept, as on a node. Shorter texts are kept whole.
const FAULT_START_BYTES: usize = 50;
const FAULT_END_BYTES: usize = 85;

fn shortened(words: &str) -> String {
    let gap = "...";
    if words.len() <= FAULT_START_BYTES + FAULT_END_BYTES + gap.len() {
        return words.to_owned();
    }
    let border = |at: usize| {
        (0..=at)
            .rev()
            .find(|at| words.is_char_boundary(*at))
            .unwrap_or(0)
    };
    let start = border(FAULT_START_BYTES);
    let end = border(words.len() - FAULT_END_BYTES);
    let part = |range: Option<&str>| range.unwrap_or_default().to_owned();
    part(words.get(..start)) + gap + &part(words.get(end..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_as_nodes_print_them() {
        assert_eq!(size(3), "3 B");
        assert_eq!(size(100 << 20), "100 MiB");
        assert_eq!(size(1_500_000), "1.5 MB");
        assert_eq!(size(4 << 30), "4 GiB");
        assert_eq!(size(0), "0 B");
    }

    #[test]
    fn a_long_fault_keeps_its_two_ends() {
        let words = "é".repeat(100);
        let short = shortened(&words);
        assert!(short.starts_with('é') && short.ends_with('é') && short.contains("..."));
        assert!(short.len() <= FAULT_START_BYTES + FAULT_END_BYTES + 4);
        assert_eq!(shortened("short"), "short");
    }
}
