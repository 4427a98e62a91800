//! Errors as clients see them, with Meilisearch's JSON and codes. No other module knows the codes.
//!
//! This file has the error, its JSON and the errors of the edge itself; [`of_parts`] turns the errors of the other parts into it.

mod of_parts;

use http::StatusCode;
use serde::Serialize;

use crate::answer::Answer;
use crate::store::StoreError;
use crate::write::Format;

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

/// Whether a store refused because this merger leads no more.
fn stopped_leading(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|error| {
        matches!(
            error.downcast_ref::<StoreError>(),
            Some(StoreError::NotLeader | StoreError::Unsettled | StoreError::Closed)
        )
    })
}

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
        if stopped_leading(error) {
            return Self::leader_silent("it has stopped leading meanwhile");
        }
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

    /// The leader gave no answer to a request that was passed on, and may have done it.
    pub(super) fn leader_silent(why: &str) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "remote_timeout",
            "system",
            format!("The merger that leads gave no answer, and may have done it or not: {why}."),
        )
    }

    /// A merger that is alone can't step down.
    pub(super) fn alone() -> Self {
        Self::invalid(
            "bad_request",
            "This merger shares its state with no other (--etcd): nobody could lead in its place."
                .to_owned(),
        )
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
    fn a_long_fault_keeps_its_two_ends() {
        let words = "é".repeat(100);
        let short = shortened(&words);
        assert!(short.starts_with('é') && short.ends_with('é') && short.contains("..."));
        assert!(short.len() <= FAULT_START_BYTES + FAULT_END_BYTES + 4);
        assert_eq!(shortened("short"), "short");
    }
}
