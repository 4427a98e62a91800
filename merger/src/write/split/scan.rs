//! A JSON scanner that finds where a document ends and where its id is, and validates the JSON on the way. It is the hot path
//! of every import: one pass, eight bytes at a time within strings, no allocation.
//!
//! It accepts exactly what `serde_json` (the engine's own parser) accepts as a raw value: any depth, any number, and any
//! well-formed escapes, even those of lone surrogates. The caller checks UTF-8, on the whole document. Text that the scanner
//! refuses is parsed again with `serde_json`, which words the error (see [`super::explain`]).

use wide::u8x16;

use crate::write::judge::Special;

/// Why a scan stopped before the end of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The text ends before the value does; more text may complete the value.
    Incomplete,
    /// The text can't become valid JSON, whatever follows.
    Invalid,
}

/// What a scan of an object found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object<'a> {
    /// The object's own text.
    pub(crate) raw: &'a [u8],
    /// The raw value of the wanted key; the last one if the key occurs more than once.
    pub(crate) id: Option<&'a [u8]>,
    /// Whether the wanted key occurs more than once.
    pub(crate) repeated: bool,
    /// Whether any key is written with escapes, so that it may be the wanted key or a special one.
    pub(crate) escaped_keys: bool,
    /// The raw value of the routing field; the last one if it occurs more than once.
    pub(crate) value: Option<&'a [u8]>,
    /// Whether the routing field occurs more than once.
    pub(crate) repeats_value: bool,
    /// The raw values of the fields that have special checks in the engine.
    pub(crate) special: Special<&'a [u8]>,
}

/// The names of the members that a scan looks for, as they are written in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    /// The primary key.
    pub(crate) key: Option<&'a [u8]>,
    /// The routing field.
    pub(crate) field: Option<&'a [u8]>,
}

/// Scans objects; reuses its memory for the next one.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// The closing brackets that are still expected, inside the outermost object.
    open: Vec<u8>,
}

type Scanned<'a, T> = Result<(T, &'a [u8]), Stop>;

impl Scanner {
    /// Scans the object that `text` begins with, and looks for what is `wanted` at its top level.
    pub(crate) fn object<'a>(
        &mut self,
        text: &'a [u8],
        wanted: Wanted<'_>,
    ) -> Result<Object<'a>, Stop> {
        let mut found = Object {
            raw: text,
            id: None,
            repeated: false,
            escaped_keys: false,
            value: None,
            repeats_value: false,
            special: Special::NONE,
        };
        let mut rest = after(text, b'{')?;
        rest = skip_space(rest);
        if let Some((b'}', end)) = rest.split_first() {
            found.raw = consumed(text, end);
            return Ok(found);
        }
        loop {
            let (key, value) = string(rest)?;
            let value = skip_space(after(skip_space(value), b':')?);
            let end = self.value(value)?;
            if wanted.field == Some(key.inner) {
                found.repeats_value |= found.value.is_some();
                found.value = Some(consumed(value, end));
            }
            if key.escaped {
                found.escaped_keys = true;
            } else if wanted.key == Some(key.inner) {
                found.repeated |= found.id.is_some();
                found.id = Some(consumed(value, end));
            } else if key.inner.first() == Some(&b'_') {
                found.special.note(key.inner, consumed(value, end));
            }
            match skip_space(end).split_first() {
                Some((b',', next)) => rest = skip_space(next),
                Some((b'}', end)) => {
                    found.raw = consumed(text, end);
                    return Ok(found);
                }
                Some(_) => return Err(Stop::Invalid),
                None => return Err(Stop::Incomplete),
            }
        }
    }

    /// Skips one value of any type; returns the text after it.
    fn value<'a>(&mut self, text: &'a [u8]) -> Result<&'a [u8], Stop> {
        match text.first() {
            Some(b'"') => string(text).map(|(_, rest)| rest),
            Some(b'{' | b'[') => self.nested(text),
            _ => scalar(text),
        }
    }

    /// Skips an object or an array with its contents, without recursion.
    fn nested<'a>(&mut self, text: &'a [u8]) -> Result<&'a [u8], Stop> {
        self.open.clear();
        let mut rest = text;
        loop {
            // A value begins here.
            rest = match rest.split_first() {
                Some((b'{', inner)) => {
                    let inner = skip_space(inner);
                    if let Some((b'}', end)) = inner.split_first() {
                        end
                    } else {
                        self.open.push(b'}');
                        rest = name(inner)?;
                        continue;
                    }
                }
                Some((b'[', inner)) => {
                    let inner = skip_space(inner);
                    if let Some((b']', end)) = inner.split_first() {
                        end
                    } else {
                        self.open.push(b']');
                        rest = inner;
                        continue;
                    }
                }
                Some((b'"', _)) => string(rest)?.1,
                Some(_) => scalar(rest)?,
                None => return Err(Stop::Incomplete),
            };
            // A value ended here: close the brackets that end with it, and go on to the next value.
            loop {
                let Some(&close) = self.open.last() else {
                    return Ok(rest);
                };
                match skip_space(rest).split_first() {
                    Some((b',', next)) => {
                        let next = skip_space(next);
                        rest = if close == b'}' { name(next)? } else { next };
                        break;
                    }
                    Some((byte, end)) if *byte == close => {
                        self.open.pop();
                        rest = end;
                    }
                    Some(_) => return Err(Stop::Invalid),
                    None => return Err(Stop::Incomplete),
                }
            }
        }
    }
}

/// The text without its leading JSON white space.
pub(crate) fn skip_space(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some((b' ' | b'\n' | b'\t' | b'\r', next)) = rest.split_first() {
        rest = next;
    }
    rest
}

/// The part of `text` that was consumed when `rest` is left.
pub(crate) fn consumed<'a>(text: &'a [u8], rest: &[u8]) -> &'a [u8] {
    text.get(..text.len() - rest.len()).unwrap_or_default()
}

/// Skips a key and its colon; returns the text from the value on.
fn name(text: &[u8]) -> Result<&[u8], Stop> {
    let (_, rest) = string(text)?;
    Ok(skip_space(after(skip_space(rest), b':')?))
}

fn after(text: &[u8], wanted: u8) -> Result<&[u8], Stop> {
    match text.split_first() {
        Some((byte, rest)) if *byte == wanted => Ok(rest),
        Some(_) => Err(Stop::Invalid),
        None => Err(Stop::Incomplete),
    }
}

struct Text<'a> {
    /// The text between the quotes, with its escapes unchanged.
    inner: &'a [u8],
    escaped: bool,
}

/// The text after a run of plain string characters; it may stop a few bytes early near the end of the text.
fn behind_plain(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some((chunk, next)) = rest.split_first_chunk::<16>() {
        let bytes = u8x16::new(*chunk);
        let quote = bytes.simd_eq(u8x16::splat(b'"'));
        let slash = bytes.simd_eq(u8x16::splat(b'\\'));
        let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
        let mask = (quote | slash | control).to_bitmask();
        if mask != 0 {
            return rest
                .get(mask.trailing_zeros() as usize..)
                .unwrap_or_default();
        }
        rest = next;
    }
    words_behind_plain(rest)
}

fn words_behind_plain(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some((chunk, next)) = rest.split_first_chunk::<8>() {
        let mask = special(u64::from_le_bytes(*chunk));
        if mask != 0 {
            return rest
                .get((mask.trailing_zeros() / 8) as usize..)
                .unwrap_or_default();
        }
        rest = next;
    }
    rest
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// A mask whose lowest set bit marks the first byte that ends a plain run in a string: `"`, `\` or a control character.
fn special(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    (zero(quote) | zero(slash) | (word.wrapping_sub(ONES * 0x20) & !word)) & HIGHS
}

/// Scans a string with its quotes; returns the text between them and the text after.
fn string(text: &[u8]) -> Scanned<'_, Text<'_>> {
    let start = after(text, b'"')?;
    let mut rest = start;
    let mut escaped = false;
    loop {
        rest = behind_plain(rest);
        match rest.split_first() {
            Some((b'"', end)) => {
                let inner = start.get(..start.len() - rest.len()).unwrap_or_default();
                return Ok((Text { inner, escaped }, end));
            }
            Some((b'\\', next)) => {
                escaped = true;
                rest = escape(next)?;
            }
            Some((0..0x20, _)) => return Err(Stop::Invalid),
            Some((_, next)) => rest = next,
            None => return Err(Stop::Incomplete),
        }
    }
}

/// Skips the characters after a backslash.
fn escape(text: &[u8]) -> Result<&[u8], Stop> {
    match text.split_first() {
        Some((b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest)) => Ok(rest),
        Some((b'u', rest)) => {
            let digits = rest.get(..4).unwrap_or(rest);
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return Err(Stop::Invalid);
            }
            rest.get(4..).ok_or(Stop::Incomplete)
        }
        Some(_) => Err(Stop::Invalid),
        None => Err(Stop::Incomplete),
    }
}

/// Skips a number, `true`, `false` or `null`.
fn scalar(text: &[u8]) -> Result<&[u8], Stop> {
    match text.first() {
        Some(b'-' | b'0'..=b'9') => number(text),
        Some(b't') => literal(text, b"true"),
        Some(b'f') => literal(text, b"false"),
        Some(b'n') => literal(text, b"null"),
        Some(_) => Err(Stop::Invalid),
        None => Err(Stop::Incomplete),
    }
}

fn literal<'a>(text: &'a [u8], word: &[u8]) -> Result<&'a [u8], Stop> {
    match text.strip_prefix(word) {
        Some(rest) => Ok(rest),
        None if word.starts_with(text) => Err(Stop::Incomplete),
        None => Err(Stop::Invalid),
    }
}

/// Skips a number. At the end of the text it is incomplete, since more digits may follow: within an object, more text always
/// follows.
fn number(text: &[u8]) -> Result<&[u8], Stop> {
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let mut rest = match rest.split_first() {
        Some((b'0', rest)) => rest,
        Some((b'1'..=b'9', rest)) => digits(rest),
        Some(_) => return Err(Stop::Invalid),
        None => return Err(Stop::Incomplete),
    };
    if let Some((b'.', fraction)) = rest.split_first() {
        rest = some_digits(fraction)?;
    }
    if let Some((b'e' | b'E', exponent)) = rest.split_first() {
        let unsigned = match exponent.split_first() {
            Some((b'+' | b'-', unsigned)) => unsigned,
            _ => exponent,
        };
        rest = some_digits(unsigned)?;
    }
    match rest.first() {
        // `01` is invalid, as for `serde_json`: a number can't begin with a zero before other digits.
        Some(b'0'..=b'9') => Err(Stop::Invalid),
        Some(_) => Ok(rest),
        None => Err(Stop::Incomplete),
    }
}

fn digits(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some((b'0'..=b'9', next)) = rest.split_first() {
        rest = next;
    }
    rest
}

fn some_digits(text: &[u8]) -> Result<&[u8], Stop> {
    let rest = digits(text);
    match text.first() {
        None => Err(Stop::Incomplete),
        Some(_) if rest.len() == text.len() => Err(Stop::Invalid),
        Some(_) => Ok(rest),
    }
}

#[cfg(test)]
mod tests;
