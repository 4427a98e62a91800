//! What is known of a request to a node beside its answer: its span, where the client's request is traced, and a note of who is
//! asked, where the access log wants to know.

use http::HeaderName;

use super::{NodeAnswer, NodeRequest, Target, UpstreamError};
use crate::spans::{Ending, Span};

impl NodeRequest {
    /// Notes who is asked, begins the span of this request, and puts what Envoy and the node do beneath it.
    pub(super) fn begin_span(&mut self) -> Ending {
        match &self.target {
            Target::Shard(shard) => self.forwarded.asked().note_shard(*shard),
            Target::Node(address) => self.forwarded.asked().note_node(*address),
        }
        let above = self.forwarded.span();
        if !above.is_traced() {
            return Ending::default();
        }
        let span = above.client(&self.method, || self.target.host());
        match &self.target {
            Target::Shard(shard) => span.set("weft.shard", || i64::from(shard.0).into()),
            Target::Node(address) => {
                span.set("server.port", || i64::from(address.port()).into());
            }
        }
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        span.set("url.path", || path.to_owned().into());
        if let Some(header) = span.traceparent() {
            self.headers
                .insert(HeaderName::from_static("traceparent"), header);
        }
        span
    }
}

/// Says how a node answered, and which replica of a shard it was.
pub(super) fn end_span(span: &Span, outcome: &Result<NodeAnswer, UpstreamError>) {
    if !span.is_traced() {
        return;
    }
    match outcome {
        Ok(answer) => {
            if let Some(node) = answer.headers.get("x-weft-node") {
                let node = node.to_str().unwrap_or_default();
                span.set("weft.node", || node.to_owned().into());
            }
            let has_failed = answer.status.is_client_error() || answer.status.is_server_error();
            span.answered(answer.status, has_failed);
        }
        Err(error) => span.failed(error.kind(), || error.to_string()),
    }
}

impl Target {
    /// What stands for a host in traces.
    fn host(&self) -> String {
        match self {
            Self::Shard(_) => self.to_string(),
            Self::Node(address) => address.ip().to_string(),
        }
    }
}

impl UpstreamError {
    /// Its name in traces.
    fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::NoEgress { .. } => "no_egress",
            Self::NotLeading { .. } => "not_leading",
            Self::TimedOut { .. } => "timeout",
            Self::TooLarge { .. } => "too_large",
            Self::NoRoom { .. } => "no_room",
            Self::Malformed { .. } => "malformed",
        }
    }
}
