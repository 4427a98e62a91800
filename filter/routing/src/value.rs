//! Values of a routing field, by which documents of an index are placed that lie by field.
//!
//! A filter `tenant = x` on a node finds numbers that are equal to `x`, and texts with the same normal form: without white space
//! around them, compatibility characters decomposed, in lower case. So two values that a filter can't tell apart must have the
//! same slot, and the slot follows from the normal form. `42` and `"42"` are one value, as they are one document id.
//!
//! What Unicode adds later may have a normal form that isn't known here. A text with a character that isn't assigned yet is
//! refused, so that no version of a node can compare two values as equal that are different here.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_public_assigned;

use crate::document_id::{DocumentId, InvalidDocumentId};

/// The longest normal form of a value, in bytes: a node compares longer ones by their beginnings.
pub const MAX_VALUE_BYTES: usize = 255;

/// The value of a document's routing field in its normal form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingValue(Box<str>);

/// Why a document can't be placed by a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// A text of white space alone.
    #[error("the value is empty")]
    Empty,
    /// Longer than [`MAX_VALUE_BYTES`].
    #[error("the value is longer than {MAX_VALUE_BYTES} bytes")]
    TooLong,
    /// A character that Unicode hasn't assigned, or one for private use.
    #[error("the value holds a character that isn't assigned in Unicode")]
    Character,
    /// A number that isn't an integer of 64 bits.
    #[error("the value is a number but not an integer of 64 bits")]
    Number,
    /// Neither a string nor a number.
    #[error("the value is neither an integer nor a string")]
    Type,
}

impl RoutingValue {
    /// The value of a text, as it is in a document or in a filter.
    ///
    /// # Errors
    /// Documents can't be placed by it.
    pub fn from_text(text: &str) -> Result<Self, InvalidValue> {
        // A character decomposes into at most 18.
        if text.len() > MAX_VALUE_BYTES * 4 {
            return Err(InvalidValue::TooLong);
        }
        let normal = match text.is_ascii() {
            true => text.trim().to_ascii_lowercase(),
            false => normal_form(text)?,
        };
        match normal.len() {
            0 => Err(InvalidValue::Empty),
            1..=MAX_VALUE_BYTES => Ok(Self(normal.into())),
            _ => Err(InvalidValue::TooLong),
        }
    }

    /// The value in one JSON value, given as its source text.
    ///
    /// # Errors
    /// Documents can't be placed by it.
    pub fn from_json(json: &str) -> Result<Self, InvalidValue> {
        let json = json.trim_matches([' ', '\t', '\n', '\r']);
        match json.as_bytes().first() {
            Some(b'"') => {
                let text: String = serde_json::from_str(json).map_err(|_| InvalidValue::Type)?;
                Self::from_text(&text)
            }
            Some(b'-' | b'0'..=b'9') => match DocumentId::from_json(json) {
                Ok(number) => Ok(Self(number.as_str().into())),
                Err(InvalidDocumentId::Malformed) => Err(InvalidValue::Type),
                Err(_) => Err(InvalidValue::Number),
            },
            _ => Err(InvalidValue::Type),
        }
    }

    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RoutingValue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A node decomposes each character for itself. The second decomposition brings marks into one order, so that it doesn't matter
/// whether a node does that, too.
fn normal_form(text: &str) -> Result<String, InvalidValue> {
    if !text.chars().all(is_public_assigned) {
        return Err(InvalidValue::Character);
    }
    let each = text.trim().chars();
    let decomposed: String = each
        .flat_map(|letter| std::iter::once(letter).nfkd())
        .collect();
    Ok(decomposed.to_lowercase().nfkd().collect())
}

/// Why a name can't be that of a routing field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` can't be a routing field: expected the name of a field at the top of a document, not beginning with `_`, without `.`, `*`, `\"`, `\\` and control characters, of at most {MAX_FIELD_BYTES} bytes"
)]
pub struct InvalidField(String);

/// The longest name of a routing field, in bytes.
pub const MAX_FIELD_BYTES: usize = 128;

/// The name of a routing field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingField(std::sync::Arc<str>);

impl RoutingField {
    /// The field with this name.
    ///
    /// # Errors
    /// It isn't a plain name: a dot would reach into nested objects, which can be written in more than one way.
    pub fn new(name: &str) -> Result<Self, InvalidField> {
        let is_plain =
            |letter: char| !letter.is_control() && !matches!(letter, '.' | '*' | '"' | '\\');
        let is_field = (1..=MAX_FIELD_BYTES).contains(&name.len())
            && !name.starts_with('_')
            && name.trim() == name
            && name.chars().all(is_plain);
        match is_field {
            true => Ok(Self(name.into())),
            false => Err(InvalidField(name.to_owned())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RoutingField {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}
