//! A request for a node or a shard, with its builder.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::Target;
use crate::call::{AnyBody, ForwardedHeaders, empty, full};

/// A request for a node or a shard.
pub struct NodeRequest {
    pub(crate) target: Target,
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) forwarded: ForwardedHeaders,
    pub(super) headers: HeaderMap,
    pub(super) body: AnyBody,
    pub(super) timeout: Duration,
}

impl NodeRequest {
    /// A request without a body. `forwarded` holds the headers of authority and trace; `timeout` limits the whole exchange.
    pub fn new(
        target: Target,
        method: Method,
        path_and_query: impl Into<String>,
        forwarded: &ForwardedHeaders,
        timeout: Duration,
    ) -> Self {
        Self {
            target,
            method,
            path_and_query: path_and_query.into(),
            forwarded: forwarded.clone(),
            headers: HeaderMap::new(),
            body: empty(),
            timeout,
        }
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: impl Into<Bytes>) -> Self {
        self.header(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )
        .body(full(body))
    }

    /// Lets Envoy ask another replica too if there is no answer after `late`. Only for reads of a shard.
    #[must_use]
    pub fn hedged_after(self, late: Duration) -> Self {
        let millis = u64::try_from(late.as_millis()).unwrap_or(u64::MAX).max(1);
        let name = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
        self.header(name, HeaderValue::from(millis))
    }

    /// Sets any body.
    #[must_use]
    pub fn body(mut self, body: AnyBody) -> Self {
        self.body = body;
        self
    }

    /// Sets one header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The target, and what a node gets of the request: for tests with nodes that aren't reached by HTTP.
    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (Target, Method, String, AnyBody) {
        (self.target, self.method, self.path_and_query, self.body)
    }
}
