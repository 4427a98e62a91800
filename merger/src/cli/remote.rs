//! The way of the command line to a server: a cluster's HTTP API, or that of a single node.
//!
//! The key comes from the environment or a file, never from a flag: a flag stands in the machine's list of processes.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde_json::Value;
use url::Url;

use crate::tls::{Certificates, Files, Identity, TlsError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for an answer that is read as a whole, unless it [has more patience](Remote::with_patience).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The largest answer that is read as a whole, in bytes.
const MAX_ANSWER_BYTES: usize = 512 << 20;

/// Where the cluster is, and who asks.
#[derive(Debug, Clone, Args)]
pub(super) struct ConnectOptions {
    /// The cluster's URL: that of an Envoy in front of it.
    #[arg(
        long,
        value_name = "URL",
        env = "WEFT_URL",
        default_value = "http://127.0.0.1:7700",
        help_heading = "Connection"
    )]
    pub url: Url,
    /// A file that holds the master key. Without it, the variable WEFT_MASTER_KEY is read. The key is no flag, since every user
    /// of the machine can read those.
    #[arg(
        long,
        value_name = "FILE",
        env = "WEFT_MASTER_KEY_FILE",
        help_heading = "Connection"
    )]
    pub master_key_file: Option<PathBuf>,
    /// Authorities (PEM) by which the certificate of an https:// URL is judged, instead of the public ones.
    #[arg(
        long,
        value_name = "FILE",
        env = "WEFT_CA_FILE",
        help_heading = "Connection"
    )]
    pub ca_file: Option<PathBuf>,
    /// The certificate to show (PEM), where the cluster lets nobody in without one.
    #[arg(
        long,
        value_name = "FILE",
        env = "WEFT_CERT_FILE",
        requires = "cert_key_file",
        requires = "ca_file",
        help_heading = "Connection"
    )]
    pub cert_file: Option<PathBuf>,
    /// The key to that certificate (PEM).
    #[arg(
        long,
        value_name = "FILE",
        env = "WEFT_CERT_KEY_FILE",
        requires = "cert_file",
        help_heading = "Connection"
    )]
    pub cert_key_file: Option<PathBuf>,
}

impl ConnectOptions {
    /// Whom to trust, and what to show.
    fn files(&self) -> Option<Files> {
        let identity = self.cert_file.clone().zip(self.cert_key_file.clone());
        Some(Files {
            authorities: self.ca_file.clone()?,
            identity: identity.map(|(certificate, key)| Identity { certificate, key }),
        })
    }
}

/// Why a server gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    /// The file with the key can't be read.
    #[error("the key can't be read from {}: {source}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file with certificates can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key can't stand in a header.
    #[error("the key holds a character that a header can't carry")]
    Key,
    /// The URL isn't one of a server.
    #[error("`{0}` is no URL of a server: it must begin with http:// or https:// and name a host")]
    Url(Url),
    /// A request can't be made of what was given.
    #[error("the request can't be made: {0}")]
    Request(#[from] http::Error),
    /// Nobody answered, or the answer broke off.
    #[error("{url} doesn't answer: {cause}")]
    Unreachable {
        /// The server.
        url: Url,
        /// The cause.
        cause: String,
    },
    /// There was no answer in time.
    #[error("{url} didn't answer within {} s", after.as_secs())]
    TimedOut {
        /// The server.
        url: Url,
        /// How long it was waited for.
        after: Duration,
    },
    /// An answer that isn't JSON, or is too large.
    #[error("{url} answered {path} with something that isn't JSON (status {status})")]
    NotJson {
        /// The server.
        url: Url,
        /// What was asked.
        path: String,
        /// The answer's status.
        status: StatusCode,
    },
    /// The server said no.
    #[error("{message} ({code})")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// Meilisearch's error code.
        code: String,
        /// The server's message.
        message: String,
    },
}

/// A body that is sent: whole, or as it comes.
pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// An answer that was read whole.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The body; `null` if it is empty.
    pub body: Value,
}

/// A server and the key that it is asked with. Clones share the connections.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    url: Url,
    authorization: Option<HeaderValue>,
    headers: HeaderMap,
    patience: Duration,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

impl Remote {
    /// The cluster that the options name.
    ///
    /// # Errors
    /// [`RemoteError::KeyFile`], [`RemoteError::Key`], [`RemoteError::Url`], [`RemoteError::Tls`].
    pub(super) fn connect(options: &ConnectOptions) -> Result<Self, RemoteError> {
        let key = match &options.master_key_file {
            Some(path) => Some(key_from_file(path)?),
            None => std::env::var("WEFT_MASTER_KEY").ok(),
        };
        let key = key.filter(|key| !key.is_empty());
        Self::new(options.url.clone(), key.as_deref(), options.files())
    }

    /// A server, a key for it, and certificates other than the public authorities'.
    ///
    /// # Errors
    /// [`RemoteError::Key`], [`RemoteError::Url`], [`RemoteError::Tls`].
    pub(super) fn new(
        url: Url,
        key: Option<&str>,
        certificates: Option<Files>,
    ) -> Result<Self, RemoteError> {
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(RemoteError::Url(url));
        }
        let authorization = match key {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                    .map_err(|_| RemoteError::Key)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new();
        let builder = match certificates {
            None => builder.with_webpki_roots(),
            Some(files) => {
                let certificates = Certificates::load(files)?;
                builder.with_tls_config((*certificates.client()).clone())
            }
        };
        let connector = builder.https_or_http().enable_http1().wrap_connector(http);
        Ok(Self {
            url,
            authorization,
            headers: HeaderMap::new(),
            patience: ANSWER_TIMEOUT,
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// The same server, asked with one more header in each request.
    pub(super) fn with_header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The same server, with another time that an answer may take.
    pub(super) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The server's URL.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// `GET`; an error if the status isn't one of success.
    pub(super) async fn get(&self, path: &str) -> Result<Value, RemoteError> {
        self.call(Method::GET, path, None).await
    }

    /// `POST` of a JSON body; an error if the status isn't one of success.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, RemoteError> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Any method; an error if the status isn't one of success.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, RemoteError> {
        let reply = self.ask(method, path, body).await?;
        match reply.status.is_success() {
            true => Ok(reply.body),
            false => Err(refusal(&reply)),
        }
    }

    /// Any method; the answer whatever its status is.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, RemoteError> {
        let (kind, body) = match body {
            None => (None, whole(Bytes::new())),
            Some(value) => (Some("application/json"), whole(json(value))),
        };
        self.ask_with(method, path, kind, body).await
    }

    /// A body of any type, whole or as it comes; the answer whatever its status is.
    pub(super) async fn ask_with(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Body,
    ) -> Result<Reply, RemoteError> {
        let answered = async {
            let answer = self.send(method, path, content_type, body).await?;
            let (head, body) = answer.into_parts();
            let limited = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let bytes = limited
                .map_err(|error| self.unreachable(error.to_string()))?
                .to_bytes();
            Ok::<_, RemoteError>((head, bytes))
        };
        let (head, bytes) = tokio::time::timeout(self.patience, answered)
            .await
            .map_err(|_| RemoteError::TimedOut {
                url: self.url.clone(),
                after: self.patience,
            })??;
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).map_err(|_| RemoteError::NotJson {
                url: self.url.clone(),
                path: path.to_owned(),
                status: head.status,
            })?,
        };
        Ok(Reply {
            status: head.status,
            body,
        })
    }

    /// Sends a request and returns the answer with a body that is still to be read. Waits without a limit of its own.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Body,
    ) -> Result<Response<Incoming>, RemoteError> {
        let base = self.url.as_str().trim_end_matches('/');
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"));
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.clone());
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(kind) = content_type {
            request = request.header(CONTENT_TYPE, kind);
        }
        let answer = self.client.request(request.body(body)?).await;
        answer.map_err(|error| self.unreachable(crate::upstream::chain(&error)))
    }

    fn unreachable(&self, cause: String) -> RemoteError {
        RemoteError::Unreachable {
            url: self.url.clone(),
            cause,
        }
    }
}

/// A key in a file, without the line's end.
pub(super) fn key_from_file(path: &PathBuf) -> Result<String, RemoteError> {
    let text = std::fs::read_to_string(path).map_err(|source| RemoteError::KeyFile {
        path: path.clone(),
        source,
    })?;
    Ok(text.trim().to_owned())
}

/// A body that is there already.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// What an answer that isn't one of success says, in Meilisearch's shape or not.
fn refusal(reply: &Reply) -> RemoteError {
    let text = |field: &str| reply.body.get(field).and_then(Value::as_str);
    RemoteError::Refused {
        status: reply.status,
        code: text("code").unwrap_or("no code").to_owned(),
        message: text("message")
            .map_or_else(|| format!("the answer is {}", reply.status), str::to_owned),
    }
}
