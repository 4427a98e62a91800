//! What a merger answers that doesn't lead.
//!
//! Clients' requests are passed on to the leader, through this merger's own Envoy. The paths below `/_weft` are not: what they say
//! is about *this* Envoy, and the leader must not take its filters and readiness checks for another's. So filters get no table and
//! send everything here, and no node is ready here: nothing is read around the leader.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::errors::ApiError;
use super::listen::{DRAIN, HEADER_TIMEOUT, accept, head_and_body};
use crate::answer::Answer;
use crate::call::{BodyError, full};
use crate::leadership::Candidate;
use crate::upstream::{PASSED_ON, PassOn};

/// When a client may try again, in seconds: by then there is another leader, as a rule.
const RETRY_AFTER_S: u16 = 1;

type AnyResponse = Response<BoxBody<Bytes, BodyError>>;

/// The leader as this merger sees it, and the way to it.
pub struct Standby {
    /// Who leads.
    pub leader: watch::Receiver<Option<Candidate>>,
    /// This merger's own id.
    pub me: String,
    /// The way to other mergers.
    pub pass_on: PassOn,
}

/// Serves until `stop` resolves, and lets running requests finish.
pub async fn stand_by(standby: Standby, listener: &TcpListener, stop: impl Future<Output = ()>) {
    let standby = Arc::new(standby);
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, _) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(listener) => accepted,
        };
        let standby = Arc::clone(&standby);
        let service = service_fn(move |request: Request<Incoming>| {
            let standby = Arc::clone(&standby);
            async move { Ok::<_, Infallible>(standby.respond(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    // Not waited for: what is under way is between client and leader, and the connections end after it.
    tokio::spawn(tokio::time::timeout(DRAIN, graceful.shutdown()));
}

impl Standby {
    async fn respond(&self, request: Request<Incoming>) -> AnyResponse {
        match request.uri().path() {
            // A clear no: what this Envoy knew of nodes may be from the time when this merger led.
            "/_weft/ready" => whole(Answer::json(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({"ready": false, "reason": "this merger stands by"}),
            )),
            path if path.starts_with("/_weft") => refusal("This merger stands by"),
            // Whether this process is well, which is what a supervisor wants to know.
            "/health" => whole(Answer::json(
                StatusCode::OK,
                &json!({"status": "available"}),
            )),
            _ => self.pass_on(request).await,
        }
    }

    async fn pass_on(&self, request: Request<Incoming>) -> AnyResponse {
        if request.headers().contains_key(PASSED_ON) {
            return refusal("The merger that led has just stopped leading");
        }
        let leader = self.leader.borrow().clone();
        let leader = leader.filter(|leader| leader.id != self.me);
        let Some(leader) = leader else {
            return refusal("No merger leads at the moment");
        };
        let request = request.map(|body| body.map_err(Into::into).boxed());
        match self.pass_on.pass_on(leader.address, request).await {
            Ok(answer) => answer.map(|body| body.map_err(Into::into).boxed()),
            Err(error) => {
                tracing::warn!(%error, "a request was not passed on to the leader");
                refusal("The merger that leads can't be reached")
            }
        }
    }
}

/// 503, after which the client may try again.
fn refusal(why: &str) -> AnyResponse {
    let answer = ApiError::stands_by(why).into_answer();
    let retry_after = HeaderValue::from(RETRY_AFTER_S);
    whole(answer.with_header(RETRY_AFTER, retry_after))
}

fn whole(answer: Answer) -> AnyResponse {
    head_and_body(answer).map(full)
}

#[cfg(test)]
mod tests;
