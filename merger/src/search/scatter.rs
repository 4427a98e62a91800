//! One request to each shard, at the same time, and what came back.
//!
//! Shards know their own fields alone: filters are [`reworded`] so that this makes no difference, and what a shard refuses
//! since it [lacks](lacking) a field is asked without it. What it would not show for the same reason is [asked for](nested).

mod formatted;
mod lacking;
mod nested;
mod reworded;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use weft_routing::headers;
use weft_routing::placement::ShardId;

use super::SearchError;
use super::performance::Times;
use super::policy::{Policy, WhenMissing};
use super::request::{Carrier, ShardRequest};
use crate::answer::Answer;
use crate::app::App;
use crate::call::{Along, Call};
use crate::cluster::ReadFrom;
use crate::upstream::{NodeAnswer, NodeRequest, Target, UpstreamError};

/// Whose read this is, and how it is carried out.
pub(super) struct Reader<'a> {
    pub(super) app: &'a App,
    pub(super) along: Along,
    pub(super) policy: Policy,
    /// True where the client wants to know how the answer came about.
    pub(super) explain: bool,
    /// Which replicas may answer.
    from: ReadFrom,
    /// Headers beside [`Along`] that a node must see.
    headers: HeaderMap,
    /// When the read began.
    started: Instant,
    /// Nanoseconds spent on waiting for shards.
    waited: Arc<AtomicU64>,
}

/// A request for one shard.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) shard: ShardId,
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) body: Option<Bytes>,
}

/// A shard's answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// Which of the requests it answers.
    pub(super) at: usize,
    pub(super) shard: ShardId,
    pub(super) body: Bytes,
    pub(super) node: Option<String>,
    pub(super) took: Duration,
}

/// The answers of all shards that gave one.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// In the order of the requests.
    pub(super) replies: Vec<Reply>,
    /// Shards that gave none, under [`WhenMissing::Partial`].
    pub(super) missing: Vec<ShardId>,
}

/// What a scatter led to.
pub(super) enum Outcome {
    /// Answers to merge.
    Answers(Gathered),
    /// A node's own error: the client's answer.
    Refused(Answer, ShardId),
}

/// Headers that a node looks at in a read.
const FOR_NODES: [&str; 1] = ["meili-include-metadata"];
/// How long to wait before a shard is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a shard with several replicas may be without one that Envoy knows to be ready.
const TAKE_OVER: Duration = Duration::from_secs(1);

impl<'a> Reader<'a> {
    /// Reads as the client wishes; waits for the task that it wants to see.
    ///
    /// # Errors
    /// The wish can't be read or fulfilled.
    pub(super) async fn new(app: &'a App, call: &Call) -> Result<Self, SearchError> {
        let otherwise = Policy {
            when_missing: WhenMissing::Error,
            deadline: app.options.search_timeout(),
        };
        let default = Policy::parse(&app.options.partial, otherwise).unwrap_or(otherwise);
        let asked = call
            .header(headers::PARTIAL)
            .and_then(|text| Policy::parse(text, default));
        let mut for_nodes = HeaderMap::new();
        for name in FOR_NODES {
            if let Some(value) = call.headers.get(name) {
                for_nodes.insert(HeaderName::from_static(name), value.clone());
            }
        }
        let policy = asked.unwrap_or(default);
        Ok(Self {
            app,
            from: ReadFrom::of(app, &call.headers, policy.deadline).await?,
            along: call.along.clone(),
            policy,
            explain: call
                .header(headers::EXPLAIN)
                .is_some_and(|value| value.eq_ignore_ascii_case("true")),
            headers: for_nodes,
            started: Instant::now(),
            waited: Arc::default(),
        })
    }

    /// Reads from primaries, where the client has no other wish: replicas hold the same documents, but after a resync not in
    /// the same order, and pages of a list must go on where the last one ended.
    pub(super) fn read_one_replica(&mut self) {
        if self.from == ReadFrom::Any {
            self.from = ReadFrom::Primary;
        }
    }

    /// The same reader with the merger's own key.
    pub(super) fn on_own_authority(&self) -> Self {
        let along = self.along.with_key(self.app.options.master_key.as_deref());
        Self {
            app: self.app,
            along,
            policy: self.policy,
            from: self.from.clone(),
            explain: false,
            headers: HeaderMap::new(),
            started: self.started,
            waited: Arc::clone(&self.waited),
        }
    }

    /// The same reader, headers and all, with the merger's own key.
    fn with_own_key(&self) -> Self {
        Self {
            headers: self.headers.clone(),
            explain: self.explain,
            ..self.on_own_authority()
        }
    }

    /// Sends all requests and waits for all answers.
    ///
    /// # Errors
    /// By the policy: a shard that gave no answer.
    pub(super) async fn gather(&self, asks: Vec<Ask>) -> Result<Outcome, SearchError> {
        reworded::gather(self, asks).await
    }

    /// Likewise, with filters as they are.
    async fn gather_as_asked(&self, asks: Vec<Ask>) -> Result<Outcome, SearchError> {
        let began = Instant::now();
        let (asks, surplus) = nested::around(self, asks).await;
        let results = join_all(asks.iter().map(|ask| self.answer(ask))).await;
        let results = lacking::without_what_is_lacking(self, &asks, results).await;
        let waited = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(waited, Ordering::Relaxed);
        let mut gathered = Gathered::default();
        let mut failure = None;
        for (at, (ask, (result, took))) in asks.iter().zip(results).enumerate() {
            match result {
                Ok(answer) if answer.status.is_success() => gathered.replies.push(Reply {
                    at,
                    shard: ask.shard,
                    node: answer
                        .headers
                        .get("x-weft-node")
                        .and_then(|name| name.to_str().ok())
                        .map(str::to_owned),
                    body: answer.body,
                    took,
                }),
                Ok(answer) if answer.status.is_server_error() && self.partial() => {
                    gathered.missing.push(ask.shard)
                }
                Ok(answer) => return Ok(Outcome::Refused(answer.pass_on(), ask.shard)),
                Err(error) => {
                    gathered.missing.push(ask.shard);
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) if !self.partial() || gathered.replies.is_empty() => Err(error.into()),
            None if gathered.replies.is_empty() && !gathered.missing.is_empty() => {
                Err(SearchError::NoShardAnswered)
            }
            _ => {
                formatted::complete(self, &asks, &mut gathered).await;
                nested::without(&surplus, &mut gathered);
                Ok(Outcome::Answers(gathered))
            }
        }
    }

    /// How long the read took so far. Rounds at the same time count twice, which can't be more than all.
    pub(super) fn times(&self) -> Times {
        let all = self.started.elapsed();
        let shards = Duration::from_nanos(self.waited.load(Ordering::Relaxed)).min(all);
        Times {
            shards,
            merge: all - shards,
        }
    }

    fn partial(&self) -> bool {
        self.policy.when_missing == WhenMissing::Partial
    }

    async fn answer(&self, ask: &Ask) -> (Result<NodeAnswer, UpstreamError>, Duration) {
        let started = Instant::now();
        let result = self
            .patiently(ask.shard, |left| self.request(ask, left))
            .await;
        (result, started.elapsed())
    }

    /// One shard's answer, asked for again while none of its replicas is ready: under [`WhenMissing::Wait`] until the
    /// deadline, and otherwise for the moment that it takes until another replica is known to take over.
    async fn patiently(
        &self,
        shard: ShardId,
        request: impl Fn(Duration) -> NodeRequest,
    ) -> Result<NodeAnswer, UpstreamError> {
        let started = Instant::now();
        loop {
            let left = self.policy.deadline.saturating_sub(started.elapsed());
            let asked = Instant::now();
            let request = request(left.max(Duration::from_millis(1)));
            let result = self.app.upstream.send(request).await;
            let unavailable = match &result {
                Ok(answer) => answer.status == StatusCode::SERVICE_UNAVAILABLE,
                Err(UpstreamError::Unreachable { .. } | UpstreamError::NoEgress { .. }) => true,
                Err(_) => false,
            };
            let patience = match self.policy.when_missing {
                WhenMissing::Wait => self.policy.deadline,
                // Not by how many are in sync: who died may be out already, and Envoy yet to hear of it.
                _ if self.app.cluster.may_take_over(shard) => TAKE_OVER.min(self.policy.deadline),
                _ => Duration::ZERO,
            };
            if !unavailable || started.elapsed() + PAUSE >= patience {
                if result.is_ok() {
                    self.app.cluster.latencies.note(shard, asked.elapsed());
                }
                return result;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn request(&self, ask: &Ask, timeout: Duration) -> NodeRequest {
        let path = ask.path_and_query.clone();
        let request = self.to(ask.shard, ask.method.clone(), path, timeout);
        match &ask.body {
            Some(body) => request.json(body.clone()),
            None => request,
        }
    }

    /// A request for a shard, or for the replica of it that the client wishes.
    fn to(&self, shard: ShardId, method: Method, path: String, timeout: Duration) -> NodeRequest {
        let target = self.app.cluster.target(shard, &self.from);
        let late = match target {
            Target::Shard(_) => self.app.cluster.hedge_after(shard).unwrap_or(timeout),
            // There is no other to ask: who is late is waited for.
            Target::Node(_) => timeout,
        };
        let mut request =
            NodeRequest::new(target, method, path, &self.along, timeout).hedged_after(late);
        for (name, value) in &self.headers {
            request = request.header(name.clone(), value.clone());
        }
        request
    }

    /// Passes the client's request to one shard as it came; its answer is the client's.
    ///
    /// # Errors
    /// The shard gave no answer.
    pub(super) async fn pass_on(
        &self,
        call: &Call,
        body: Bytes,
        shard: ShardId,
    ) -> Result<Answer, SearchError> {
        let answer = self
            .patiently(shard, |left| {
                let path = call.path_and_query.clone();
                let mut request = self.to(shard, call.method.clone(), path, left);
                let content_type = http::header::CONTENT_TYPE;
                if let Some(value) = call.headers.get(&content_type) {
                    request = request.header(content_type, value.clone());
                }
                match body.is_empty() {
                    true => request,
                    false => request.body(crate::call::full(body.clone())),
                }
            })
            .await?;
        let mut answer = answer.pass_on();
        if self.explain {
            let value = HeaderValue::from_str(&format!("shards={shard}; whole=true"));
            answer.headers.extend(
                value
                    .ok()
                    .map(|value| (HeaderName::from_static(headers::EXPLAIN), value)),
            );
        }
        Ok(answer)
    }
}

impl Ask {
    /// The same request for another shard.
    pub(super) fn for_shard(&self, shard: ShardId) -> Self {
        Self {
            shard,
            ..self.clone()
        }
    }

    /// A request with `carrier`'s parameters, for `path` (without a query).
    pub(super) fn new(shard: ShardId, path: &str, carrier: &Carrier) -> Self {
        match carrier.to_request() {
            ShardRequest::Body(body) => Self {
                shard,
                method: Method::POST,
                path_and_query: path.to_owned(),
                body: Some(body.into()),
            },
            ShardRequest::Query(query) => Self {
                shard,
                method: Method::GET,
                path_and_query: format!("{path}?{query}"),
                body: None,
            },
        }
    }
}
