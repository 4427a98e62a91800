//! The only way out: requests to nodes, through Envoy's egress listener.
//!
//! Invariant: nothing else in the merger opens a connection to a node. Retries, hedging and the choice of a
//! replica are Envoy's; this module says only whom a request is for and how long it may take.

mod request;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use weft_routing::headers;
use weft_routing::placement::ShardId;

pub use request::NodeRequest;

use crate::answer::Answer;
use crate::call::AnyBody;

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
    /// Whom the request was for.
    pub fn target(&self) -> &Target {
        match self {
            Self::Unreachable { target, .. }
            | Self::NoEgress { target, .. }
            | Self::TimedOut { target, .. }
            | Self::TooLarge { target, .. }
            | Self::Malformed { target, .. } => target,
        }
    }
}

/// The client to Envoy's egress listener. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    client: Client<HttpConnector, AnyBody>,
    egress: String,
    max_answer_bytes: u64,
}

impl Upstream {
    /// A client of the egress listener at `egress` (`host:port`) that reads answers of at most `max_answer_bytes`.
    pub fn new(egress: &str, max_answer_bytes: u64) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self {
            client,
            egress: egress.to_owned(),
            max_answer_bytes,
        }
    }

    /// Sends a request and reads the whole answer. Dropping the future aborts the request, through Envoy.
    ///
    /// # Errors
    /// No answer of a node. A node's own error status is an answer.
    pub async fn send(&self, request: NodeRequest) -> Result<NodeAnswer, UpstreamError> {
        let target = request.target.clone();
        let within = request.timeout;
        match tokio::time::timeout(within, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(UpstreamError::TimedOut { target, within }),
        }
    }

    async fn exchange(&self, request: NodeRequest) -> Result<NodeAnswer, UpstreamError> {
        let target = request.target.clone();
        let within = request.timeout;
        let unreachable = |detail: String| UpstreamError::Unreachable {
            target: target.clone(),
            detail,
        };
        let http_request = self.compose(request)?;
        let response =
            self.client
                .request(http_request)
                .await
                .map_err(|error| match error.is_connect() {
                    true => UpstreamError::NoEgress {
                        target: target.clone(),
                        detail: chain(&error),
                    },
                    false => unreachable(chain(&error)),
                })?;
        let (parts, mut body) = response.into_parts();
        let mut bytes = BytesMut::with_capacity(expected(&body));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unreachable(chain(&error)))?;
            if let Ok(data) = frame.into_data() {
                if (bytes.len() + data.len()) as u64 > self.max_answer_bytes {
                    return Err(UpstreamError::TooLarge {
                        target,
                        limit: self.max_answer_bytes,
                    });
                }
                bytes.extend_from_slice(&data);
            }
        }
        let answer = NodeAnswer {
            status: parts.status,
            headers: parts.headers,
            body: bytes.freeze(),
        };
        match envoys_own(&answer) {
            Some(EnvoyReply::TimedOut) => Err(UpstreamError::TimedOut { target, within }),
            Some(EnvoyReply::Unreachable) => Err(unreachable(
                String::from_utf8_lossy(&answer.body)
                    .chars()
                    .take(200)
                    .collect(),
            )),
            None => Ok(answer),
        }
    }

    fn compose(&self, request: NodeRequest) -> Result<Request<AnyBody>, UpstreamError> {
        let target = request.target.clone();
        let malformed = |detail: String| UpstreamError::Malformed {
            target: target.clone(),
            detail,
        };
        let uri: Uri = format!("http://{}{}", self.egress, request.path_and_query)
            .parse()
            .map_err(|error: http::uri::InvalidUri| malformed(error.to_string()))?;
        let mut http_request = Request::new(request.body);
        *http_request.method_mut() = request.method;
        *http_request.uri_mut() = uri;
        let headers = http_request.headers_mut();
        headers.extend(request.along.headers().clone());
        headers.extend(request.headers);
        let cluster = match &request.target {
            Target::Shard(shard) => format!("shard-{}", shard.0),
            Target::Node(address) => {
                let value = HeaderValue::from_str(&address.to_string());
                headers.insert(
                    headers::ORIGINAL_DST_HOST,
                    value.map_err(|e| malformed(e.to_string()))?,
                );
                headers::NODE_CLUSTER.to_owned()
            }
        };
        let cluster = HeaderValue::from_str(&cluster).map_err(|e| malformed(e.to_string()))?;
        headers.insert(headers::CLUSTER, cluster);
        let millis =
            HeaderValue::from(u64::try_from(request.timeout.as_millis()).unwrap_or(u64::MAX));
        headers.insert("x-envoy-upstream-rq-timeout-ms", millis);
        Ok(http_request)
    }
}

/// How much room an answer is given before it is there: what it says of its length, up to a bound.
fn expected(body: &impl Body) -> usize {
    const MOST: usize = 1 << 20;
    let exact = body.size_hint().exact().unwrap_or(0);
    usize::try_from(exact).map_or(MOST, |length| length.min(MOST))
}

enum EnvoyReply {
    Unreachable,
    TimedOut,
}

/// Tells Envoy's own error replies from a node's: the egress listener marks its own with a header.
fn envoys_own(answer: &NodeAnswer) -> Option<EnvoyReply> {
    if !answer.headers.contains_key(headers::ENVOY_REPLY) {
        return None;
    }
    match answer.status {
        StatusCode::GATEWAY_TIMEOUT => Some(EnvoyReply::TimedOut),
        // Whatever else Envoy says by itself is no node's answer either.
        _ => Some(EnvoyReply::Unreachable),
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
