//! Decides which writes can be merged with others without risk.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::write::format::Format;

/// Whether a write's documents can't make the writes merged with it fail, as far as can be told before a node sees them. They
/// are parsed completely, since numbers out of range and values nested too deep are otherwise only refused by the indexer.
pub(in crate::write) fn is_harmless(format: Format, documents: &[u8]) -> bool {
    match format {
        Format::Json => {
            let array = [b"[", documents, b"]"].concat();
            serde_json::from_slice::<Vec<Plain>>(&array).is_ok()
        }
        Format::Ndjson => serde_json::Deserializer::from_slice(documents)
            .into_iter::<Plain>()
            .all(|document| document.is_ok()),
        Format::Csv { .. } => false,
    }
}

/// A document without any field that has special checks in the engine.
struct Plain;

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        while let Some(Name(name)) = fields.next_key()? {
            if name.starts_with("_vectors") || name.starts_with("_geo") {
                return Err(Error::custom("a field of the engine's own"));
            }
            fields.next_value::<Read>()?;
        }
        Ok(self)
    }
}

/// A field's name, copied only if it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Any value, checked as strictly as if it were kept (`serde::de::IgnoredAny` checks neither numbers nor escapes).
struct Read;

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Read {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        while fields.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_that_only_an_indexer_can_judge_go_alone() {
        let harmless = |text: &str| is_harmless(Format::Json, text.as_bytes());
        assert!(harmless(r#"{"id":1,"t":"a\n\u00e9"},{"id":2}"#));
        for text in [
            r#"{"id":1,"_geo":{"lat":1,"lng":2}}"#,
            r#"{"id":1,"_vectors":{}}"#,
            r#"{"id":1,"\u005fgeo":1}"#,
            r#"{"id":1,"t":"\ud800"}"#,
            r#"{"id":1,"n":1e999}"#,
            r#"{"id":1,"d":{"n":[1e999]}}"#,
            r#"{"id":1,"d":{"\ud800":1}}"#,
        ] {
            assert!(!harmless(text), "{text}");
        }
        assert!(!harmless(&format!(
            r#"{{"id":1,"d":{}{}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        )));
        assert!(is_harmless(Format::Ndjson, b"{\"id\":1}\n{\"id\":2}"));
    }
}
