//! Compressed answers: which coding a client gets, and the coding itself.
//!
//! Place in the flow: the listener asks [`negotiate`] before a request is worked on, for a client that takes nothing we have
//! is refused then, and hands every answer to [`compress`] before it goes out. The rules are a node's, so that an answer looks
//! the same whether a node or the merger gave it: the smallest answers are coded, too, though they gain nothing, for the official
//! Go client reads whatever it gets as the coding that it asked for. Nodes' answers to the merger stay plain: they don't leave the machine, or
//! the rack, and are read here. Envoy's compressor filters would do this, too, for more processor time (88 µs for gzip, 115 for
//! brotli, measured as below), but not every mesh lets one add them.

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

/// Up to so many bytes are compressed where the request is answered (some 0.5 ms); more goes to a thread of its own.
const INLINE_BYTES: usize = 64 << 10;
/// How hard each coding tries. On a page of 9 KB of JSON: brotli 74 µs and 20 % of the size, gzip 43 µs and 21 %. One step more
/// costs half as much again and saves a hundredth.
const QUALITY: Level = Level::Precise(3);

/// So many large answers are compressed at once; others wait for their turn.
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

/// The client takes nothing that we have.
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

    /// What is preferred among those that a client likes equally.
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
    /// How much the client likes it, in thousandths; 0 is "not at all".
    weight: u16,
}

impl<'h> Wish<'h> {
    /// Reads an item; `None` for one that a node overlooks.
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

/// What a client wants its answer to be coded with: of what it likes best, the best that we have.
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
    // Plain is always welcome, unless the client says otherwise.
    let plain = wishes
        .iter()
        .find(|wish| wish.name == "*" || Coding::of(wish.name) == Some(Coding::Identity));
    match plain {
        Some(wish) if wish.weight == 0 => Err(NotAcceptable),
        _ => Ok(Coding::Identity),
    }
}

impl NotAcceptable {
    /// A node's words for it: what there is to choose from.
    pub(super) fn into_answer(self) -> Answer {
        Answer {
            body: Bytes::from_static(b"br, gzip, deflate"),
            ..Answer::empty(StatusCode::NOT_ACCEPTABLE)
        }
        .with_header(VARY, HeaderValue::from_static("Accept-Encoding"))
    }
}

/// The answer with its body coded.
pub(super) async fn compress(mut answer: Answer, coding: Coding) -> Answer {
    if coding == Coding::Identity || answer.body.is_empty() || !is_worth_it(&answer) {
        return answer;
    }
    let plain = answer.body.clone();
    let coded = if plain.len() <= INLINE_BYTES {
        encode(&plain, coding)
    } else {
        let _turn = LARGE.acquire().await;
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

/// Pictures but those of text are compressed already.
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
            // A window larger than the body is only memory that has to be cleared.
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

/// Reads an encoder over bytes in memory to its end. It never has to wait.
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
