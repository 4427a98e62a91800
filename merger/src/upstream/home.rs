//! Where connections live, and which way they go: over TCP or a Unix socket. They live on the threads on which their client was made, whoever needs one first.
//!
//! A connection belongs to the threads that opened it. The threads of a [phase](crate::runtime) end with it, and would take along
//! the connections that others have from the same client: their requests fail as if a node had hung up.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::Executor;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tower_service::Service;

use crate::sockets::{self, SocketPath};
use crate::tls::{Certificates, Way, secure};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The threads of whoever made this.
#[derive(Clone)]
pub(crate) struct Home(Option<Handle>);

impl Home {
    /// These threads. Where there are none yet, each connection lives where it is opened.
    pub(crate) fn here() -> Self {
        Self(Handle::try_current().ok())
    }

    /// Opens connections that live here, each within `within`, and encrypts them where the way has certificates for it.
    pub(crate) fn connector(&self, way: &Way, within: Duration) -> Connector {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(within));
        connector.enforce_http(false);
        Connector {
            home: self.clone(),
            connector,
            socket: way.socket().cloned(),
            within,
            certificates: way.certificates(),
        }
    }
}

impl<F> Executor<F> for Home
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        match &self.0 {
            Some(home) => drop(home.spawn(work)),
            None => drop(tokio::spawn(work)),
        }
    }
}

/// A connection, encrypted or not.
type Stream = MaybeHttpsStream<TokioIo<sockets::Stream>>;

/// Opens connections at [home](Home).
#[derive(Clone)]
pub(crate) struct Connector {
    home: Home,
    connector: HttpConnector,
    /// Where connections go instead of a URL's host.
    socket: Option<SocketPath>,
    /// How long a connection may take, and then TLS.
    within: Duration,
    certificates: Option<Arc<Certificates>>,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<Stream, Failed>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.connect(to.clone());
        let home = self.home.0.clone();
        let (within, certificates) = (self.within, self.certificates.clone());
        let connecting = async move {
            let stream = connecting.await?;
            match certificates {
                Some(own) => timeout(within, secure(stream, &to, &own)).await?,
                None if to.scheme_str() == Some("https") => Err("there are no certificates".into()),
                None => Ok(stream.into()),
            }
        };
        Box::pin(async move {
            match home {
                None => connecting.await,
                Some(home) => home.spawn(connecting).await?,
            }
        })
    }
}

impl Connector {
    fn connect(&mut self, to: Uri) -> BoxFuture<'static, Result<TokioIo<sockets::Stream>, Failed>> {
        let Some(path) = self.socket.clone() else {
            let connecting = self.connector.call(to);
            return Box::pin(async {
                Ok(TokioIo::new(sockets::Stream::Tcp(
                    connecting.await?.into_inner(),
                )))
            });
        };
        let within = self.within;
        Box::pin(async move {
            let stream = timeout(within, UnixStream::connect(path)).await??;
            Ok(TokioIo::new(sockets::Stream::Unix(stream)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty};
    use hyper_util::client::legacy::Client;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers all requests on one connection, and takes no second one.
    async fn serve_one(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut head = Vec::new();
        while stream.read_buf(&mut head).await.unwrap() > 0 {
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_connection_outlives_the_threads_that_needed_it_first() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        let serving = tokio::spawn(serve_one(listener));
        let home = Home::here();
        let connector = home.connector(&Way::to(&uri, None), Duration::from_secs(5));
        let client: Client<_, Empty<Bytes>> = Client::builder(home).build(connector);
        let get = |client: Client<Connector, Empty<Bytes>>, uri: Uri| async move {
            let answer = client.get(uri).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        };
        let uri: Uri = uri.parse().unwrap();
        let others = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let first = others.spawn(get(client.clone(), uri.clone()));
        assert_eq!(first.await.unwrap(), "ok");
        others.shutdown_background();
        // The server takes no other connection than that one.
        assert_eq!(get(client.clone(), uri).await, "ok");
        drop(client);
        serving.await.unwrap();
    }
}
