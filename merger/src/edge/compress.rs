//! Compresses answers: chooses the coding that a client gets, and applies it.
//!
//! Place in the flow: the listener calls [`negotiate`] before a request is handled, because a client that accepts none of our
//! codings is refused then. It passes every answer through [`compress`] before sending it. The rules are a node's, so that an
//! answer looks the same from a node and from the merger. Even the smallest answers are compressed, though that saves nothing:
//! the official Go client decodes every answer with the coding that it asked for. Nodes' answers to the merger stay plain: they
//! don't leave the machine or the rack, and the merger has to read them. Envoy's compressor filters could do this too, but take
//! more processor time (88 µs for gzip, 115 µs for brotli, measured as below), and not every mesh allows adding them.

use std::cmp::Reverse;
use std::io;
use std::sync::LazyLock;

use async_compression::Level;
use async_compression::brotli::EncoderParams;
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder};
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Semaphore;

use crate::answer::Answer;

/// Up to this many bytes are compressed on the request's own thread (about 0.5 ms). Larger answers go to a thread for blocking
/// work.
const INLINE_BYTES: usize = 64 << 10;
/// The compression level. For a page of 9 KB of JSON: brotli takes 74 µs and leaves 20 % of the size, gzip takes 43 µs and leaves
/// 21 %. One level more costs half as much time again and saves one per cent.
const QUALITY: Level = Level::Precise(3);

/// How many large answers are compressed at once: one for each processor. Others wait.
static LARGE: LazyLock<Semaphore> = LazyLock::new(|| {
    Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
});

/// How an answer's body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Deflate,
    Gzip,
    Brotli,
}

/// The client accepts none of our codings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAcceptable;

impl Coding {
    fn of(name: &str) -> Option<Self> {
        let codings = [Self::Identity, Self::Deflate, Self::Gzip, Self::Brotli];
        codings
            .into_iter()
            .find(|coding| coding.name().eq_ignore_ascii_case(name))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Deflate => "deflate",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }

    /// The preference among codings with the same weight; higher is better.
    fn rank(self) -> u8 {
        match self {
            Self::Identity => 0,
            Self::Deflate => 2,
            Self::Gzip => 3,
            Self::Brotli => 4,
        }
    }
}

/// One item of `accept-encoding`.
struct Wish<'h> {
    name: &'h str,
    /// The `q` value in thousandths; 0 means "not acceptable".
    weight: u16,
}

impl<'h> Wish<'h> {
    /// Reads an item; `None` for one that a node ignores.
    fn read(item: &'h str) -> Option<Self> {
        let item = item.trim();
        if item.is_empty() || !item.is_ascii() {
            return None;
        }
        let Some((name, parameter)) = item.rsplit_once(';') else {
            return Some(Self {
                name: item,
                weight: 1000,
            });
        };
        let parameter = parameter.trim();
        let weight = match parameter.get(..2)? {
            "q=" | "Q=" => parameter.get(2..).filter(|digits| digits.len() <= 5)?,
            _ => return None,
        };
        let weight: f32 = weight.parse().ok()?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it lies between 0 and 1000"
        )]
        (0.0..=1.0).contains(&weight).then(|| Self {
            name: name.trim(),
            weight: (weight * 1000.0) as u16,
        })
    }

    fn rank(&self) -> u8 {
        match Coding::of(self.name) {
            _ if self.weight == 0 || self.name == "*" => 0,
            Some(coding) => coding.rank(),
            None => 1,
        }
    }
}

/// The coding for a client's answer: the one with the highest weight that we have, and among equals the one that we prefer.
pub(super) fn negotiate(request: &HeaderMap) -> Result<Coding, NotAcceptable> {
    let mut wishes = Vec::new();
    for value in request.get_all(ACCEPT_ENCODING) {
        let Ok(value) = value.to_str() else {
            return Ok(Coding::Identity);
        };
        wishes.extend(value.split(',').filter_map(Wish::read));
    }
    wishes.sort_by_key(|wish| Reverse((wish.weight, wish.rank())));
    let liked = wishes.iter().filter(|wish| wish.weight > 0);
    if let Some(coding) = liked.filter_map(|wish| Coding::of(wish.name)).next() {
        return Ok(coding);
    }
    // A plain answer is always acceptable, unless the client excludes it.
    let plain = wishes
        .iter()
        .find(|wish| wish.name == "*" || Coding::of(wish.name) == Some(Coding::Identity));
    match plain {
        Some(wish) if wish.weight == 0 => Err(NotAcceptable),
        _ => Ok(Coding::Identity),
    }
}

impl NotAcceptable {
    /// A node's answer in this case: a list of the codings.
    pub(super) fn into_answer(self) -> Answer {
        Answer {
            body: Bytes::from_static(b"br, gzip, deflate"),
            ..Answer::empty(StatusCode::NOT_ACCEPTABLE)
        }
        .with_header(VARY, HeaderValue::from_static("Accept-Encoding"))
    }
}

/// The answer with its body compressed and the headers for it.
pub(super) async fn compress(mut answer: Answer, coding: Coding) -> Answer {
    if coding == Coding::Identity || answer.body.is_empty() || !is_worth_it(&answer) {
        return answer;
    }
    let plain = answer.body.clone();
    let coded = if plain.len() <= INLINE_BYTES {
        encode(&plain, coding)
    } else {
        let _permit = LARGE.acquire().await;
        tokio::task::spawn_blocking(move || encode(&plain, coding))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    };
    match coded {
        Ok(coded) => {
            answer.body = coded.into();
            answer = answer
                .with_header(CONTENT_ENCODING, HeaderValue::from_static(coding.name()))
                .with_header(VARY, HeaderValue::from_static("accept-encoding"));
        }
        Err(error) => tracing::error!(%error, "an answer could not be compressed"),
    }
    answer
}

/// Whether compression is worthwhile: images (except SVG) and videos are compressed already.
fn is_worth_it(answer: &Answer) -> bool {
    let content_type = answer.content_type.as_ref();
    let text = content_type.and_then(|value| value.to_str().ok());
    let Some(mime) = text.and_then(|text| text.parse::<mime::Mime>().ok()) else {
        return true;
    };
    match mime.type_() {
        mime::IMAGE => mime.subtype() == mime::SVG,
        mime::VIDEO => false,
        _ => true,
    }
}

fn encode(plain: &[u8], coding: Coding) -> io::Result<Vec<u8>> {
    match coding {
        Coding::Identity => Ok(plain.to_vec()),
        Coding::Deflate => read(ZlibEncoder::with_quality(plain, QUALITY), plain.len()),
        Coding::Gzip => read(GzipEncoder::with_quality(plain, QUALITY), plain.len()),
        Coding::Brotli => {
            // A window larger than the body would only be more memory to clear.
            let bits = usize::BITS - plain.len().leading_zeros();
            let window = i32::try_from(bits).unwrap_or(22).clamp(10, 22);
            let parameters = EncoderParams::default()
                .quality(QUALITY)
                .window_size(window)
                .size_hint(plain.len());
            read(BrotliEncoder::with_params(plain, parameters), plain.len())
        }
    }
}

/// Reads an encoder to its end. It never waits, because its input is in memory.
fn read(mut encoder: impl AsyncRead + Unpin, plain: usize) -> io::Result<Vec<u8>> {
    let mut coded = Vec::with_capacity(plain / 3);
    encoder
        .read_to_end(&mut coded)
        .now_or_never()
        .unwrap_or(Err(io::ErrorKind::WouldBlock.into()))?;
    Ok(coded)
}

#[cfg(test)]
mod tests;
