//! Splitting and decoding a path as a node's router does.

/// The most segments that any operation has, including Weft's own.
const MAX_SEGMENTS: usize = 8;

/// The non-empty segments of a path.
pub(super) struct Segments<'p> {
    parts: [&'p str; MAX_SEGMENTS],
    count: usize,
}

impl<'p> Segments<'p> {
    /// Splits at slashes. Neighbouring slashes count as one, slashes at the ends are ignored. `None` beyond
    /// [`MAX_SEGMENTS`].
    pub(super) fn split(path: &'p str) -> Option<Self> {
        let mut segments = Self {
            parts: [""; MAX_SEGMENTS],
            count: 0,
        };
        for part in path.split('/').filter(|part| !part.is_empty()) {
            *segments.parts.get_mut(segments.count)? = part;
            segments.count += 1;
        }
        Some(segments)
    }

    pub(super) fn as_slice(&self) -> &[&'p str] {
        self.parts.get(..self.count).unwrap_or_default()
    }
}

/// The first decoding, of the whole path: everything except `%25`, `%2F` and `%2B`, so that no separator appears.
pub(super) fn decode_but_separators(text: &str) -> String {
    percent_decode(text, |byte| matches!(byte, b'%' | b'/' | b'+'))
}

/// The second decoding, of one parameter: everything. Invalid UTF-8 becomes U+FFFD, as on a node.
pub(super) fn decode(text: &str) -> String {
    percent_decode(text, |_| false)
}

fn percent_decode(text: &str, keep: impl Fn(u8) -> bool) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, after_escape @ ..]) => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high << 4 | low, after_escape))
                .filter(|(byte, _)| !keep(*byte)),
            _ => None,
        };
        let (byte, next) = escaped.unwrap_or((*first, after));
        decoded.push(byte);
        rest = next;
    }
    match String::from_utf8(decoded) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}
