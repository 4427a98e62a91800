//! The request that every replica of a shard gets.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use weft_routing::operation::NamedOperation;

use super::Context;
use crate::call::{AnyBody, Call, ForwardedHeaders, full};
use crate::cluster::NodeRef;
use crate::upstream::{NodeAnswer, NodeRequest, Target, UpstreamError};

/// A request that every replica of a shard gets, the same for each.
pub(crate) struct Command {
    /// The method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path_and_query: String,
    /// The headers, besides those of authority and trace.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The headers of authority and trace.
    pub(crate) forwarded: ForwardedHeaders,
    /// The body.
    pub(crate) body: Box<dyn Content>,
    /// Whether a node that takes the request must name a task. A change of a key or a feature is done with the answer, without a
    /// task.
    pub(crate) is_task: bool,
}

/// The operation of a client's request, with the names in its path.
pub(crate) fn named(call: &Call) -> NamedOperation {
    NamedOperation {
        operation: call.operation,
        index: call.index.clone(),
        document: call.document.clone(),
    }
}

/// A body that can be sent any number of times.
pub(crate) trait Content: Send + Sync {
    /// The size in bytes. It counts towards the lag of replicas that get the request later.
    fn bytes(&self) -> u64;

    /// The body of one request.
    fn body(&self) -> AnyBody;
}

impl Content for Bytes {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn body(&self) -> AnyBody {
        full(self.clone())
    }
}

impl Command {
    /// The request to one node, or to a shard.
    pub(crate) fn to(&self, target: Target, timeout: Duration) -> NodeRequest {
        let (method, path) = (self.method.clone(), self.path_and_query.clone());
        let request =
            NodeRequest::new(target, method, path, &self.forwarded, timeout).body(self.body.body());
        self.headers.iter().fold(request, |request, (name, value)| {
            request.header(name.clone(), value.clone())
        })
    }

    /// Sends the request to one node, and notes that the node answered.
    pub(crate) async fn send(
        &self,
        ctx: &Context,
        node: &NodeRef,
    ) -> Result<NodeAnswer, UpstreamError> {
        let request = self.to(Target::Node(node.address), ctx.write_timeout);
        let answer = ctx.upstream.send(request).await?;
        ctx.contacts.note(&node.id);
        Ok(answer)
    }
}
