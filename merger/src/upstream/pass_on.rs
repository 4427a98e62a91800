//! The way to the merger that leads, for one that stands by: through Envoy's egress listener, like a request to a node, but
//! streamed in both directions and unchanged.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{
    CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioTimer;
use weft_routing::headers;

use super::home::{Connector, Home};
use super::{Target, UpstreamError, chain};
use crate::call::AnyBody;
use crate::tls::Way;

/// Marks a request that a merger has passed on, so that it is passed on once only. Its value means nothing.
pub const PASSED_ON: &str = "x-weft-passed-on";

/// What a header says about one connection only (RFC 9110, 7.6.1), besides what `Connection` names.
const OF_ONE_CONNECTION: [HeaderName; 7] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Passes requests on to another merger.
#[derive(Clone)]
pub struct PassOn {
    client: Client<Connector, AnyBody>,
    way: Way,
}

impl PassOn {
    /// Through Envoy's egress listener.
    pub fn through(way: Way) -> Self {
        let home = Home::here();
        let connector = home.connector(&way, Duration::from_secs(1));
        let client = Client::builder(home)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { client, way }
    }

    /// Passes a request on, and returns the answer with its body on its way.
    ///
    /// # Errors
    /// The other merger gave no answer.
    pub async fn pass_on(
        &self,
        to: SocketAddr,
        mut request: Request<AnyBody>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let target = Target::Node(to);
        let malformed = |detail: String| UpstreamError::Malformed {
            target: Target::Node(to),
            detail,
        };
        let path = request.uri().path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        let uri = format!("{}{path}", self.way.url()).parse::<Uri>();
        *request.uri_mut() = uri.map_err(|error| malformed(error.to_string()))?;
        let names = request.headers_mut();
        forget_connection(names);
        names.insert(PASSED_ON, HeaderValue::from_static("1"));
        names.insert(
            headers::CLUSTER,
            HeaderValue::from_static(headers::NODE_CLUSTER),
        );
        let address = HeaderValue::from_str(&to.to_string());
        let address = address.map_err(|error| malformed(error.to_string()))?;
        names.insert(headers::ORIGINAL_DST_HOST, address);
        // No limit here: the other merger knows how long each kind of request may take.
        names.insert(
            "x-envoy-upstream-rq-timeout-ms",
            HeaderValue::from_static("0"),
        );
        let answer = self.client.request(request).await;
        let mut answer = answer.map_err(|error| match error.is_connect() {
            true => UpstreamError::NoEgress {
                target: target.clone(),
                detail: chain(&error),
            },
            false => UpstreamError::Unreachable {
                target: target.clone(),
                detail: chain(&error),
            },
        })?;
        // Envoy's own answer, not the other merger's.
        if let Some(reason) = answer.headers().get(headers::ENVOY_REPLY) {
            let detail = String::from_utf8_lossy(reason.as_bytes()).into_owned();
            return Err(UpstreamError::Unreachable { target, detail });
        }
        forget_connection(answer.headers_mut());
        Ok(answer)
    }
}

fn forget_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_ONE_CONNECTION.iter().chain(&named) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("authorization", "Bearer key"),
            ("x-weft-read", "primary"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        forget_connection(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-weft-read"]);
    }
}
