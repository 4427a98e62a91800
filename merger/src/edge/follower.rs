//! What a merger answers that follows another one.
//!
//! Reads are answered here, by the state that this merger has applied, through its own Envoy. All else goes on to the leader, through
//! this Envoy's egress listener: the body streams through. What filters and readiness checks ask is about *this* Envoy, and is never
//! passed on.
//!
//! The leader also gets reads that only it can answer: of certain replicas, of what a task has written, and of an index that this
//! merger doesn't know (it may be a moment old). If this merger can't hear etcd any more, it calls no node ready, and the last known
//! leader gets its reads as well, unless the operator prefers old answers to none.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, RETRY_AFTER, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use weft_routing::headers;
use weft_routing::operation::{ClassifyError, Operation, classify};

use super::dispatch::{call, health, is_read, read};
use super::errors::ApiError;
use super::listen::{head_and_body, is_for_roles};
use super::mergers::{Peers, is_about_mergers, list};
use super::{Reading, Role, internal, page, status_page};
use crate::answer::Answer;
use crate::call::{AnyBody, Pace, Paced, ReadError, empty, full, read_whole};
use crate::fence::Fence;
use crate::leadership::{Candidate, OnLostStore};
use crate::upstream::{PASSED_ON, PassOn, UpstreamError};

/// How long a request waits for a leader that can take it.
const LEADER_WITHIN: Duration = Duration::from_secs(8);

/// The pause before a request is passed on again that has not arrived.
const AGAIN: Duration = Duration::from_millis(100);

/// When a client may try again, in seconds: by then there is another leader, as a rule.
const RETRY_AFTER_S: u16 = 1;

/// Bodies up to this size are kept, so that a request that has not arrived can be passed on again.
const KEPT_BYTES: u64 = 64 << 10;

/// Marks the refusal of a request that was passed on to a merger which doesn't lead: nothing was done.
const NOT_LEADING: &str = "x-weft-not-leading";

/// A merger that follows.
pub struct Follower {
    /// Everything that reads.
    pub reading: Arc<Reading>,
    /// Until when this merger may answer by the state that it knows.
    pub knows: Fence,
    /// What it does after that.
    pub on_lost_store: OnLostStore,
    /// Who leads.
    pub leader: watch::Receiver<Option<Candidate>>,
    /// The way to the other mergers.
    pub pass_on: PassOn,
    /// The mergers that share the state.
    pub peers: Arc<Peers>,
}

impl Follower {
    /// Whether the leader must answer this request.
    pub(crate) fn passes_on<B>(&self, request: &Request<B>) -> bool {
        let path = request.uri().path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        let Ok(classified) = classify(request.method().as_str(), path) else {
            return false;
        };
        match classified.operation {
            Operation::Health => false,
            Operation::Internal => classified.item.as_deref() == Some("register"),
            Operation::Cluster => !matches!(
                classified.item.as_deref(),
                Some("mergers" | status_page::PAGE | status_page::TRAFFIC)
            ),
            Operation::Metrics => !self.may_answer(),
            operation if is_read(operation) => {
                let headers = request.headers();
                // A read that was passed on to a leader which has just stopped leading is answered here. If this merger may not,
                // the other one is told so, and asks elsewhere.
                let answered_here = headers.contains_key(PASSED_ON);
                !self.may_answer()
                    || !answered_here
                        && (wants_certain_replicas(headers)
                            || classified.index.as_deref().is_some_and(|uid| {
                                self.reading.cluster.placement(uid).is_none()
                                    && self.other_leader().is_some()
                            }))
            }
            _ => true,
        }
    }

    /// Whether a request that fails here because the registration is lost meanwhile can go to another merger: its body can be kept
    /// until it is answered, and no merger has passed it on already.
    pub(super) fn may_ask_again(&self, request: &Request<AnyBody>) -> bool {
        is_small(request.headers(), request.body())
            && is_for_roles(request)
            && !request.headers().contains_key(PASSED_ON)
    }

    /// Whether this merger may answer by what it knows.
    pub(super) fn may_answer(&self) -> bool {
        self.on_lost_store == OnLostStore::ServeReads || self.knows.is_open()
    }

    fn other_leader(&self) -> Option<Candidate> {
        let leader = self.leader.borrow().clone();
        leader.filter(|leader| leader.id != self.peers.me)
    }

    /// Answers a request that isn't [passed on](Self::passes_on). Returns the operation's name for metrics, and the answer.
    pub(crate) async fn answer(&self, parts: &Parts, body: AnyBody) -> (&'static str, Answer) {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let classified = match classify(parts.method.as_str(), path) {
            Ok(classified) => classified,
            Err(ClassifyError::UnknownPath) => return page::show(&self.reading, parts).await,
            Err(ClassifyError::MethodNotAllowed) => {
                return ("unknown", Answer::empty(StatusCode::METHOD_NOT_ALLOWED));
            }
        };
        let call = call(parts, classified, body);
        let operation = call.operation.name();
        let answer = match call.operation {
            Operation::Health => Ok(health()),
            Operation::Internal => Ok(internal::answer(&self.reading, &call)),
            Operation::Metrics => internal::metrics_for_client(&self.reading, &call).await,
            _ if is_about_mergers(&call) => list(&self.reading, &self.peers, &call).await,
            _ if status_page::is_wanted(&call) => Ok(status_page::show(&call)),
            Operation::Cluster => status_page::of_follower(&self.reading, &self.peers, &call).await,
            _ => read(&self.reading, call).await,
        };
        (operation, answer.unwrap_or_else(ApiError::into_answer))
    }

    /// Passes a request on to the leader. Waits for one, and tries again while the request can't have arrived.
    pub(super) async fn pass_on(
        &self,
        request: Request<AnyBody>,
        roles: &watch::Receiver<Role>,
    ) -> Passed {
        let tells = tells_of_ends(&request);
        let (outcome, passed) = self.try_to_pass_on(request, roles).await;
        if tells {
            self.reading.remembered.heard.told();
        }
        let count = &self.reading.metrics.passed_on;
        count.with_label_values(&[outcome]).inc();
        passed
    }

    async fn try_to_pass_on(
        &self,
        request: Request<AnyBody>,
        roles: &watch::Receiver<Role>,
    ) -> (&'static str, Passed) {
        let until = Instant::now() + LEADER_WITHIN;
        if request.headers().contains_key(PASSED_ON) {
            let refusal = refusal("The merger that led has just stopped leading");
            let name = http::HeaderName::from_static(NOT_LEADING);
            let refusal = refusal.with_header(name, HeaderValue::from_static("1"));
            return ("refused", whole(refusal));
        }
        let (parts, body) = request.into_parts();
        let mut body = match is_small(&parts.headers, &body) {
            false => Body::Once(Some(body)),
            true => match keep(body, self.reading.pace).await {
                Ok(body) => Body::Kept(body),
                Err(error) => return ("cut-off", whole(ApiError::from(error).into_answer())),
            },
        };
        let mut why = "No merger leads at the moment";
        loop {
            if let Body::Kept(bytes) = &body
                && let Some(answer) = self.read_elsewhere(&parts, bytes).await
            {
                return ("answered", Passed::Answer(answer));
            }
            // Whoever reads looks again whether any merger answers by then.
            let reads = !self.may_answer() && is_read_of_any(&parts);
            let patience = match reads {
                true => until.min(Instant::now() + AGAIN),
                false => until,
            };
            let leader = match self.await_leader(patience, roles).await {
                Leader::Nobody if reads && Instant::now() < until => continue,
                Leader::Another(leader) => leader,
                Leader::Itself => {
                    let Some(body) = body.next() else { break };
                    let request = Request::from_parts(parts, body);
                    return ("led-itself", Passed::LeadsItself(request));
                }
                Leader::Nobody => break,
            };
            let Some(bytes) = body.next() else { break };
            let request = Request::from_parts(parts.clone(), bytes);
            let answer = tokio::select! {
                answer = self.pass_on.pass_on(leader.address, request) => answer,
                // Whatever the old leader may say now, it can't acknowledge anything any more.
                () = self.leads_no_more(&leader) => {
                    let why = "another merger has begun to lead meanwhile";
                    return ("unsure", whole(ApiError::leader_silent(why).into_answer()));
                }
            };
            match answer {
                Ok(answer) if !answer.headers().contains_key(NOT_LEADING) => {
                    let answer = answer.map(|body| body.map_err(Into::into).boxed());
                    return ("answered", Passed::Answer(answer));
                }
                Err(error) if error.may_have_arrived() => {
                    tracing::warn!(%error, "the leader gave no answer to a request");
                    return ("unsure", whole(unsure(&error)));
                }
                outcome => {
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "a request was not passed on to the leader");
                    }
                    why = "The merger that leads can't be reached";
                }
            }
            if Instant::now() + AGAIN > until {
                break;
            }
            sleep(AGAIN).await;
        }
        ("refused", whole(refusal(why)))
    }

    /// Another follower's answer to a read, while this merger may answer nothing and knows of no leader.
    async fn read_elsewhere(&self, parts: &Parts, body: &Bytes) -> Option<Response<AnyBody>> {
        if self.may_answer() || self.other_leader().is_some() || !is_read_of_any(parts) {
            return None;
        }
        let mergers = self.reading.cluster.mergers.registered().into_iter();
        let readers = mergers.filter(|merger| {
            merger.id != self.peers.me && merger.reaches_nodes && !merger.leads && !merger.leaving
        });
        for merger in readers {
            let request = Request::from_parts(parts.clone(), full(body.clone()));
            match self.pass_on.pass_on(merger.address, request).await {
                // It may answer no more than this one, or not know an index yet.
                Ok(answer)
                    if matches!(
                        answer.status(),
                        StatusCode::SERVICE_UNAVAILABLE | StatusCode::NOT_FOUND
                    ) => {}
                Ok(answer) => return Some(answer.map(|body| body.map_err(Into::into).boxed())),
                Err(error) => tracing::debug!(%error, "another merger doesn't answer a read"),
            }
        }
        None
    }

    /// Resolves when another merger leads than this one.
    async fn leads_no_more(&self, leader: &Candidate) {
        let mut now = self.leader.clone();
        let another = |now: &Option<Candidate>| now.as_ref().is_some_and(|now| now != leader);
        if now.wait_for(another).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Who leads, once somebody does.
    async fn await_leader(&self, until: Instant, roles: &watch::Receiver<Role>) -> Leader {
        let (mut leader, mut roles) = (self.leader.clone(), roles.clone());
        let another = |leader: &Option<Candidate>| {
            let other = leader.as_ref();
            other.is_some_and(|one| one.id != self.peers.me)
        };
        tokio::select! {
            Ok(leader) = leader.wait_for(another) => {
                leader.clone().map_or(Leader::Nobody, Leader::Another)
            }
            Ok(_) = roles.wait_for(|role| matches!(role, Role::Leads(_))) => Leader::Itself,
            () = sleep_until(until) => Leader::Nobody,
        }
    }
}

/// Whether a request that a leader answers can be answered once more, should its lease end meanwhile: it changes nothing, and its
/// body is small.
pub(super) fn may_be_repeated(request: &Request<AnyBody>) -> bool {
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str());
    let reads = || {
        let classified = classify(request.method().as_str(), path);
        classified.is_ok_and(|classified| is_read(classified.operation))
    };
    is_for_roles(request)
        && is_small(request.headers(), request.body())
        && (request.method() == Method::GET || reads())
}

/// Reads a small body, as slowly as clients may send one and no slower.
pub(super) async fn keep(body: AnyBody, pace: Pace) -> Result<Bytes, ReadError> {
    read_whole(Paced::new(body, pace).boxed(), KEPT_BYTES, pace.idle).await
}

/// What becomes of a request that the leader must answer.
pub(super) enum Passed {
    /// The leader has answered, or can't be asked.
    Answer(Response<AnyBody>),
    /// This merger leads by now, and nothing was done yet.
    LeadsItself(Request<AnyBody>),
}

enum Leader {
    Another(Candidate),
    /// This merger has begun to lead.
    Itself,
    Nobody,
}

/// Whether a read wants to see a task's effect, or certain replicas, which only the leader knows.
fn wants_certain_replicas(headers: &HeaderMap) -> bool {
    let is_any = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.trim().eq_ignore_ascii_case("any")
    };
    headers.contains_key(headers::AFTER_TASK)
        || headers
            .get(headers::READ)
            .is_some_and(|value| !is_any(value))
}

/// Whether the answer may tell a client that a task has ended.
fn tells_of_ends<B>(request: &Request<B>) -> bool {
    use Operation as Op;
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str());
    let classified = classify(request.method().as_str(), path);
    classified.is_ok_and(|classified| {
        matches!(
            classified.operation,
            Op::GetTask | Op::ListTasks | Op::GetBatch | Op::ListBatches
        )
    })
}

/// Whether any merger may answer this by what it knows.
fn is_read_of_any(parts: &Parts) -> bool {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let classified = classify(parts.method.as_str(), path);
    classified.is_ok_and(|classified| is_read(classified.operation))
        && !wants_certain_replicas(&parts.headers)
}

fn is_small(headers: &HeaderMap, body: &AnyBody) -> bool {
    use hyper::body::Body as _;
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    body.is_end_stream()
        || (!headers.contains_key(TRANSFER_ENCODING)
            && length.is_some_and(|bytes| bytes <= KEPT_BYTES))
}

/// The body of a request that is passed on.
enum Body {
    Kept(Bytes),
    /// It streams through, so it can be sent once.
    Once(Option<AnyBody>),
}

impl Body {
    fn next(&mut self) -> Option<AnyBody> {
        match self {
            Self::Kept(bytes) if bytes.is_empty() => Some(empty()),
            Self::Kept(bytes) => Some(full(bytes.clone())),
            Self::Once(body) => body.take(),
        }
    }
}

/// 503, after which the client may try again: nothing was done.
fn refusal(why: &str) -> Answer {
    let retry_after = HeaderValue::from(RETRY_AFTER_S);
    ApiError::stands_by(why)
        .into_answer()
        .with_header(RETRY_AFTER, retry_after)
}

/// 504: the leader may have done it.
fn unsure(error: &UpstreamError) -> Answer {
    ApiError::leader_silent(&error.to_string()).into_answer()
}

fn whole(answer: Answer) -> Passed {
    Passed::Answer(head_and_body(answer).map(full))
}
