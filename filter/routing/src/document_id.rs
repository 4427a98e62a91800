//! The canonical document id: different spellings of the same document's id have one canonical form.
//!
//! Meilisearch accepts an integer (that fits `i64` or `u64`) or a string of `A-Z a-z 0-9 _ -` of at most 511 bytes, and
//! stores both as text: `42` and `"42"` are one document, `"042"` is another. With any other id, the task fails.

use std::borrow::Cow;

/// The longest id that a node accepts, in bytes.
pub const MAX_ID_BYTES: u16 = 511;

/// A valid document id in its canonical text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId<'a>(Cow<'a, str>);

/// Why a value isn't a document id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocumentId {
    /// The empty string.
    #[error("the document id is empty")]
    Empty,
    /// Longer than [`MAX_ID_BYTES`].
    #[error("the document id is longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// A character that is none of `A-Z a-z 0-9 _ -`.
    #[error("the document id holds a character other than a-z, A-Z, 0-9, - and _")]
    Character,
    /// A number that isn't an integer of 64 bits (a fraction, an exponent, `-0`, too large).
    #[error("the document id is a number but not an integer of 64 bits")]
    Number,
    /// Neither a string nor a number.
    #[error("the document id is neither an integer nor a string")]
    Type,
    /// Not JSON at all.
    #[error("the document id is not valid JSON")]
    Malformed,
}

impl<'a> DocumentId<'a> {
    /// The id in a path segment (percent-decoded), a query value or a text field of a CSV.
    ///
    /// # Errors
    /// A node would refuse the id too.
    pub fn from_text(text: &'a str) -> Result<Self, InvalidDocumentId> {
        check(text)?;
        Ok(Self(Cow::Borrowed(text)))
    }

    /// The id in one JSON value, given as its source text: a number, or a string with its quotes.
    ///
    /// # Errors
    /// A node would refuse the id too.
    pub fn from_json(json: &'a str) -> Result<Self, InvalidDocumentId> {
        let json = json.trim_matches([' ', '\t', '\n', '\r']);
        match json.as_bytes().first() {
            Some(b'"') => Self::from_json_string(json),
            Some(b'-' | b'0'..=b'9') => Self::from_json_number(json),
            Some(b'{' | b'[' | b't' | b'f' | b'n') => Err(InvalidDocumentId::Type),
            _ => Err(InvalidDocumentId::Malformed),
        }
    }

    /// The id of an integer.
    #[must_use]
    pub fn from_u64(number: u64) -> DocumentId<'static> {
        DocumentId(Cow::Owned(number.to_string()))
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same id without borrowed text.
    #[must_use]
    pub fn into_owned(self) -> DocumentId<'static> {
        DocumentId(Cow::Owned(self.0.into_owned()))
    }

    fn from_json_string(json: &'a str) -> Result<Self, InvalidDocumentId> {
        let inner = json
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        match inner {
            // With no escape and no quote inside, the text between the quotes is the string.
            Some(inner) if json.len() >= 2 && !inner.contains(['\\', '"']) => {
                Self::from_text(inner)
            }
            _ => {
                let text: String =
                    serde_json::from_str(json).map_err(|_| InvalidDocumentId::Malformed)?;
                check(&text)?;
                Ok(Self(Cow::Owned(text)))
            }
        }
    }

    fn from_json_number(json: &'a str) -> Result<Self, InvalidDocumentId> {
        let digits = json.strip_prefix('-').unwrap_or(json);
        let integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !integer {
            return Err(if serde_json::from_str::<f64>(json).is_ok() {
                InvalidDocumentId::Number
            } else {
                InvalidDocumentId::Malformed
            });
        }
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(InvalidDocumentId::Malformed);
        }
        // The engine's JSON reader takes `-0` as a float, and also any number that doesn't fit 64 bits.
        let fits = json.parse::<u64>().is_ok() || (json.parse::<i64>().is_ok() && json != "-0");
        if fits {
            Ok(Self(Cow::Borrowed(json)))
        } else {
            Err(InvalidDocumentId::Number)
        }
    }
}

impl std::fmt::Display for DocumentId<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn check(text: &str) -> Result<(), InvalidDocumentId> {
    if text.is_empty() {
        return Err(InvalidDocumentId::Empty);
    }
    if text.len() > usize::from(MAX_ID_BYTES) {
        return Err(InvalidDocumentId::TooLong);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(InvalidDocumentId::Character)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<String, InvalidDocumentId> {
        DocumentId::from_json(text).map(|id| id.as_str().to_owned())
    }

    #[test]
    fn integers_and_plain_strings_are_ids() {
        assert_eq!(json("42"), Ok("42".to_owned()));
        assert_eq!(json("\"42\""), Ok("42".to_owned()));
        assert_eq!(json(" -7 "), Ok("-7".to_owned()));
        assert_eq!(json("0"), Ok("0".to_owned()));
        assert_eq!(
            json("18446744073709551615"),
            Ok("18446744073709551615".to_owned())
        );
        assert_eq!(
            json("-9223372036854775808"),
            Ok("-9223372036854775808".to_owned())
        );
        assert_eq!(json("\"tt_01-Z\""), Ok("tt_01-Z".to_owned()));
        assert_eq!(json("\"\\u0061b\""), Ok("ab".to_owned()));
    }

    #[test]
    fn leading_zeros_in_a_string_are_another_document() {
        assert_ne!(json("\"042\""), json("42"));
    }

    #[test]
    fn numbers_that_are_no_64_bit_integers_are_refused() {
        for text in [
            "1.0",
            "1e3",
            "-0",
            "18446744073709551616",
            "-9223372036854775809",
            "0.5",
        ] {
            assert_eq!(json(text), Err(InvalidDocumentId::Number), "{text}");
        }
    }

    #[test]
    fn other_types_and_broken_json_are_refused() {
        for text in ["null", "true", "{}", "[1]"] {
            assert_eq!(json(text), Err(InvalidDocumentId::Type), "{text}");
        }
        for text in [
            "", "\"", "\"a", "01", "-", "1 2", "\"a\"b\"", "+1", "\"\\x\"",
        ] {
            assert_eq!(json(text), Err(InvalidDocumentId::Malformed), "{text}");
        }
    }

    #[test]
    fn the_length_is_bounded_at_511_bytes() {
        assert!(DocumentId::from_text(&"a".repeat(511)).is_ok());
        assert_eq!(
            DocumentId::from_text(&"a".repeat(512)),
            Err(InvalidDocumentId::TooLong)
        );
        assert_eq!(DocumentId::from_text(""), Err(InvalidDocumentId::Empty));
    }

    #[test]
    fn spaces_dots_and_other_letters_are_refused() {
        for text in [" 42", "42 ", "a.b", "a/b", "é", "a+b", "a\n"] {
            assert_eq!(
                DocumentId::from_text(text),
                Err(InvalidDocumentId::Character),
                "{text}"
            );
        }
    }
}
