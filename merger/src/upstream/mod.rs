//! The only way out: requests to nodes, through Envoy's egress listener.
//!
//! Invariant: nothing else in the merger reaches a node. Retries, hedging and the choice of a replica are Envoy's; this
//! module says only whom a request is for and how long it may take. What lies behind it is a trait: [`EgressClient`] goes
//! through Envoy; tests put other nodes in its place.

mod egress;
mod request;
mod tasks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use weft_routing::placement::ShardId;

pub use egress::{EgressClient, EgressOptions};
pub use request::NodeRequest;
pub use tasks::TaskListError;

use crate::answer::Answer;
use crate::bounds::NoRoom;

/// Whether a node hides the rest of a secret: it shows the first letters and `XXX...`.
pub fn is_hidden(secret: &str) -> bool {
    secret.ends_with("XXX...")
}

/// Whom a request is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Any ready replica of a shard; Envoy chooses, and retries on another.
    Shard(ShardId),
    /// One node and no other.
    Node(SocketAddr),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shard(shard) => write!(f, "shard-{}", shard.0),
            Self::Node(address) => write!(f, "node {address}"),
        }
    }
}

/// A node's answer, whole.
#[derive(Debug, Clone)]
pub struct NodeAnswer {
    /// The status, any of the node's own.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl NodeAnswer {
    /// The answer as the client shall see it.
    pub fn pass_on(self) -> Answer {
        Answer {
            status: self.status,
            headers: Vec::new(),
            content_type: self.headers.get(http::header::CONTENT_TYPE).cloned(),
            body: self.body,
        }
    }

    /// The task that the answer names, by the node's own number.
    pub fn task_uid(&self) -> Option<u32> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Accepted {
            task_uid: u32,
        }
        let accepted = serde_json::from_slice::<Accepted>(&self.body).ok()?;
        Some(accepted.task_uid)
    }
}

/// Why there is no answer of a node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, no ready replica, or the connection broke before an answer.
    #[error("{target} can't be reached: {detail}")]
    Unreachable {
        /// Whom the request was for.
        target: Target,
        /// What Envoy or the connection said.
        detail: String,
    },
    /// Envoy's egress listener isn't there: nothing is known of the node.
    #[error("{target} can't be reached: Envoy's egress listener does not answer: {detail}")]
    NoEgress {
        /// Whom the request was for.
        target: Target,
        /// What the connection said.
        detail: String,
    },
    /// The time ran out.
    #[error("{target} gave no answer within {} ms", within.as_millis())]
    TimedOut {
        /// Whom the request was for.
        target: Target,
        /// The time it had.
        within: Duration,
    },
    /// The answer is larger than what is read.
    #[error("{target}'s answer is larger than {limit} bytes")]
    TooLarge {
        /// Whom the request was for.
        target: Target,
        /// The bound, in bytes.
        limit: u64,
    },
    /// There is no room for the answer beside those of other requests.
    #[error("{target}'s answer was not read: {full}")]
    NoRoom {
        /// Whom the request was for.
        target: Target,
        /// What there is too much of.
        full: NoRoom,
    },
    /// The request couldn't be put together (a path or header no HTTP request can carry).
    #[error("the request for {target} is not valid HTTP: {detail}")]
    Malformed {
        /// Whom the request was for.
        target: Target,
        /// What is wrong with it.
        detail: String,
    },
}

impl UpstreamError {
    /// Whether the request may have reached the node. It hasn't where no connection was made.
    pub fn may_have_arrived(&self) -> bool {
        /// How Envoy says that it had no connection to send it by.
        const NOT_SENT: [&str; 4] = [
            "connection failure",
            "connect timeout",
            "no healthy upstream",
            "overflow",
        ];
        match self {
            Self::NoEgress { .. } | Self::Malformed { .. } => false,
            Self::Unreachable { detail, .. } => !NOT_SENT.iter().any(|said| detail.contains(said)),
            Self::TimedOut { .. } | Self::TooLarge { .. } | Self::NoRoom { .. } => true,
        }
    }

    /// Whom the request was for.
    pub fn target(&self) -> &Target {
        match self {
            Self::Unreachable { target, .. }
            | Self::NoEgress { target, .. }
            | Self::TimedOut { target, .. }
            | Self::TooLarge { target, .. }
            | Self::NoRoom { target, .. }
            | Self::Malformed { target, .. } => target,
        }
    }
}

/// What lies behind [`Upstream`]: the nodes behind Envoy, or other nodes in tests.
pub trait NodeApi: Send + Sync {
    /// Sends a request and reads the whole answer. Dropping the future aborts the request.
    ///
    /// # Errors
    /// No answer of a node. A node's own error status is an answer.
    fn exchange(&self, request: NodeRequest) -> BoxFuture<'_, Result<NodeAnswer, UpstreamError>>;
}

/// The merger's way to the nodes, with a bound on every exchange. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    nodes: Arc<dyn NodeApi>,
}

impl Upstream {
    /// The way to these nodes.
    pub fn new(nodes: Arc<dyn NodeApi>) -> Self {
        Self { nodes }
    }

    /// Sends a request and reads the whole answer. Dropping the future aborts the request, through Envoy.
    ///
    /// # Errors
    /// No answer of a node. A node's own error status is an answer.
    pub async fn send(&self, request: NodeRequest) -> Result<NodeAnswer, UpstreamError> {
        let target = request.target.clone();
        let within = request.timeout;
        match tokio::time::timeout(within, self.nodes.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(UpstreamError::TimedOut { target, within }),
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
