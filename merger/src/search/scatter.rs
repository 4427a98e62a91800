//! Sends one request to each shard, all at the same time, and collects the answers.
//!
//! A shard knows only its own fields. Filters are [`reworded`] so that this makes no difference. If a shard refuses a
//! request because it [lacks](lacking) a field, it is asked again without that field. What it wouldn't show for the same
//! reason is [requested in addition](nested).

mod formatted;
mod lacking;
mod nested;
mod reworded;
mod strangers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use weft_routing::headers;
use weft_routing::placement::ShardId;

use super::SearchError;
use super::answer::ShardAnswer;
use super::performance::Times;
use super::phase::Phase;
use super::policy::{Policy, WhenMissing};
use super::request::{Carrier, ShardRequest};
use crate::answer::Answer;
use crate::call::{Call, ForwardedHeaders};
use crate::cluster::{Flow, ReadFrom};
use crate::filters::{TenantRules, rules_of};
use crate::search::Context;
use crate::spans::Span;
use crate::tasks::read_from;
use crate::upstream::{NodeAnswer, NodeRequest, Target, UpstreamError};

/// The client's rights and wishes for a read, and how it is carried out.
pub(super) struct Reader<'a> {
    pub(super) ctx: &'a Context,
    pub(super) forwarded: ForwardedHeaders,
    pub(super) policy: Policy,
    /// True if the client wants to know how the answer came about.
    pub(super) explain: bool,
    /// On how many shards the index in the path lies.
    pub(super) index_shards: usize,
    /// Set if a shard gave no answer, or an error of its own, in any round.
    pub(super) trouble: Arc<AtomicBool>,
    /// Which replicas may answer.
    from: ReadFrom,
    /// Headers that a node must see in addition to [`ForwardedHeaders`].
    headers: HeaderMap,
    /// When the read began.
    started: Instant,
    /// Nanoseconds spent waiting for shards.
    waited: Arc<AtomicU64>,
    /// See [`Reader::rules`].
    rules: OnceLock<Option<TenantRules>>,
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
    /// The position of the request that this answers.
    pub(super) at: usize,
    pub(super) shard: ShardId,
    pub(super) body: Bytes,
    pub(super) node: Option<String>,
    pub(super) took: Duration,
}

impl Reply {
    /// The answer to a search.
    ///
    /// # Errors
    /// It isn't one.
    pub(super) fn read(&self) -> Result<ShardAnswer, SearchError> {
        let unreadable = |error| SearchError::Unreadable {
            shard: self.shard,
            error,
        };
        ShardAnswer::read(self.body.clone()).map_err(unreadable)
    }
}

/// The answers of all shards that gave one.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// In the order of the requests.
    pub(super) replies: Vec<Reply>,
    /// Shards that gave no answer, under [`WhenMissing::Partial`].
    pub(super) missing: Vec<ShardId>,
    /// Shards that may count documents of others. Only for a client that wants to know how the answer came about.
    pub(super) unsettled: Vec<ShardId>,
}

/// The outcome of a scatter.
pub(super) enum Outcome {
    /// Answers to merge.
    Answers(Gathered),
    /// A node's own error, which is the client's answer.
    Refused(Answer, ShardId),
}

/// Headers that a node evaluates in a read.
const FOR_NODES: [&str; 1] = ["meili-include-metadata"];
/// How long to wait before a shard is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a shard with several replicas may take until Envoy knows a ready replica.
const TAKE_OVER: Duration = Duration::from_secs(1);

impl<'a> Reader<'a> {
    /// Makes a reader with the client's wishes, and waits for the task whose effects the client wants to see.
    ///
    /// # Errors
    /// The client's wish can't be read or fulfilled.
    pub(super) async fn new(ctx: &'a Context, call: &Call) -> Result<Self, SearchError> {
        let default = ctx.when_missing;
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
        let from = match &ctx.tasks {
            Some(tasks) => read_from(tasks, &call.headers, policy.deadline).await?,
            // Reads of certain replicas were passed on to the leader.
            None => ReadFrom::Any,
        };
        Ok(Self {
            ctx,
            from,
            forwarded: call.forwarded.clone(),
            policy,
            explain: call
                .header(headers::EXPLAIN)
                .is_some_and(|value| value.eq_ignore_ascii_case("true")),
            index_shards: 0,
            trouble: Arc::default(),
            headers: for_nodes,
            started: Instant::now(),
            waited: Arc::default(),
            rules: OnceLock::new(),
        })
    }

    /// The replicas that answer.
    pub(super) fn from(&self) -> &ReadFrom {
        &self.from
    }

    /// Reads from primaries, unless the client wishes otherwise. Replicas hold the same documents, but after a resync in
    /// another order, and pages of a list must continue where the last one ended.
    pub(super) fn read_one_replica(&mut self) {
        if self.from == ReadFrom::Any {
            self.from = ReadFrom::Primary;
        }
    }

    /// The same reader with the merger's own key.
    pub(super) fn on_own_authority(&self) -> Self {
        let forwarded = self.forwarded.with_key(self.ctx.master_key.as_deref());
        Self {
            ctx: self.ctx,
            forwarded,
            policy: self.policy,
            from: self.from.clone(),
            explain: false,
            index_shards: self.index_shards,
            trouble: Arc::clone(&self.trouble),
            headers: HeaderMap::new(),
            started: self.started,
            waited: Arc::clone(&self.waited),
            rules: OnceLock::new(),
        }
    }

    /// The same reader, including its headers, with the merger's own key.
    fn with_own_key(&self) -> Self {
        Self {
            headers: self.headers.clone(),
            explain: self.explain,
            ..self.on_own_authority()
        }
    }

    /// A part of this read, for its trace and the metrics.
    pub(super) fn phase(&self, name: &'static str) -> Phase {
        Phase::begin(self.ctx, self.forwarded.span(), name)
    }

    /// The same reader, whose requests belong beneath this span; `None` if the read isn't traced.
    fn beneath(&self, span: &Span) -> Option<Self> {
        span.is_traced().then(|| Self {
            headers: self.headers.clone(),
            explain: self.explain,
            forwarded: self.forwarded.clone().beneath(span),
            ..self.on_own_authority()
        })
    }

    /// Sends all requests and waits for all answers.
    ///
    /// # Errors
    /// A shard gave no answer, and the policy doesn't allow a partial one.
    pub(super) async fn gather(&self, asks: Vec<Ask>) -> Result<Outcome, SearchError> {
        reworded::gather(self, asks).await
    }

    /// Like [`Reader::gather`], but with filters as they are.
    async fn gather_as_asked(&self, asks: Vec<Ask>) -> Result<Outcome, SearchError> {
        let began = Instant::now();
        let (asks, surplus) = nested::around(self, asks).await;
        let scattering = self.phase("scatter");
        scattering.set("weft.shards", || {
            i64::try_from(asks.len()).unwrap_or(i64::MAX).into()
        });
        let beneath = self.beneath(&scattering);
        let reader = beneath.as_ref().unwrap_or(self);
        #[allow(clippy::cast_precision_loss, reason = "a number of shards")]
        self.ctx.metrics.fan_out.observe(asks.len() as f64);
        let results = join_all(asks.iter().map(|ask| reader.answer(ask))).await;
        let results = lacking::without_what_is_lacking(reader, &asks, results).await;
        drop(scattering);
        let _gathering = self.phase("gather");
        let waited = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(waited, Ordering::Relaxed);
        let mut gathered = Gathered::default();
        if self.explain {
            let counts_twice = |ask: &&Ask| strangers::may_hold(self, ask);
            let shards = asks.iter().filter(counts_twice).map(|ask| ask.shard);
            gathered.unsettled.extend(shards);
        }
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

    /// How long the read took so far. Rounds at the same time count twice, but waiting never counts for more than the whole time.
    pub(super) fn times(&self) -> Times {
        let all = self.started.elapsed();
        let shards = Duration::from_nanos(self.waited.load(Ordering::Relaxed)).min(all);
        Times {
            shards,
            merge: all - shards,
        }
    }

    /// The filters of the tenant token that the shards get, if any of them compares by `!=`. They are the same in all rounds,
    /// so they are read once.
    fn rules(&self) -> Option<&TenantRules> {
        let read = || rules_of(self.forwarded.headers()).filter(TenantRules::compare);
        self.rules.get_or_init(read).as_ref()
    }

    fn partial(&self) -> bool {
        self.policy.when_missing == WhenMissing::Partial
    }

    /// A shard's answer, without documents that another shard owns.
    async fn answer(&self, ask: &Ask) -> (Result<NodeAnswer, UpstreamError>, Duration) {
        match strangers::answer(self, ask).await {
            Some(answer) => answer,
            None => self.ask_once(ask).await,
        }
    }

    async fn ask_once(&self, ask: &Ask) -> (Result<NodeAnswer, UpstreamError>, Duration) {
        let started = Instant::now();
        let result = self
            .patiently(ask.shard, |left| self.request(ask, left))
            .await;
        (result, started.elapsed())
    }

    /// One shard's answer. The shard is asked again while none of its replicas is ready: under [`WhenMissing::Wait`] until
    /// the deadline, and otherwise for the short time until another replica takes over.
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
            let result = self.ctx.upstream.send(request).await;
            let unavailable = match &result {
                Ok(answer) => answer.status == StatusCode::SERVICE_UNAVAILABLE,
                Err(UpstreamError::Unreachable { .. } | UpstreamError::NoEgress { .. }) => true,
                Err(_) => false,
            };
            let patience = match self.policy.when_missing {
                WhenMissing::Wait => self.policy.deadline,
                // The number of replicas in sync says nothing here: a dead replica may already be removed while Envoy
                // doesn't know it yet.
                _ if self.ctx.cluster.may_take_over(shard) => TAKE_OVER.min(self.policy.deadline),
                _ => Duration::ZERO,
            };
            if !unavailable || started.elapsed() + PAUSE >= patience {
                let well = result
                    .as_ref()
                    .is_ok_and(|answer| !answer.status.is_server_error());
                if !well {
                    self.trouble.store(true, Ordering::Relaxed);
                }
                let traffic = &self.ctx.cluster.traffic;
                let took = started.elapsed();
                traffic.note(shard, Flow::Reads, took, well);
                self.ctx.note_shard(shard, Flow::Reads, took);
                if result.is_ok() {
                    self.ctx.cluster.latencies.note(shard, asked.elapsed());
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
        let target = self.ctx.cluster.target(shard, &self.from);
        let late = match target {
            Target::Shard(_) => self.ctx.cluster.hedge_after(shard).unwrap_or(timeout),
            // No other replica can answer, so a late one is waited for.
            Target::Node(_) => timeout,
        };
        let mut request =
            NodeRequest::new(target, method, path, &self.forwarded, timeout).hedged_after(late);
        for (name, value) in &self.headers {
            request = request.header(name.clone(), value.clone());
        }
        request
    }

    /// Passes the client's request to one shard as it came. The shard's answer goes to the client.
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
