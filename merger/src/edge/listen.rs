//! Accepts connections, and turns HTTP requests into calls and answers into HTTP responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use weft_routing::headers::DEGRADED;

use super::compress::{self, Coding};
use super::cors;
use super::dispatch::dispatch;
use super::errors::ApiError;
use super::follower::{self, Passed};
use super::status_page;
use super::told;
use crate::answer::Answer;
use crate::call::{AnyBody, BodyError, Paced, full};
use crate::clock::now_utc;
use crate::edge::{Reading, Role};
use crate::sockets::{Listeners, Peer, Stream};
use crate::spans::{Ending, Span, sampled_trace};
use crate::tls::Certificates;

/// How long a connection may wait for the complete head of a request. Envoy sends heads whole, so this is how long Envoy may keep
/// a connection idle. It is longer than Envoy does (60 s), so that Envoy never writes to a connection that was just closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a request waits for the merger's next role.
const ROLES_WITHIN: Duration = Duration::from_secs(2);
/// How long running requests may go on after the stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long requests are still taken after the stop, the last one on each connection. Envoy can't tell whether a write was carried out
/// on a connection that was closed under it, so no connection may be closed on which it could just be sending one.
const LAST_REQUESTS: Duration = Duration::from_millis(500);
/// How much of a refused body is still read, and for how long.
const READ_ON_BYTES: usize = 256 << 20;
const READ_ON: Duration = Duration::from_secs(5);

/// How long a connection may take for the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Where Envoys knock.
pub struct Door {
    listeners: Listeners,
    certificates: Option<Arc<Certificates>>,
}

impl Door {
    /// At these listeners; with certificates, over TCP for those alone who have one, too.
    pub fn new(listeners: Listeners, certificates: Option<Arc<Certificates>>) -> Self {
        Self {
            listeners,
            certificates,
        }
    }
}

/// Serves until `stop` resolves, and then lets running requests finish.
pub async fn serve(roles: watch::Receiver<Role>, door: Door, stop: impl Future<Output = ()>) {
    let Door {
        listeners,
        certificates,
    } = door;
    let graceful = GracefulShutdown::new();
    let closing = Arc::new(AtomicBool::new(false));
    let last_requests = async {
        stop.await;
        closing.store(true, Ordering::Relaxed);
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    let mut last_requests = std::pin::pin!(last_requests);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut last_requests => break,
            accepted = listeners.accept() => accepted,
        };
        let (roles, closing) = (roles.clone(), Arc::clone(&closing));
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let (roles, closing) = (roles.clone(), Arc::clone(&closing));
            async move {
                let mut response = respond(&roles, request).await;
                if closing.load(Ordering::Relaxed) {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT);
        // A socket's permissions say who may connect to it.
        let is_remote = matches!(peer, Peer::At(_));
        let Some(certificates) = certificates.clone().filter(|_| is_remote) else {
            let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            tokio::spawn(until_it_ends(connection));
            continue;
        };
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            if let Some(stream) = handshake(stream, &certificates).await {
                let connection = http.serve_connection(TokioIo::new(stream), service);
                until_it_ends(watcher.watch(connection)).await;
            }
        });
    }
    drop(listeners);
    let drained = async {
        graceful.shutdown().await;
        let role = roles.borrow().clone();
        let begun = &role.reading().begun;
        begun.close();
        begun.wait().await;
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("some requests did not finish before the stop");
    }
}

async fn until_it_ends(connection: impl Future<Output = Result<(), hyper::Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// The connection, encrypted; `None` if the other side has no certificate that is trusted, or speaks no TLS.
async fn handshake(stream: Stream, certificates: &Certificates) -> Option<TlsStream<Stream>> {
    let acceptor = TlsAcceptor::from(certificates.server()?);
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection was refused");
            None
        }
        Err(_) => None,
    }
}

async fn respond(roles: &watch::Receiver<Role>, request: Request<Incoming>) -> Response<AnyBody> {
    let mut request = request.map(|body| body.map_err(Into::into).boxed());
    loop {
        // A request is answered in the role that the merger has when it comes, or begins to have while it waits for a leader.
        let role = roles.borrow().clone();
        request = match &role {
            Role::Follows(follower) if follower.passes_on(&request) => {
                match follower.pass_on(request, roles).await {
                    Passed::Answer(answer) => return answer,
                    Passed::LeadsItself(request) => request,
                }
            }
            // Soon it follows, and passes on what it can't do any more.
            Role::Leads(ctx) if !ctx.upstream.may_send() && is_for_roles(&request) => {
                if !follows_soon(roles).await {
                    return lease_is_over();
                }
                request
            }
            Role::Leads(ctx) if ctx.peers.roll.is_some() && follower::may_be_repeated(&request) => {
                let (again, body) = request.into_parts();
                let kept = match follower::keep(body, ctx.pace).await {
                    Ok(body) => body,
                    Err(error) => return refusal(error.into()),
                };
                let request = Request::from_parts(again.clone(), full(kept.clone()));
                let answer = answer_here(&role, request).await;
                // What a leader says whose lease has ended meanwhile may be old.
                if ctx.upstream.may_send() {
                    return answer;
                }
                if !follows_soon(roles).await {
                    return lease_is_over();
                }
                Request::from_parts(again, full(kept))
            }
            Role::Follows(follower) if follower.may_ask_again(&request) => {
                let (parts, body) = request.into_parts();
                let again = match follower::keep(body, follower.reading.pace).await {
                    Ok(body) => body,
                    Err(error) => return refusal(error.into()),
                };
                let request = Request::from_parts(parts.clone(), full(again.clone()));
                let answer = answer_here(&role, request).await;
                // Its registration was lost in the middle: the leader can answer.
                if follower.may_answer() || answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                    return answer;
                }
                Request::from_parts(parts, full(again))
            }
            role => return answer_here(role, request).await,
        };
    }
}

fn lease_is_over() -> Response<AnyBody> {
    refusal(ApiError::stands_by("This merger's lease in etcd is over"))
}

fn refusal(error: ApiError) -> Response<AnyBody> {
    head_and_body(error.into_answer()).map(full)
}

/// Whether the merger, whose lease has ended, begins to follow within a while.
async fn follows_soon(roles: &watch::Receiver<Role>) -> bool {
    let mut roles = roles.clone();
    let follows = roles.wait_for(|role| matches!(role, Role::Follows(_)));
    tokio::time::timeout(ROLES_WITHIN, follows).await.is_ok()
}

/// Whether a request must not be answered by a leader whose lease is over.
pub(super) fn is_for_roles(request: &Request<AnyBody>) -> bool {
    let path = request.uri().path();
    !path.starts_with("/_weft") && path != "/health" && path != status_page::PATH
}

async fn answer_here(role: &Role, request: Request<AnyBody>) -> Response<AnyBody> {
    let ctx = role.reading();
    let begun = Instant::now();
    let (mut parts, body) = request.into_parts();
    let span = span_of(ctx, &mut parts);
    let asked = told::begin(&mut parts);
    let unread = Unread(Arc::new(Mutex::new(body)));
    let body: AnyBody = unread.clone().boxed();
    let body = Paced::new(body, ctx.pace).boxed();
    let coding = compress::negotiate(&parts.headers);
    let (operation, answer) = match (coding, cors::preflight(&ctx.cors_origins, &parts)) {
        (Err(refused), _) => ("unacceptable", refused.into_answer()),
        (Ok(_), Some(answer)) => ("preflight", answer),
        (Ok(_), None) => work(role, &parts, body).await,
    };
    let mut answer = compress::compress(answer, coding.unwrap_or(Coding::Identity)).await;
    if answer.status.is_client_error()
        && answer.status != StatusCode::REQUEST_TIMEOUT
        && !unread.is_end_stream()
        // If many bodies are being read already, the rest of this one isn't read.
        && let Ok(_reading) = ctx.bounds.read()
    {
        unread.read_on().await;
    }
    told::tell(ctx, &asked, operation, &mut answer);
    let took = begun.elapsed();
    describe(&span, operation, &parts, &answer);
    if let Some(trace) = span.trace_id().or_else(|| sampled_trace(&parts.headers)) {
        #[allow(clippy::cast_precision_loss, reason = "shown to milliseconds")]
        let at = now_utc().unix_timestamp_nanos() as f64 / 1e9;
        let exemplars = &ctx.metrics.exemplars;
        exemplars.note(operation, took.as_secs_f64(), trace, at);
    }
    drop(span);
    if answer.headers.iter().any(|(name, _)| name == DEGRADED) {
        let degraded = ctx.metrics.degraded.with_label_values(&[operation]);
        degraded.inc();
    }
    ctx.metrics
        .requests
        .with_label_values(&[operation, answer.status.as_str()])
        .inc();
    ctx.metrics
        .request_seconds
        .with_label_values(&[operation])
        .observe(took.as_secs_f64());
    let request_id = parts
        .headers
        .get("x-request-id")
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    let (status, ms) = (answer.status.as_u16(), took.as_secs_f64() * 1e3);
    // A readiness check whose answer is "no" has not failed.
    if status >= 500 && operation != "internal" {
        tracing::warn!(
            operation,
            status,
            ms,
            request_id,
            path = parts.uri.path(),
            "request failed"
        );
    } else {
        tracing::debug!(
            operation,
            status,
            ms,
            request_id,
            path = parts.uri.path(),
            "request"
        );
    }
    head_and_body(answer).map(full)
}

/// The span of a request, beneath which all of its work belongs. What Envoy and filters ask of the merger has none.
fn span_of(ctx: &Reading, parts: &mut Parts) -> Ending {
    if parts.uri.path().starts_with("/_weft") {
        return Ending::default();
    }
    let span = ctx.spans.server(&parts.method, &parts.headers);
    if span.is_traced() {
        parts.extensions.insert(Span::clone(&span));
    }
    span
}

/// Says what a request was, by OpenTelemetry's conventions, and how it was answered.
fn describe(span: &Span, operation: &'static str, parts: &Parts, answer: &Answer) {
    if !span.is_traced() {
        return;
    }
    span.rename(|| format!("{} {operation}", parts.method));
    span.set("weft.operation", || operation.into());
    span.set("url.path", || parts.uri.path().to_owned().into());
    span.set("url.scheme", || "http".into());
    let text = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    if let Some(host) = text("host") {
        span.set("server.address", || host.to_owned().into());
    }
    if let Some(client) = text("user-agent") {
        span.set("user_agent.original", || client.to_owned().into());
    }
    if let Some((_, degraded)) = answer.headers.iter().find(|(name, _)| name == DEGRADED) {
        let text = degraded.to_str().unwrap_or_default();
        span.set("weft.degraded", || text.to_owned().into());
    }
    span.answered(answer.status, answer.status.is_server_error());
}

/// Lets the API answer a request, and adds the cross-origin headers to the answer.
async fn work(role: &Role, parts: &Parts, body: AnyBody) -> (&'static str, Answer) {
    let (operation, mut answer) = match role {
        Role::Leads(ctx) => dispatch(ctx, parts, body).await,
        Role::Follows(follower) => follower.answer(parts, body).await,
    };
    if operation != "internal" {
        cors::mark(&role.reading().cors_origins, &parts.headers, &mut answer);
    }
    (operation, answer)
}

/// A client's body that can be read further after the handler has stopped reading it.
///
/// A client that is still sending when the answer comes may never see it, because its connection is reset. So the rest of a
/// refused body is read and thrown away, up to a limit.
#[derive(Clone)]
struct Unread(Arc<Mutex<AnyBody>>);

impl Body for Unread {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.size_hint()
    }
}

impl Unread {
    async fn read_on(mut self) {
        let reading = async {
            let mut bytes = 0;
            while bytes < READ_ON_BYTES
                && let Some(Ok(frame)) = self.frame().await
            {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // A client that is slower than this may lose the answer.
        let _ = tokio::time::timeout(READ_ON, reading).await;
    }
}

/// The answer as a response whose body is in memory.
pub(super) fn head_and_body(answer: Answer) -> Response<Bytes> {
    let length = answer.body.len();
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    // Appended one by one, because a name may occur more than once.
    for (name, value) in answer.headers {
        headers.append(name, value);
    }
    if let Some(content_type) = answer.content_type {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if length > 0 {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}
