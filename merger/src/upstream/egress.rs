//! The nodes behind Envoy's egress listener: the one implementation of [`NodeApi`] outside tests.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioTimer;
use weft_routing::{ShardNames, headers};

use super::home::{Connector, Home};
use super::{NodeAnswer, NodeApi, NodeRequest, Target, UpstreamError, chain};
use crate::bounds::{Budget, FREE_ANSWER_BYTES};
use crate::call::AnyBody;
use crate::tls::Way;

/// The client to Envoy's egress listener. Cheap to clone.
#[derive(Clone)]
pub struct EgressClient {
    client: Client<Connector, AnyBody>,
    way: Way,
    names: ShardNames,
    max_answer_bytes: u64,
    /// The budget of memory for all answers together.
    room: Budget,
}

/// The address of Envoy's egress listener, and limits for nodes' answers.
#[derive(Debug, Clone)]
pub struct EgressOptions {
    /// The way to it.
    pub way: Way,
    /// How Envoy's clusters that are shards are named.
    pub names: ShardNames,
    /// The largest answer that is read, in bytes.
    pub max_answer_bytes: u64,
    /// How many bytes all answers together may take in memory.
    pub max_answers_bytes: u64,
}

impl EgressClient {
    /// A client of the egress listener at this address.
    pub fn new(options: EgressOptions) -> Self {
        let home = Home::here();
        let connector = home.connector(&options.way, Duration::from_secs(1));
        let client = Client::builder(home)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self {
            client,
            way: options.way,
            names: options.names,
            max_answer_bytes: options.max_answer_bytes,
            room: Budget::new("bytes of nodes' answers", options.max_answers_bytes),
        }
    }

    async fn go(&self, request: NodeRequest) -> Result<NodeAnswer, UpstreamError> {
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
        let mut share = self.room.share();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unreachable(chain(&error)))?;
            if let Ok(data) = frame.into_data() {
                let length = (bytes.len() + data.len()) as u64;
                if length > self.max_answer_bytes {
                    return Err(UpstreamError::TooLarge {
                        target,
                        limit: self.max_answer_bytes,
                    });
                }
                if let Err(full) = share.resize(length.saturating_sub(FREE_ANSWER_BYTES)) {
                    return Err(UpstreamError::NoRoom { target, full });
                }
                bytes.extend_from_slice(&data);
            }
        }
        let answer = NodeAnswer {
            status: parts.status,
            headers: parts.headers,
            body: share.held_by(bytes.freeze()),
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
        let uri: Uri = format!("{}{}", self.way.url(), request.path_and_query)
            .parse()
            .map_err(|error: http::uri::InvalidUri| malformed(error.to_string()))?;
        let mut http_request = Request::new(request.body);
        *http_request.method_mut() = request.method;
        *http_request.uri_mut() = uri;
        let headers = http_request.headers_mut();
        headers.extend(request.forwarded.headers().clone());
        headers.extend(request.headers);
        let cluster = match &request.target {
            Target::Shard(shard) => self.names.of(*shard),
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

impl NodeApi for EgressClient {
    fn exchange(&self, request: NodeRequest) -> BoxFuture<'_, Result<NodeAnswer, UpstreamError>> {
        Box::pin(self.go(request))
    }
}

/// How many bytes are allocated for an answer in advance: its declared length, up to a limit.
fn expected(body: &impl Body) -> usize {
    const MOST: usize = 1 << 20;
    let exact = body.size_hint().exact().unwrap_or(0);
    usize::try_from(exact).map_or(MOST, |length| length.min(MOST))
}

enum EnvoyReply {
    Unreachable,
    TimedOut,
}

/// Tells Envoy's own error replies from a node's answers: the egress listener marks its own with a header.
fn envoys_own(answer: &NodeAnswer) -> Option<EnvoyReply> {
    if !answer.headers.contains_key(headers::ENVOY_REPLY) {
        return None;
    }
    match answer.status {
        StatusCode::GATEWAY_TIMEOUT => Some(EnvoyReply::TimedOut),
        // Any other reply of Envoy's own is no node's answer either.
        _ => Some(EnvoyReply::Unreachable),
    }
}
