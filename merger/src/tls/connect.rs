//! Clients' side of TLS: a connection that is encrypted or not, and the way to a collector.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tower_service::Service;

use super::Certificates;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// How long a collector may take to accept a connection.
const COLLECTOR_ACCEPTS_WITHIN: Duration = Duration::from_secs(2);

/// Encrypts a connection that was opened to this URL. The server's certificate must name the URL's host.
///
/// # Errors
/// The server isn't trusted, doesn't trust us, or speaks no TLS.
pub async fn secure<S>(
    stream: TokioIo<S>,
    to: &Uri,
    certificates: &Certificates,
) -> Result<MaybeHttpsStream<TokioIo<S>>, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let host = to.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())?;
    let connector = TlsConnector::from(certificates.client());
    Ok(connector.connect(name, TokioIo::new(stream)).await?.into())
}

/// Opens encrypted connections to a collector.
#[derive(Clone)]
pub struct Collector {
    certificates: Arc<Certificates>,
    connector: HttpConnector,
}

impl Collector {
    /// With these certificates.
    pub fn new(certificates: Arc<Certificates>) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(COLLECTOR_ACCEPTS_WITHIN));
        Self {
            certificates,
            connector,
        }
    }
}

impl Service<Uri> for Collector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failed>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let certificates = Arc::clone(&self.certificates);
        let connecting = self.connector.call(to.clone());
        Box::pin(async move {
            let encrypting = secure(connecting.await?, &to, &certificates);
            tokio::time::timeout(COLLECTOR_ACCEPTS_WITHIN, encrypting).await?
        })
    }
}
