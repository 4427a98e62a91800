//! A client's request after it was classified, as the merger's parts get it.

mod asked;
mod forwarded;

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use weft_routing::operation::Operation;

use crate::bounds::{Budget, NoRoom};
use crate::sockets::Peer;

pub use asked::Asked;
pub use forwarded::ForwardedHeaders;

/// Any error that a body may end with.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request body from any source.
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

/// A client's request: the operation, the client's rights, the body.
pub struct Call {
    /// The operation of the API.
    pub operation: Operation,
    /// The method, as the client sent it.
    pub method: Method,
    /// Path and query as the client sent them, for a request that is passed on unchanged.
    pub path_and_query: String,
    /// The index, percent-decoded, if the path names one.
    pub index: Option<String>,
    /// The document id, percent-decoded, if the path names one.
    pub document: Option<String>,
    /// The last path parameter of any other kind (task, batch, key, …), percent-decoded.
    pub item: Option<String>,
    /// All of the client's headers.
    pub headers: HeaderMap,
    /// The indexes that the client's key is for.
    pub grant: Grant,
    /// What the client's key or token allows, as far as answers depend on it; `None` if that isn't known.
    pub rights: Option<String>,
    /// The headers that go to every node that this request reaches.
    pub forwarded: ForwardedHeaders,
    /// Where the connection comes from. It tells several Envoys apart.
    pub peer: Option<Peer>,
    /// The body, not read yet.
    pub body: AnyBody,
}

impl Call {
    /// The raw query string, empty if there is none.
    pub fn query(&self) -> &str {
        self.path_and_query
            .split_once('?')
            .map_or("", |(_, query)| query)
    }

    /// The query's pairs, percent-decoded, in order.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.query().as_bytes())
    }

    /// The first value of a header, if it is visible ASCII.
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

    /// Whether the key is for all indexes, including future ones.
    pub fn sees_all(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern == "*")
    }

    /// Whether the key is for this index.
    pub fn allows(&self, uid: &str) -> bool {
        self.patterns
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => uid.starts_with(prefix),
                None => pattern == uid,
            })
    }
}

/// A body that ends with the error [`TooLarge`] after more than `limit` bytes. The error names the bytes that were left before
/// the last frame; [`read_into`] and [`read_whole`] put the limit there.
pub struct Limited {
    inner: AnyBody,
    left: u64,
}

/// The body is larger than the limit.
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

/// How fast a client must send its body.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The longest pause between two parts of the body.
    pub idle: Duration,
    /// The longest total wait for the body, in addition to one second for every [`SLOWEST_BYTES_PER_SECOND`] that came.
    pub total: Duration,
}

/// A body that comes slower than this reaches the limit of [`Pace::total`] at some point.
const SLOWEST_BYTES_PER_SECOND: u64 = 16 << 10;

/// A body that must come in time; the error is [`Late`]. Only the time that the reader waits for it counts.
pub struct Paced {
    inner: AnyBody,
    pace: Pace,
    received: u64,
    waited: Duration,
    /// Since when the reader has been waiting.
    waiting: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

/// The body did not come in time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub enum Late {
    /// The client sent nothing for too long.
    #[error("the body stalled for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// The client sent too little in too long a time.
    #[error("the body took longer than {} ms and a second for every 16 KiB", .0.as_millis())]
    Slow(Duration),
}

impl Paced {
    /// Sets the pace of `inner`.
    pub fn new(inner: AnyBody, pace: Pace) -> Self {
        Self {
            inner,
            pace,
            received: 0,
            waited: Duration::ZERO,
            waiting: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// The total wait that is allowed for the bytes that have come so far.
    fn allowed(&self) -> Duration {
        let seconds = self.received / SLOWEST_BYTES_PER_SECOND;
        self.pace.total + Duration::from_secs(seconds)
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let now = Instant::now();
        if polled.is_ready() {
            if let Some(since) = self.waiting.take() {
                self.waited += now - since;
            }
            if let Poll::Ready(Some(Ok(frame))) = &polled {
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return polled;
        }
        let left = self.allowed().saturating_sub(self.waited);
        if self.waiting.is_none() {
            self.waiting = Some(now);
            let until = now + left.min(self.pace.idle);
            self.timer.as_mut().reset(until);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let late = match left > self.pace.idle {
            true => Late::Stalled(self.pace.idle),
            false => Late::Slow(self.pace.total),
        };
        Poll::Ready(Some(Err(Box::new(late))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The body is larger than the limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The body did not come in time.
    #[error(transparent)]
    Late(#[from] Late),
    /// There is no room for the body in the budget.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The client disconnected, or sent an invalid HTTP body.
    #[error("the body broke off: {0}")]
    Broken(#[source] BodyError),
}

impl ReadError {
    /// Turns the error of a body into its cause.
    pub fn of(error: BodyError) -> Self {
        match error.downcast::<Late>() {
            Ok(late) => Self::Late(*late),
            Err(error) => Self::Broken(error),
        }
    }
}

/// Reads a whole body: at most `limit` bytes, with no pause longer than `idle`. The bytes hold their share of `room` until they
/// are dropped.
///
/// # Errors
/// [`ReadError`].
pub async fn read_into(
    body: AnyBody,
    limit: u64,
    idle: Duration,
    room: &Budget,
) -> Result<Bytes, ReadError> {
    let mut share = room.share();
    let bytes = read(body, limit, idle, &mut |bytes| share.grow(bytes)).await?;
    Ok(share.held_by(bytes))
}

/// Reads a whole body that is already in memory or small: at most `limit` bytes, with no pause longer than `idle`.
///
/// # Errors
/// [`ReadError`].
pub async fn read_whole(body: AnyBody, limit: u64, idle: Duration) -> Result<Bytes, ReadError> {
    read(body, limit, idle, &mut |_| Ok(())).await
}

async fn read(
    body: AnyBody,
    limit: u64,
    idle: Duration,
    keep: &mut (dyn FnMut(u64) -> Result<(), NoRoom> + Send),
) -> Result<Bytes, ReadError> {
    let mut body = Limited::new(body, limit);
    let mut first = Bytes::new();
    let mut all: Option<BytesMut> = None;
    loop {
        let frame = match tokio::time::timeout(idle, body.frame()).await {
            Err(_) => return Err(Late::Stalled(idle).into()),
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(match error.downcast::<TooLarge>() {
                    Ok(_) => ReadError::TooLarge(TooLarge { limit }),
                    Err(error) => ReadError::of(error),
                });
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        keep(data.len() as u64)?;
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

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    const PACE: Pace = Pace {
        idle: Duration::from_secs(60),
        total: Duration::from_secs(120),
    };

    /// A body that sends `bytes` bytes after each pause.
    fn trickle(pauses: usize, pause: Duration, bytes: usize) -> AnyBody {
        let frames = stream::unfold(0, move |sent| async move {
            if sent == pauses {
                return None;
            }
            tokio::time::sleep(pause).await;
            let frame: Result<_, BodyError> = Ok(Frame::data(Bytes::from(vec![b' '; bytes])));
            Some((frame, sent + 1))
        });
        BodyExt::boxed(StreamBody::new(Box::pin(SyncStream(
            std::sync::Mutex::new(Box::pin(frames)),
        ))))
    }

    type Frames = Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, BodyError>> + Send>>;

    struct SyncStream(std::sync::Mutex<Frames>);

    impl futures_util::Stream for SyncStream {
        type Item = Result<Frame<Bytes>, BodyError>;

        fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.0.lock().unwrap().as_mut().poll_next(cx)
        }
    }

    async fn read_paced(body: AnyBody) -> (Result<usize, ReadError>, Duration) {
        let begun = Instant::now();
        let body = Paced::new(body, PACE).boxed();
        let read = read_whole(body, u64::MAX, Duration::from_secs(3600)).await;
        (read.map(|bytes| bytes.len()), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_trickles_its_body_is_cut_off_in_the_end() {
        let (read, took) = read_paced(trickle(1_000, Duration::from_secs(50), 1)).await;
        assert!(
            matches!(read, Err(ReadError::Late(Late::Slow(_)))),
            "{read:?}"
        );
        assert!((120..=121).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_pauses_for_too_long_is_cut_off() {
        let (read, took) = read_paced(trickle(2, Duration::from_secs(70), 1)).await;
        assert!(
            matches!(read, Err(ReadError::Late(Late::Stalled(_)))),
            "{read:?}"
        );
        assert!((60..=61).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_over_a_thin_line_may_take_its_time() {
        let (read, took) = read_paced(trickle(1_000, Duration::from_secs(1), 20 << 10)).await;
        assert_eq!(read.unwrap(), 1_000 * (20 << 10));
        assert_eq!(took.as_secs(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_finds_no_room_gives_back_what_it_took() {
        let room = Budget::new("bytes of request bodies", 10);
        let idle = Duration::from_secs(1);
        let read = read_into(trickle(3, Duration::ZERO, 4), 100, idle, &room).await;
        assert!(matches!(read, Err(ReadError::NoRoom(_))), "{read:?}");
        assert_eq!(room.used(), 0);
        let read = read_into(trickle(2, Duration::ZERO, 4), 100, idle, &room)
            .await
            .unwrap();
        assert_eq!((read.len(), room.used()), (8, 8));
        drop(read);
        assert_eq!(room.used(), 0);
    }
}
