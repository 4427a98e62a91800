//! Parses what a document has for one embedder: a list, `null`, or an object with `regenerate` and `embeddings`.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The shape of the value.
#[derive(Debug)]
pub(super) enum Shape<'a> {
    /// A list of vectors, or a single vector; `None` for `null`.
    Implicit(Option<&'a RawValue>),
    Explicit {
        regenerate: bool,
        embeddings: Option<&'a RawValue>,
    },
}

/// Parses the shape, or returns the error text.
pub(super) fn read<'a>(name: &str, raw: &'a RawValue) -> Result<Shape<'a>, String> {
    let read = raw.deserialize_any(Reader { name });
    match read.unwrap_or_else(|error| Err(format!("Could not parse `._vectors.{name}`: {error}"))) {
        Ok(Some(shape)) => Ok(shape),
        Ok(None) => Ok(Shape::Implicit(Some(raw))),
        Err(wrong) => Err(wrong),
    }
}

struct Reader<'n> {
    name: &'n str,
}

/// `None` means that the value is a list.
type Read<'a> = Result<Option<Shape<'a>>, String>;

impl Reader<'_> {
    fn of_kind<'a>(&self, kind: &str, value: impl fmt::Display) -> Read<'a> {
        let name = self.name;
        Err(format!(
            "Expected `._vectors.{name}` to be an array of floats, an array of arrays of floats, or an object with at least the \
             field `regenerate`, but got the {kind} `{value}`"
        ))
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Read<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map containing at least `regenerate`, or an array of floats`")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Ok(Some(Shape::Implicit(None))))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(self.of_kind("boolean", value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.of_kind("integer", value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.of_kind("integer", value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(self.of_kind("number", value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.of_kind("string", value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<&RawValue>()?.is_some() {}
        Ok(Ok(None))
    }

    // After an error, the rest of the object isn't read. The reader then reports an error of its own, as the engine does.
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let name = self.name;
        let (mut regenerate, mut embeddings) = (None, None);
        loop {
            let wrong = match fields.next_key::<&str>() {
                Ok(None) => break,
                Ok(Some("regenerate")) => match fields.next_value::<bool>() {
                    Ok(value) => {
                        regenerate = Some(value);
                        continue;
                    }
                    Err(error) => format!("Could not parse `._vectors.{name}.regenerate`: {error}"),
                },
                Ok(Some("embeddings")) => match fields.next_value::<&RawValue>() {
                    Ok(value) => {
                        embeddings = Some(value);
                        continue;
                    }
                    Err(error) => format!("Could not parse `._vectors.{name}.embeddings`: {error}"),
                },
                Ok(Some(other)) => format!(
                    "Unexpected field `._vectors.{name}.{other}`\n  - note: the allowed fields are `regenerate` and `embeddings`"
                ),
                Err(error) => format!("Could not parse a field at `._vectors.{name}`: {error}"),
            };
            return Ok(Err(wrong));
        }
        Ok(match regenerate {
            Some(regenerate) => Ok(Some(Shape::Explicit {
                regenerate,
                embeddings,
            })),
            None => Err(format!(
                "Missing field `._vectors.{name}.regenerate`\n  - note: `._vectors.{name}` must be an array of floats, an array of \
                 arrays of floats, or an object with field `regenerate`"
            )),
        })
    }
}
