//! One request as the merger's parts see it, after it has been classified.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, SizeHint};
use weft_routing::operation::Operation;

/// Any error that a body may end with.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any origin.
pub type AnyBody = BoxBody<Bytes, BodyError>;

/// A body that is in memory already.
pub fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// No body.
pub fn empty() -> AnyBody {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// One client request: what is asked, by whom, with which body.
pub struct Call {
    /// The operation of the API.
    pub operation: Operation,
    /// The method, as the client sent it.
    pub method: Method,
    /// Path and query as the client sent them, for a request that is passed on unchanged.
    pub path_and_query: String,
    /// The index, percent-decoded, where the path names one.
    pub index: Option<String>,
    /// The document id, percent-decoded, where the path names one.
    pub document: Option<String>,
    /// The last path parameter of any other kind (task, batch, key, …), percent-decoded.
    pub item: Option<String>,
    /// All of the client's headers.
    pub headers: HeaderMap,
    /// What the client's key allows.
    pub grant: Grant,
    /// What goes along to every node that this request reaches.
    pub along: Along,
    /// The body, not read yet.
    pub body: AnyBody,
}

impl Call {
    /// The raw query string, empty where there is none.
    pub fn query(&self) -> &str {
        self.path_and_query
            .split_once('?')
            .map_or("", |(_, query)| query)
    }

    /// The query's pairs, percent-decoded, in order.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.query().as_bytes())
    }

    /// A header's value, where it is there once and readable.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Which indexes a key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Uids, or prefixes that end with `*`.
    patterns: Vec<String>,
}

impl Grant {
    /// Every index.
    pub fn all() -> Self {
        Self {
            patterns: vec!["*".to_owned()],
        }
    }

    /// The indexes of these patterns: uids, or prefixes that end with `*`.
    pub fn of(patterns: Vec<String>) -> Self {
        Self { patterns }
    }

    /// Whether every index is meant, now and later.
    pub fn sees_all(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern == "*")
    }

    /// Whether the index is meant.
    pub fn allows(&self, uid: &str) -> bool {
        self.patterns
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => uid.starts_with(prefix),
                None => pattern == uid,
            })
    }
}

/// The client's headers that every node request of this call carries: who asks, and which trace it belongs to.
#[derive(Debug, Clone, Default)]
pub struct Along(HeaderMap);

/// Header names copied from the client to each node request.
const ALONG: [&str; 5] = [
    "authorization",
    "traceparent",
    "tracestate",
    "x-request-id",
    "baggage",
];

impl Along {
    /// Takes from a client's headers what goes along, and gives the request an id if it has none.
    pub fn from_client(headers: &HeaderMap) -> Self {
        let mut along = HeaderMap::with_capacity(ALONG.len());
        for name in ALONG {
            if let Some(value) = headers.get(name) {
                along.insert(HeaderName::from_static(name), value.clone());
            }
        }
        if !along.contains_key("x-request-id")
            && let Ok(id) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())
        {
            along.insert("x-request-id", id);
        }
        Self(along)
    }

    /// The same trace, on the merger's own authority.
    pub fn with_key(&self, key: Option<&str>) -> Self {
        let mut along = self.0.clone();
        along.remove("authorization");
        if let Some(value) =
            key.and_then(|key| HeaderValue::from_str(&format!("Bearer {key}")).ok())
        {
            along.insert("authorization", value);
        }
        Self(along)
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.0
    }

    /// The same in memory of their own: a client's headers keep the whole buffer that they were read into.
    pub fn detached(&self) -> Self {
        let mut along = self.0.clone();
        for value in along.values_mut() {
            if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
                *value = copy;
            }
        }
        Self(along)
    }
}

/// A body of which no more than `limit` bytes may be read; the error is [`TooLarge`].
pub struct Limited {
    inner: AnyBody,
    left: u64,
}

/// The body was larger than what is allowed.
#[derive(Debug, thiserror::Error)]
#[error("the body is larger than the limit of {limit} bytes")]
pub struct TooLarge {
    /// The limit, in bytes.
    pub limit: u64,
}

impl Limited {
    /// Limits `inner` to `limit` bytes.
    pub fn new(inner: AnyBody, limit: u64) -> Self {
        Self { inner, left: limit }
    }
}

impl Body for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let length = data.len() as u64;
            if length > self.left {
                let limit = self.left;
                return Poll::Ready(Some(Err(Box::new(TooLarge { limit }))));
            }
            self.left -= length;
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More than is allowed.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The client sent nothing for too long.
    #[error("the body stalled for {} ms", idle.as_millis())]
    Stalled {
        /// How long it may pause.
        idle: Duration,
    },
    /// The client went away, or what it sent is no valid HTTP body.
    #[error("the body broke off: {0}")]
    Broken(#[source] BodyError),
}

/// Reads a body whole: at most `limit` bytes, with no pause longer than `idle`.
///
/// # Errors
/// [`ReadError`].
pub async fn read_whole(body: AnyBody, limit: u64, idle: Duration) -> Result<Bytes, ReadError> {
    let mut body = Limited::new(body, limit);
    let mut first = Bytes::new();
    let mut all: Option<BytesMut> = None;
    loop {
        let frame = match tokio::time::timeout(idle, body.frame()).await {
            Err(_) => return Err(ReadError::Stalled { idle }),
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(match error.downcast::<TooLarge>() {
                    Ok(_) => ReadError::TooLarge(TooLarge { limit }),
                    Err(error) => ReadError::Broken(error),
                });
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        match &mut all {
            Some(all) => all.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let mut joined = BytesMut::with_capacity(first.len() + data.len());
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
                all = Some(joined);
            }
        }
    }
    Ok(all.map_or(first, BytesMut::freeze))
}
