//! The errors of requests and tasks, in Meilisearch's own shape.

mod codes;
mod engine;

pub(crate) use codes::{Code, Coded, of};

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// An error as a client sees it: `message`, `code`, `type` and `link`, and the answer's HTTP status.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub(crate) struct ApiError {
    /// The HTTP status; not part of the body.
    #[serde(skip, default = "internal_status")]
    pub(crate) status: u16,
    /// The message for people.
    pub(crate) message: String,
    /// The name of the code, for programs.
    pub(crate) code: String,
    /// The code's type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The address of the code's documentation.
    pub(crate) link: String,
}

fn internal_status() -> u16 {
    500
}

/// The result of a function that may refuse a request.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error with a code and a message.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> ApiError {
        let name = code.name();
        ApiError {
            status: code.status().as_u16(),
            message: message.into(),
            link: format!("https://docs.meilisearch.com/errors#{name}"),
            code: name,
            kind: code.kind().to_owned(),
        }
    }

    /// An operation of Meilisearch that this node does not have.
    pub(crate) fn not_implemented(operation: &str) -> ApiError {
        ApiError::new(
            Code::NotImplemented,
            format!("The embedded node does not implement {operation}."),
        )
    }

    /// A failure inside the node.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> ApiError {
        ApiError::new(Code::Internal, cause.to_string())
    }

    /// There is no index of that name.
    pub(crate) fn index_not_found(uid: &str) -> ApiError {
        ApiError::new(Code::IndexNotFound, format!("Index `{uid}` not found."))
    }

    /// The same error under another code.
    pub(crate) fn with_code(self, code: Code) -> ApiError {
        ApiError::new(code, self.message)
    }

    /// The same error with a text before its message.
    pub(crate) fn prefixed(mut self, prefix: &str) -> ApiError {
        self.message = format!("{prefix}{}", self.message);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = axum::http::StatusCode::from_u16(self.status)
            .unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        if status == axum::http::StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(
                axum::http::header::RETRY_AFTER,
                axum::http::HeaderValue::from_static("10"),
            );
        }
        response
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> ApiError {
        let code = match error.raw_os_error() {
            Some(5) => Code::IoError,
            Some(24) => Code::TooManyOpenFiles,
            Some(28) => Code::NoSpaceLeftOnDevice,
            _ => Code::Internal,
        };
        ApiError::new(code, error.to_string())
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(error: tokio::task::JoinError) -> ApiError {
        ApiError::internal(error)
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> ApiError {
        ApiError::internal(error)
    }
}

impl From<milli_core::heed::Error> for ApiError {
    fn from(error: milli_core::heed::Error) -> ApiError {
        ApiError::from(milli_core::Error::from(error))
    }
}

macro_rules! internal_from {
    ($($source:ty),+) => {
        $(impl From<$source> for ApiError {
            fn from(error: $source) -> ApiError {
                ApiError::internal(error)
            }
        })+
    };
}

internal_from!(
    redb::Error,
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);
