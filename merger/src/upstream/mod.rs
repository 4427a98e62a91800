//! The only way to the nodes: requests through Envoy's egress listener.
//!
//! Invariant: nothing else in the merger reaches a node. Envoy does the retries, the hedging and the choice of a replica; this
//! module only says which shard or node a request is for and how long it may take. The nodes are behind a trait: [`EgressClient`]
//! goes through Envoy, and tests use other implementations. No request leaves after the [`Fence`] has closed, and those under way
//! are cut off. Where mergers take turns in leading, each request says the term, and a guard in front of a node may refuse it.

mod changing;
mod egress;
mod home;
mod pass_on;
mod request;
mod tasks;
mod traced;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use weft_routing::headers;
use weft_routing::placement::ShardId;

pub use changing::{Changing, Stamp, Unknown};
pub use egress::{EgressClient, EgressOptions};
pub(crate) use home::{Connector, Home};
pub use pass_on::{PASSED_ON, PassOn};
pub use request::NodeRequest;
pub use tasks::TaskListError;

use crate::answer::Answer;
use crate::bounds::NoRoom;
use crate::fence::Fence;

/// Whether a secret is masked, as nodes show it: its first letters and `XXX...`.
pub fn is_hidden(secret: &str) -> bool {
    secret.ends_with("XXX...")
}

/// The shard or node that a request is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Any ready replica of a shard; Envoy chooses, and retries on another.
    Shard(ShardId),
    /// Exactly this node.
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

/// A node's whole answer.
#[derive(Debug, Clone)]
pub struct NodeAnswer {
    /// The node's status, which may be an error.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl NodeAnswer {
    /// The answer as it is passed on to the client: status, content type and body.
    pub fn pass_on(self) -> Answer {
        Answer {
            status: self.status,
            headers: Vec::new(),
            content_type: self.headers.get(http::header::CONTENT_TYPE).cloned(),
            body: self.body,
        }
    }

    /// Whether it comes from a guard in the node's place, which has heard of a newer leader.
    fn is_of_stale_term(&self) -> bool {
        let why = self.headers.get(headers::GUARD);
        self.status == StatusCode::PRECONDITION_FAILED
            && why.is_some_and(|why| why == headers::GUARD_STALE)
    }

    /// The task that the answer names, by the node's own uid; `None` if it names none.
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

/// Why there is no answer from a node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, no ready replica, or the connection broke before an answer.
    #[error("{target} can't be reached: {detail}")]
    Unreachable {
        /// The shard or node that the request was for.
        target: Target,
        /// The error text of Envoy or of the connection.
        detail: String,
    },
    /// Envoy's egress listener can't be reached, which says nothing about the node.
    #[error("{target} can't be reached: Envoy's egress listener does not answer: {detail}")]
    NoEgress {
        /// The shard or node that the request was for.
        target: Target,
        /// The error text of the connection.
        detail: String,
    },
    /// This merger's lease is over, so it sends nothing, and waits for no answer.
    #[error("{target} is not asked: this merger's lease in etcd is over")]
    NotLeading {
        /// The shard or node that the request was for.
        target: Target,
        /// Whether the request had left before.
        sent: bool,
    },
    /// No answer came in time.
    #[error("{target} gave no answer within {} ms", within.as_millis())]
    TimedOut {
        /// The shard or node that the request was for.
        target: Target,
        /// The time that the request had.
        within: Duration,
    },
    /// The answer is larger than the limit.
    #[error("{target}'s answer is larger than {limit} bytes")]
    TooLarge {
        /// The shard or node that the request was for.
        target: Target,
        /// The limit, in bytes.
        limit: u64,
    },
    /// There is no memory left for the answer, because of the answers to other requests.
    #[error("{target}'s answer was not read: {full}")]
    NoRoom {
        /// The shard or node that the request was for.
        target: Target,
        /// The limit that was reached.
        full: NoRoom,
    },
    /// The request can't be built: its path or a header is not valid in HTTP.
    #[error("the request for {target} is not valid HTTP: {detail}")]
    Malformed {
        /// The shard or node that the request was for.
        target: Target,
        /// What is wrong with the request.
        detail: String,
    },
}

impl UpstreamError {
    /// Whether the request may have reached the node. It hasn't if no connection was made.
    pub fn may_have_arrived(&self) -> bool {
        /// Envoy's texts for a request that it had no connection for. Where it says them in a header, spaces are underscores.
        const NOT_SENT: [&str; 5] = [
            "connection failure",
            "connection timeout",
            "connect timeout",
            "no healthy upstream",
            "overflow",
        ];
        match self {
            Self::NoEgress { .. } | Self::Malformed { .. } => false,
            Self::NotLeading { sent, .. } => *sent,
            Self::Unreachable { detail, .. } => {
                let detail = detail.replace('_', " ");
                !NOT_SENT.iter().any(|said| detail.contains(said))
            }
            Self::TimedOut { .. } | Self::TooLarge { .. } | Self::NoRoom { .. } => true,
        }
    }

    /// The shard or node that the request was for.
    pub fn target(&self) -> &Target {
        match self {
            Self::Unreachable { target, .. }
            | Self::NoEgress { target, .. }
            | Self::NotLeading { target, .. }
            | Self::TimedOut { target, .. }
            | Self::TooLarge { target, .. }
            | Self::NoRoom { target, .. }
            | Self::Malformed { target, .. } => target,
        }
    }
}

/// What [`Upstream`] sends requests to: the nodes behind Envoy, or simulated nodes in tests.
pub trait NodeApi: Send + Sync {
    /// Sends a request and reads the whole answer. Dropping the future aborts the request.
    ///
    /// # Errors
    /// No answer came from a node. An error status of the node itself is an answer.
    fn exchange(&self, request: NodeRequest) -> BoxFuture<'_, Result<NodeAnswer, UpstreamError>>;
}

/// The merger's client for nodes, with a time limit on every request. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    nodes: Arc<dyn NodeApi>,
    fence: Fence,
    changing: Arc<Changing>,
}

impl Upstream {
    /// A client for these nodes, as long as the fence is open.
    pub fn new(nodes: Arc<dyn NodeApi>, fence: Fence) -> Self {
        Self {
            nodes,
            fence,
            changing: Arc::default(),
        }
    }

    /// Whether requests may leave: the lease of this merger is not over.
    pub fn may_send(&self) -> bool {
        self.fence.lets_in()
    }

    /// What requests may be changing on the nodes.
    pub(crate) fn changing(&self) -> &Changing {
        &self.changing
    }

    /// Resolves when no requests may leave any more.
    pub(crate) async fn lease_over(&self) {
        self.fence.closed().await;
    }

    /// Sends a request and reads the whole answer. Dropping the future aborts the request, through Envoy.
    ///
    /// # Errors
    /// No answer came from a node. An error status of the node itself is an answer.
    pub async fn send(&self, mut request: NodeRequest) -> Result<NodeAnswer, UpstreamError> {
        let span = request.begin_span();
        let outcome = self.exchange(request).await;
        traced::end_span(&span, &outcome);
        outcome
    }

    async fn exchange(&self, mut request: NodeRequest) -> Result<NodeAnswer, UpstreamError> {
        let target = request.target.clone();
        if let Some(term) = self.fence.term() {
            let name = HeaderName::from_static(headers::TERM);
            request = request.header(name, HeaderValue::from(term.0));
        }
        let within = request.timeout;
        let not_leading = |target, sent| Err(UpstreamError::NotLeading { target, sent });
        let Some(_under_way) = self.fence.enter() else {
            return not_leading(target, false);
        };
        let (method, path) = (&request.method, &request.path_and_query);
        let leaving = self.changing.leaves(method, path, &target);
        let outcome = tokio::select! {
            // Looked at first, so that a merger that slept beyond its time sends nothing more when it wakes.
            biased;
            () = self.fence.closed() => not_leading(target, true),
            outcome = tokio::time::timeout(within, self.nodes.exchange(request)) => match outcome {
                Ok(Ok(answer)) if answer.is_of_stale_term() => {
                    let term = self.fence.term().map(|term| term.0);
                    tracing::error!(%target, term, "a guard has heard of a newer leader");
                    self.fence.close();
                    not_leading(target, false)
                }
                Ok(outcome) => outcome,
                Err(_) => Err(UpstreamError::TimedOut { target, within }),
            }
        };
        if let Some(leaving) = leaving {
            leaving.ended(match &outcome {
                Ok(answer) => answer.status.is_server_error(),
                Err(error) => error.may_have_arrived(),
            });
        }
        outcome
    }
}

/// The texts of an error and its causes, in one line.
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

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::call::ForwardedHeaders;

    /// A node that takes a minute to answer.
    struct Slow;

    impl NodeApi for Slow {
        fn exchange(&self, _: NodeRequest) -> BoxFuture<'_, Result<NodeAnswer, UpstreamError>> {
            Box::pin(async {
                sleep(Duration::from_secs(60)).await;
                Ok(NodeAnswer {
                    status: StatusCode::OK,
                    headers: HeaderMap::new(),
                    body: Bytes::new(),
                })
            })
        }
    }

    /// A node that answers at once, with its guard's header or without, and what the term of the last request was.
    #[derive(Default)]
    struct Quick {
        status: StatusCode,
        guard: Option<&'static str>,
        term: std::sync::Mutex<Option<HeaderValue>>,
    }

    impl NodeApi for Quick {
        fn exchange(
            &self,
            request: NodeRequest,
        ) -> BoxFuture<'_, Result<NodeAnswer, UpstreamError>> {
            *self.term.lock().unwrap() = request.headers.get("x-weft-term").cloned();
            let said = |why| {
                (
                    HeaderName::from_static("x-weft-guard"),
                    HeaderValue::from_static(why),
                )
            };
            let answer = NodeAnswer {
                status: self.status,
                headers: self.guard.map(said).into_iter().collect(),
                body: Bytes::new(),
            };
            Box::pin(async { Ok(answer) })
        }
    }

    #[test]
    fn a_request_without_a_connection_has_not_arrived_in_all_of_envoys_words() {
        let target = Target::Node(SocketAddr::from(([127, 0, 0, 1], 7710)));
        for (detail, arrived) in [
            (
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
                false,
            ),
            (
                "UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
                false,
            ),
            (
                "URX,UF upstream_reset_before_response_started{connection_timeout}",
                false,
            ),
            ("UH no_healthy_upstream", false),
            (
                "UC upstream_reset_before_response_started{connection_termination}",
                true,
            ),
        ] {
            let (target, detail) = (target.clone(), detail.to_owned());
            let error = UpstreamError::Unreachable { target, detail };
            assert_eq!(error.may_have_arrived(), arrived, "{error}");
        }
    }

    async fn ask(upstream: &Upstream) -> Result<NodeAnswer, UpstreamError> {
        let target = Target::Node(SocketAddr::from(([127, 0, 0, 1], 7710)));
        let headers = ForwardedHeaders::default();
        let timeout = Duration::from_secs(300);
        let request = NodeRequest::new(target, http::Method::GET, "/", &headers, timeout);
        upstream.send(request).await
    }

    fn in_term(term: u64) -> Fence {
        Fence::until(Instant::now() + Duration::from_secs(2)).in_term(weft_routing::Term(term))
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_of_a_leader_says_its_term() {
        let nodes = Arc::new(Quick::default());
        let term = || nodes.term.lock().unwrap().clone();
        let leader = Upstream::new(Arc::clone(&nodes) as Arc<dyn NodeApi>, in_term(1_234));
        ask(&leader).await.unwrap();
        assert_eq!(term().unwrap(), "1234");
        let only = Upstream::new(Arc::clone(&nodes) as Arc<dyn NodeApi>, Fence::always_open());
        ask(&only).await.unwrap();
        assert_eq!(term(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_merger_that_a_guard_calls_stale_leads_no_more() {
        let fence = in_term(7);
        let refuses = Quick {
            status: StatusCode::PRECONDITION_FAILED,
            guard: Some("stale"),
            ..Quick::default()
        };
        let upstream = Upstream::new(Arc::new(refuses), fence.clone());
        let refused = ask(&upstream).await.unwrap_err();
        assert!(matches!(refused, UpstreamError::NotLeading { .. }) && !refused.may_have_arrived());
        fence.closed().await;
        assert!(!fence.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn other_answers_of_a_guard_or_node_say_nothing_about_who_leads() {
        let failed = StatusCode::PRECONDITION_FAILED;
        for (status, guard) in [
            (failed, None),
            (failed, Some("missing")),
            (failed, Some("malformed")),
            (StatusCode::OK, Some("stale")),
        ] {
            let fence = in_term(7);
            let node = Quick {
                status,
                guard,
                ..Quick::default()
            };
            let upstream = Upstream::new(Arc::new(node), fence.clone());
            assert_eq!(ask(&upstream).await.unwrap().status, status);
            assert!(fence.is_open(), "{status} {guard:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_leases_nothing_is_cut_off() {
        let upstream = Upstream::new(Arc::new(Slow), Fence::always_open());
        assert!(ask(&upstream).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_when_the_lease_ends_is_cut_off_and_nothing_leaves_afterwards() {
        let begun = Instant::now();
        let fence = Fence::until(begun + Duration::from_secs(2));
        let upstream = Upstream::new(Arc::new(Slow), fence);
        let cut = ask(&upstream).await.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        assert!(matches!(cut, UpstreamError::NotLeading { .. }) && cut.may_have_arrived());
        let refused = ask(&upstream).await.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        assert!(matches!(refused, UpstreamError::NotLeading { .. }) && !refused.may_have_arrived());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_renewed_in_time_cuts_nothing_off() {
        let begun = Instant::now();
        let fence = Fence::until(begun + Duration::from_secs(2));
        let upstream = Upstream::new(Arc::new(Slow), fence.clone());
        let renewals = async {
            loop {
                sleep(Duration::from_secs(1)).await;
                fence.extend(Instant::now() + Duration::from_secs(2));
            }
        };
        tokio::select! {
            answer = ask(&upstream) => assert!(answer.is_ok()),
            () = renewals => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_merger_steps_down_what_is_under_way_ends() {
        let fence = Fence::until(Instant::now() + Duration::from_secs(100));
        let upstream = Upstream::new(Arc::new(Slow), fence.clone());
        let under_way = tokio::spawn({
            let upstream = upstream.clone();
            async move { ask(&upstream).await }
        });
        sleep(Duration::from_secs(1)).await;
        fence.shut();
        assert!(ask(&upstream).await.is_err());
        fence.drained().await;
        assert!(under_way.await.unwrap().is_ok());
    }
}
