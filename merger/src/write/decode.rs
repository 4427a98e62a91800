//! Decode: turns a client's body, compressed or not, into plain bytes as they arrive.
//!
//! If a body stalls, breaks off or exceeds the limit, the write ends before anything is delivered. The limit counts plain
//! bytes, so that a small compressed body can't fill the disk.

use std::io;
use std::time::Duration;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use http_body_util::{BodyDataStream, BodyExt};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use crate::call::{AnyBody, BodyError, Late, ReadError, TooLarge};

/// How many plain bytes one call returns at most.
const CHUNK_BYTES: usize = 256 << 10;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body is too large, stalled or broke off.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The body doesn't match its `content-encoding`; the text is a node's.
    #[error("The provided payload is incomplete and cannot be parsed")]
    Corrupt,
}

/// A body's plain bytes.
pub(crate) struct Plain {
    source: Source,
    idle: Duration,
    limit: u64,
    left: u64,
}

enum Source {
    Identity(AnyBody),
    Compressed {
        decoder: Box<dyn Decoder>,
        buffer: BytesMut,
    },
}

/// A decoder that also gives access to the bytes after the end of the encoded stream.
trait Decoder: AsyncRead + Send + Unpin {
    fn rest(&mut self) -> &mut Body;
}

macro_rules! decoders {
    ($($decoder:ident),+) => {
        $(impl Decoder for $decoder<Body> {
            fn rest(&mut self) -> &mut Body {
                self.get_mut()
            }
        })+
    };
}
decoders!(GzipDecoder, ZlibDecoder, BrotliDecoder, ZstdDecoder);

impl Plain {
    /// Wraps the body of a request with this `content-encoding`. As on a node, an unknown encoding counts as none.
    pub(crate) fn new(body: AnyBody, encoding: Option<&str>, limit: u64, idle: Duration) -> Self {
        let encoding = encoding.map(|encoding| encoding.trim().to_ascii_lowercase());
        let source = match encoding.as_deref() {
            Some("gzip") => Source::compressed(GzipDecoder::new(reader(body))),
            Some("deflate") => Source::compressed(ZlibDecoder::new(reader(body))),
            Some("br") => Source::compressed(BrotliDecoder::new(reader(body))),
            Some("zstd") => Source::compressed(ZstdDecoder::new(reader(body))),
            _ => Source::Identity(body),
        };
        Self {
            source,
            idle,
            limit,
            left: limit,
        }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let next = match tokio::time::timeout(self.idle, self.source.next()).await {
            Err(_) => return Err(ReadError::Late(Late::Stalled(self.idle)).into()),
            Ok(next) => next?,
        };
        if let Some(bytes) = &next {
            self.left = self
                .left
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| self.too_large())?;
        }
        Ok(next)
    }

    /// The complete body.
    pub(crate) async fn whole(mut self) -> Result<Bytes, DecodeError> {
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.next().await? else {
            return Ok(first);
        };
        let mut all = BytesMut::from(&*first);
        all.extend_from_slice(&second);
        while let Some(next) = self.next().await? {
            all.extend_from_slice(&next);
        }
        Ok(all.freeze())
    }

    /// Reads and discards the rest, so that a client that reads only after it has sent everything gets the answer.
    pub(crate) async fn drain(mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }

    fn too_large(&self) -> ReadError {
        TooLarge { limit: self.limit }.into()
    }
}

impl Source {
    fn compressed(decoder: impl Decoder + 'static) -> Self {
        Self::Compressed {
            decoder: Box::new(decoder),
            buffer: BytesMut::new(),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, DecodeError> {
        match self {
            Self::Identity(body) => loop {
                match body.frame().await {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(ReadError::of(error).into()),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if !data.is_empty() => return Ok(Some(data)),
                        _ => {}
                    },
                }
            },
            Self::Compressed { decoder, buffer } => {
                buffer.reserve(CHUNK_BYTES);
                let read = decoder
                    .take(CHUNK_BYTES as u64)
                    .read_buf(buffer)
                    .await
                    .map_err(of_decoder)?;
                // A body is a single stream of its encoding. As on a node, anything after it is refused, even a second gzip
                // member.
                if read == 0
                    && !decoder
                        .rest()
                        .fill_buf()
                        .await
                        .map_err(of_decoder)?
                        .is_empty()
                {
                    return Err(DecodeError::Corrupt);
                }
                Ok((read > 0).then(|| buffer.split().freeze()))
            }
        }
    }
}

/// The client's body broke off while a decoder read it.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
struct BrokenOff(BodyError);

/// A client's body as decoders read it.
type Body = Box<dyn AsyncBufRead + Send + Unpin>;

fn reader(body: AnyBody) -> Body {
    let data = BodyDataStream::new(body);
    let data = TryStreamExt::map_err(data, |error| io::Error::other(BrokenOff(error)));
    Box::new(StreamReader::new(Box::pin(data)))
}

fn of_decoder(error: io::Error) -> DecodeError {
    match error.downcast::<BrokenOff>() {
        Ok(BrokenOff(error)) => ReadError::of(error).into(),
        Err(_) => DecodeError::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::call::full;

    const IDLE: Duration = Duration::from_millis(200);

    async fn compress(encoding: &str, text: &[u8]) -> Vec<u8> {
        macro_rules! with {
            ($encoder:ident) => {{
                let mut encoder = $encoder::new(Vec::new());
                encoder.write_all(text).await.unwrap();
                encoder.shutdown().await.unwrap();
                encoder.into_inner()
            }};
        }
        match encoding {
            "gzip" => with!(GzipEncoder),
            "deflate" => with!(ZlibEncoder),
            "br" => with!(BrotliEncoder),
            _ => with!(ZstdEncoder),
        }
    }

    #[tokio::test]
    async fn each_encoding_is_read() {
        let mut text = Vec::new();
        for number in 0..100_000 {
            writeln!(text, "{{\"id\":{number}}}").unwrap();
        }
        for encoding in ["gzip", "deflate", "br", "zstd"] {
            let body = full(compress(encoding, &text).await);
            let plain = Plain::new(body, Some(encoding), u64::MAX, IDLE)
                .whole()
                .await
                .unwrap();
            assert!(plain == text, "{encoding}");
        }
        for encoding in [None, Some("identity"), Some("something"), Some("gzip, br")] {
            let plain = Plain::new(full("text"), encoding, 4, IDLE)
                .whole()
                .await
                .unwrap();
            assert_eq!(plain, "text");
        }
    }

    #[tokio::test]
    async fn what_is_not_of_its_encoding_is_corrupt() {
        for encoding in ["gzip", "deflate", "br", "zstd"] {
            let plain = Plain::new(full("{\"id\":1}"), Some(encoding), 1000, IDLE)
                .whole()
                .await;
            assert!(matches!(plain, Err(DecodeError::Corrupt)), "{encoding}");
            let mut cut = compress(encoding, b"[{\"id\":1}]").await;
            cut.truncate(cut.len() - 4);
            let plain = Plain::new(full(cut), Some(encoding), 1000, IDLE)
                .whole()
                .await;
            assert!(matches!(plain, Err(DecodeError::Corrupt)), "{encoding}");
        }
    }

    #[tokio::test]
    async fn more_than_one_stream_is_refused_whatever_comes_second() {
        for encoding in ["gzip", "deflate", "br", "zstd"] {
            let first = compress(encoding, b"{\"id\":1}\n").await;
            for more in [&first[..], b"x", b"\0\0\0\0"] {
                let both = [&first[..], more].concat();
                let cuts = [first.len(), both.len()];
                for cut in cuts {
                    let frames = [&both[..cut], &both[cut..]]
                        .into_iter()
                        .map(|part| Ok(hyper::body::Frame::data(Bytes::copy_from_slice(part))))
                        .collect::<Vec<Result<_, BodyError>>>();
                    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
                    let plain = Plain::new(BodyExt::boxed(body), Some(encoding), 1000, IDLE)
                        .whole()
                        .await;
                    assert!(
                        matches!(plain, Err(DecodeError::Corrupt)),
                        "{encoding} {more:?} {cut}: {plain:?}"
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn the_limit_counts_plain_bytes() {
        let bomb = compress("zstd", &vec![b' '; 10 << 20]).await;
        assert!(bomb.len() < 10_000);
        let read = Plain::new(full(bomb), Some("zstd"), 1 << 20, IDLE)
            .whole()
            .await;
        assert!(matches!(
            read,
            Err(DecodeError::Read(ReadError::TooLarge(_)))
        ));
    }

    #[tokio::test]
    async fn a_body_that_stalls_ends() {
        let never = futures_util::stream::pending::<Result<hyper::body::Frame<Bytes>, BodyError>>();
        let body: AnyBody = BodyExt::boxed(http_body_util::StreamBody::new(never));
        let read = Plain::new(body, None, 1000, IDLE).whole().await;
        assert!(matches!(
            read,
            Err(DecodeError::Read(ReadError::Late(Late::Stalled(_))))
        ));
    }
}
