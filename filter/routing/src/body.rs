//! Finds the document ids in a small body: enough to tell whether one shard owns them all.
//!
//! Only certain results count. Whatever a node might read differently (a document without an id, or with two, an invalid
//! id, a nested primary key, a syntax error) is [`Unclear`]. Such a request goes to the merger, which handles every case.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::document_id::DocumentId;
use crate::operation::Operation;
use crate::placement::{ShardId, SlotMap};

/// The formats in which ids can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/json`: one object, or an array.
    Json,
    /// `application/x-ndjson`: objects, one after the other.
    NdJson,
}

impl BodyFormat {
    /// The format that a `content-type` names, parameters ignored.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
            Some(Self::NdJson)
        } else {
            None
        }
    }
}

/// The body can't be judged here. The merger can judge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the documents' ids aren't clear from the body")]
pub struct Unclear;

/// How many shards own a body's documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentIds {
    /// One shard owns them all.
    One(ShardId),
    /// Several shards own them.
    Several,
}

/// Which shards own the documents that a body names.
///
/// # Errors
/// [`Unclear`] for anything but valid documents with valid ids, at least one.
pub fn owners(
    operation: Operation,
    format: BodyFormat,
    primary_key: &str,
    slots: &SlotMap,
    body: &[u8],
) -> Result<DocumentIds, Unclear> {
    let text = std::str::from_utf8(body).map_err(|_| Unclear)?;
    let mut owners = Owners { slots, found: None };
    match (operation, format) {
        (Operation::DeleteDocumentsBatch, BodyFormat::Json) => {
            parse(
                text,
                IdArray {
                    owners: &mut owners,
                },
            )?;
        }
        (Operation::ReplaceDocuments | Operation::UpdateDocuments, BodyFormat::Json) => {
            // A dot reaches into nested objects, which can be written in more than one way.
            if primary_key.contains('.') {
                return Err(Unclear);
            }
            parse(
                text,
                Documents {
                    primary_key,
                    owners: &mut owners,
                },
            )?;
        }
        (Operation::ReplaceDocuments | Operation::UpdateDocuments, BodyFormat::NdJson) => {
            if primary_key.contains('.') {
                return Err(Unclear);
            }
            let mut lines = serde_json::Deserializer::from_str(text);
            while lines.end().is_err() {
                let document = Document {
                    primary_key,
                    owners: &mut owners,
                };
                document.deserialize(&mut lines).map_err(|_| Unclear)?;
            }
        }
        _ => return Err(Unclear),
    }
    owners.found.ok_or(Unclear)
}

fn parse<'de>(text: &'de str, seed: impl DeserializeSeed<'de, Value = ()>) -> Result<(), Unclear> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    seed.deserialize(&mut deserializer).map_err(|_| Unclear)?;
    deserializer.end().map_err(|_| Unclear)
}

/// Collects the owners of ids, one id at a time.
struct Owners<'s> {
    slots: &'s SlotMap,
    found: Option<DocumentIds>,
}

impl Owners<'_> {
    fn add<E: serde::de::Error>(&mut self, raw_id: &RawValue) -> Result<(), E> {
        let id = DocumentId::from_json(raw_id.get()).map_err(E::custom)?;
        let shard = self.slots.shard_of(&id);
        let shard = shard.ok_or_else(|| E::custom("an id doesn't tell where its document lies"))?;
        self.found = Some(match self.found {
            None => DocumentIds::One(shard),
            Some(DocumentIds::One(known)) if known == shard => DocumentIds::One(shard),
            Some(_) => DocumentIds::Several,
        });
        Ok(())
    }
}

/// `[1, "two", 3]`
struct IdArray<'a, 's> {
    owners: &'a mut Owners<'s>,
}

impl<'de> DeserializeSeed<'de> for IdArray<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for IdArray<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of document ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<(), A::Error> {
        while let Some(id) = ids.next_element::<&RawValue>()? {
            self.owners.add(id)?;
        }
        Ok(())
    }
}

/// One document, or an array of them.
struct Documents<'a, 's> {
    primary_key: &'a str,
    owners: &'a mut Owners<'s>,
}

impl<'de> DeserializeSeed<'de> for Documents<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Documents<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a document or an array of documents")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        Document {
            primary_key: self.primary_key,
            owners: self.owners,
        }
        .visit_map(fields)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut documents: A) -> Result<(), A::Error> {
        let primary_key = self.primary_key;
        while documents
            .next_element_seed(Document {
                primary_key,
                owners: self.owners,
            })?
            .is_some()
        {}
        Ok(())
    }
}

/// One document.
struct Document<'a, 's> {
    primary_key: &'a str,
    owners: &'a mut Owners<'s>,
}

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        use serde::de::Error;
        let mut seen = false;
        while let Some(Key(name)) = fields.next_key::<Key<'de>>()? {
            if name == self.primary_key {
                if seen {
                    return Err(A::Error::custom("two ids"));
                }
                seen = true;
                let id: &RawValue = fields.next_value()?;
                self.owners.add(id)?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        if seen {
            Ok(())
        } else {
            Err(A::Error::custom("no id"))
        }
    }
}

/// A field's name, borrowed unless it is escaped.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
