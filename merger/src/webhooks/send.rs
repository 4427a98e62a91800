//! Makes one call of a webhook: HTTP or HTTPS, only to an allowed address, without redirects.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use url::{Host, Url};

use super::{Networks, Webhook};

/// How long a call may take, the same as on a node.
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call of a webhook failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("its URL can't be called")]
    Url,
    #[error("its address is private; see --webhook-allowed-ip-networks")]
    Private,
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    #[error("it gave no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("it answered {0}")]
    Refused(StatusCode),
}

impl SendError {
    /// Whether another try may succeed.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Url | Self::Private => false,
            Self::Unreachable(_) | Self::TimedOut => true,
            Self::Refused(status) => {
                status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(status)
            }
        }
    }
}

/// The HTTP client that calls webhooks.
pub(super) struct Sender {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    allowed: Networks,
}

impl Sender {
    pub(super) fn new(allowed: Networks) -> Self {
        let mut http = HttpConnector::new_with_resolver(Resolver {
            allowed: allowed.clone(),
        });
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        // Calls are rare, so no connection is kept.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Self { client, allowed }
    }

    /// Sends the tasks, which are gzipped NDJSON.
    pub(super) async fn send(&self, hook: &Webhook, tasks: Bytes) -> Result<(), SendError> {
        let request = self.compose(hook, tasks)?;
        let answer = tokio::time::timeout(TIMEOUT, self.client.request(request))
            .await
            .map_err(|_| SendError::TimedOut)?
            .map_err(|error| SendError::Unreachable(crate::upstream::chain(&error)))?;
        // The body isn't needed. Dropping it closes the connection.
        let status = answer.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(SendError::Refused(status))
        }
    }

    fn compose(&self, hook: &Webhook, tasks: Bytes) -> Result<Request<Full<Bytes>>, SendError> {
        let url = Url::parse(&hook.url).map_err(|_| SendError::Url)?;
        // An IP address in the URL is never looked up, so the resolver can't check it.
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) => None,
            None => return Err(SendError::Url),
        };
        if literal.is_some_and(|address| !self.allowed.allow(address)) {
            return Err(SendError::Private);
        }
        let mut request = Request::post(url.as_str())
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header(CONTENT_ENCODING, "gzip")
            .body(Full::new(tasks))
            .map_err(|_| SendError::Url)?;
        for (name, value) in &hook.headers {
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_str(value),
            ) {
                request.headers_mut().insert(name, value);
            }
        }
        Ok(request)
    }
}

/// Looks names up, and leaves out addresses that may not be called. So the address that is connected to is the one that was
/// checked.
#[derive(Clone)]
struct Resolver {
    allowed: Networks,
}

impl tower_service::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allowed = self.allowed.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await?
                .filter(|address| allowed.allow(address.ip()))
                .collect();
            if found.is_empty() {
                return Err(std::io::Error::other(
                    "its name has no address that may be called; see --webhook-allowed-ip-networks",
                ));
            }
            Ok(found.into_iter())
        })
    }
}
