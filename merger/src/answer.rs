//! The answer to a client: a status, a few headers, a body.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

/// An answer to the client, or a node's answer passed on as it is.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers except `content-type` and `content-length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body's type; `None` if there is no body.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// An answer whose JSON body is already serialised.
    pub fn json_bytes(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content_type: Some(HeaderValue::from_static("application/json")),
            body: body.into(),
        }
    }

    /// An answer with a value as JSON. A value that can't be serialised (none of ours) becomes an empty body.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        Self::json_bytes(status, serde_json::to_vec(value).unwrap_or_default())
    }

    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content_type: None,
            body: Bytes::new(),
        }
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
