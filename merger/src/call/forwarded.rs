//! What goes with every request to a node that is made for a client's request.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Asked;
use crate::spans::Span;

/// The client's headers that every node request of this call carries: the client's key and the trace; and the span beneath which
/// the node's work belongs.
#[derive(Debug, Clone, Default)]
pub struct ForwardedHeaders {
    headers: HeaderMap,
    span: Span,
    asked: Asked,
}

/// Header names copied from the client to each node request.
const FORWARDED: [&str; 5] = [
    "authorization",
    "traceparent",
    "tracestate",
    "x-request-id",
    "baggage",
];

impl ForwardedHeaders {
    /// Copies the headers to forward from a client's headers, and adds a request id if there is none.
    pub fn from_client(headers: &HeaderMap) -> Self {
        let mut forwarded = HeaderMap::with_capacity(FORWARDED.len());
        for name in FORWARDED {
            if let Some(value) = headers.get(name) {
                forwarded.insert(HeaderName::from_static(name), value.clone());
            }
        }
        if !forwarded.contains_key("x-request-id")
            && let Ok(id) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())
        {
            forwarded.insert("x-request-id", id);
        }
        Self {
            headers: forwarded,
            ..Self::default()
        }
    }

    /// The same headers beneath this span.
    #[must_use]
    pub fn beneath(self, span: &Span) -> Self {
        Self {
            span: span.clone(),
            ..self
        }
    }

    /// The same headers, with a note of who is asked.
    #[must_use]
    pub fn noted_in(self, asked: &Asked) -> Self {
        Self {
            asked: asked.clone(),
            ..self
        }
    }

    /// Where it is noted who is asked.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The span beneath which requests with these headers belong.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The same trace with another key, or with none.
    pub fn with_key(&self, key: Option<&str>) -> Self {
        let mut forwarded = self.headers.clone();
        forwarded.remove("authorization");
        if let Some(value) =
            key.and_then(|key| HeaderValue::from_str(&format!("Bearer {key}")).ok())
        {
            forwarded.insert("authorization", value);
        }
        Self {
            headers: forwarded,
            span: self.span.clone(),
            asked: self.asked.clone(),
        }
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A copy with its own memory: a client's headers keep the whole buffer that they were read into.
    pub fn detached(&self) -> Self {
        let mut forwarded = self.headers.clone();
        for value in forwarded.values_mut() {
            if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
                *value = copy;
            }
        }
        Self {
            headers: forwarded,
            span: self.span.clone(),
            asked: self.asked.clone(),
        }
    }
}
