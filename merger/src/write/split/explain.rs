//! Words errors in documents as a node does: parses the text with `serde_json`, like a node, and moves the reported position to
//! the text's place in the body.
//!
//! Only text that the scanner has refused comes here, so this may be slow.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// A text's position in the body: its line, counted from 1, and the number of bytes before it on that line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    line: usize,
    column: usize,
}

impl Position {
    /// The body's start.
    pub(crate) const START: Self = Self { line: 1, column: 0 };

    /// The position after `text`.
    pub(crate) fn after(self, text: &[u8]) -> Self {
        match memchr::memrchr(b'\n', text) {
            Some(last) => Self {
                line: self.line + memchr::memchr_iter(b'\n', text).count(),
                column: text.len() - last - 1,
            },
            None => Self {
                line: self.line,
                column: self.column + text.len(),
            },
        }
    }
}

/// What is wrong with a document, in a node's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The text is not JSON, or not documents: `malformed_payload`.
    #[error("{0}")]
    Malformed(String),
    /// A value among the documents is JSON but not an object; a node fails with an `internal` error.
    #[error("{0}")]
    NotAnObject(String),
}

impl Fault {
    /// Whether the only fault is that the text ends too early: more text may then lead to another fault.
    pub(crate) fn is_of_end(&self) -> bool {
        matches!(self, Self::Malformed(words) if words.starts_with("EOF while parsing"))
    }
}

/// Where in the structure of a JSON body the text begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the start of the body.
    Start,
    /// After `[`.
    First,
    /// After a document and a comma.
    Next,
    /// After a document.
    Between,
}

/// Explains what is wrong with a JSON body from `text` on.
pub(crate) fn json(place: Place, text: &[u8], at: Position) -> Fault {
    let before: &[u8] = match place {
        Place::Start => b"",
        Place::First => b"[",
        Place::Next => b"[{},",
        Place::Between => b"[{}",
    };
    let body = [before, text].concat();
    let moved = Moved {
        by: before.len(),
        to: at,
    };
    match serde_json::Deserializer::from_slice(&body).deserialize_seq(Documents) {
        Ok(Ok(())) => Fault::Malformed(moved.unexplained()),
        Ok(Err(error)) => of_element(&error),
        Err(error) if error.classify() != Category::Data => Fault::Malformed(moved.message(&error)),
        Err(_) => match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body)
        {
            Ok(_) => Fault::Malformed(moved.unexplained()),
            Err(error) => Fault::Malformed(moved.message(&error)),
        },
    }
}

/// Explains what is wrong with a body of one object that stands at `at`.
pub(crate) fn single(error: &serde_json::Error, at: Position) -> Fault {
    Fault::Malformed(Moved { by: 0, to: at }.message(error))
}

/// Explains what is wrong with an NDJSON body from the document that `text` begins with.
pub(crate) fn ndjson(text: &[u8], at: Position) -> Fault {
    let moved = Moved { by: 0, to: at };
    let mut documents = serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>();
    match documents.next() {
        Some(Err(error)) => Fault::Malformed(moved.message(&error)),
        Some(Ok(raw)) => match entries(raw.get()) {
            Ok(_) => Fault::Malformed(moved.unexplained()),
            Err(error) => of_element(&error),
        },
        None => Fault::Malformed(moved.unexplained()),
    }
}

/// The fault of a document that ends at `end` and isn't UTF-8.
pub(crate) fn not_text(end: Position) -> Fault {
    Fault::Malformed(format!(
        "invalid unicode code point at line {} column {}",
        end.line, end.column
    ))
}

/// The top level of an object: its keys, unescaped, and the raw text of their values.
pub(crate) type Entries<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Reads the top level of an object.
pub(crate) fn entries(raw: &str) -> serde_json::Result<Entries<'_>> {
    serde_json::Deserializer::from_str(raw).deserialize_map(Fields)
}

fn of_element(error: &serde_json::Error) -> Fault {
    match error.classify() {
        Category::Data => Fault::NotAnObject(error.to_string()),
        _ => Fault::Malformed(error.to_string()),
    }
}

/// Moves a position in a text to the position in the body.
struct Moved {
    /// How many bytes were put before the text.
    by: usize,
    /// The text's position in the body.
    to: Position,
}

impl Moved {
    fn message(&self, error: &serde_json::Error) -> String {
        if error.classify() == Category::Data {
            return "data are neither an object nor a list of objects".to_owned();
        }
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        match text.strip_suffix(&place) {
            Some(what) if error.line() > 0 => {
                let (line, column) = match error.line() {
                    1 => (
                        self.to.line,
                        (self.to.column + error.column()).saturating_sub(self.by),
                    ),
                    line => (self.to.line + line - 1, error.column()),
                };
                format!("{what} at line {line} column {column}")
            }
            _ => text,
        }
    }

    /// The message for text that the scanner refuses and `serde_json` accepts: such a difference is a defect.
    fn unexplained(&self) -> String {
        format!(
            "expected value at line {} column {}",
            self.to.line,
            self.to.column + 1
        )
    }
}

/// Parses an array of objects as a node does: element by element, stopping at the first that isn't an object.
struct Documents;

impl<'de> Visitor<'de> for Documents {
    type Value = serde_json::Result<()>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a nonempty sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while let Some(raw) = seq.next_element::<&RawValue>()? {
            if let Err(error) = entries(raw.get()) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            entries.push((key, map.next_value()?));
        }
        Ok(entries)
    }
}

/// A key that is borrowed if it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
