//! A trivial upstream: it is both the merger and the only node, knows one index, and answers everything with `{}`.

use std::convert::Infallible;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The stub's answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upstream {
    /// The routing table, with one index on one shard.
    table: &'static str,
    /// The answer to every other request.
    answer: &'static str,
}

impl Upstream {
    /// The same with another routing table.
    pub(super) fn with_table(self, table: &'static str) -> Self {
        Self { table, ..self }
    }
}

/// Reads of the index go directly to its shard, and nothing is ever written.
pub(super) const READS: Upstream = Upstream {
    table: TABLE,
    answer: "{}",
};
/// All requests go to the merger, which answers as if to an accepted write.
pub(super) const WRITES: Upstream = Upstream {
    table: TABLE,
    answer: r#"{"taskUid":1,"indexUid":"x","status":"enqueued","type":"documentAdditionOrUpdate","enqueuedAt":"2025-01-01T00:00:00Z"}"#,
};

const TABLE: &str = r#"{"epoch":1,"leaseMs":60000,"layouts":[{"shards":[0]}],
    "indexes":{"x":{"layout":0,"primaryKey":"id","directReads":true,"directWrites":false}}}"#;

/// Listens on a port of the loopback address until the program ends.
pub(super) async fn serve(port: u16, upstream: Upstream) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .with_context(|| format!("port {port} can't be listened on"))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| answer(request, upstream));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(())
}

async fn answer(
    request: Request<Incoming>,
    upstream: Upstream,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = if request.uri().path() == "/_weft/table" {
        upstream.table
    } else {
        upstream.answer
    };
    Ok(Response::new(Full::new(Bytes::from_static(
        body.as_bytes(),
    ))))
}
