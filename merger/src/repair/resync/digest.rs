//! A document's content as one number. It is equal on two replicas if the documents are equal, and apart from rare collisions
//! only then.
//!
//! Nodes print a document's fields in different orders, so the order of fields doesn't count. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use weft_routing::document_id::DocumentId;
use weft_routing::slot::{SLOT_COUNT, Slot, slot_of};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// A document's id, slot and digest. The slot is that of the hash, whatever the index's strategy: replicas are compared by it,
/// and nothing is placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Print {
    pub(crate) id: String,
    pub(crate) slot: Slot,
    pub(crate) content: u64,
}

impl Print {
    /// The print of a document as a node prints it. `None` if it has no valid id; no node would have taken such a document.
    pub(crate) fn of(document: &RawValue, primary_key: &str) -> Option<Self> {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(document.get()).ok()?;
        let id = DocumentId::from_json(fields.get(primary_key)?.get()).ok()?;
        let content = fields.iter().fold(0_u64, |sum, (name, value)| {
            sum.wrapping_add(field(name, value))
        });
        Some(Self {
            slot: slot_of(&id),
            id: id.as_str().to_owned(),
            content,
        })
    }
}

impl Print {
    /// One number for the id and the content. The sum over some documents, however they are ordered, is their digest.
    pub(crate) fn whole(&self) -> u64 {
        Self::whole_of(&self.id, self.content)
    }

    /// The same, of an id and a content.
    pub(crate) fn whole_of(id: &str, content: u64) -> u64 {
        xxh3_64_with_seed(id.as_bytes(), content)
    }
}

fn field(name: &str, value: &RawValue) -> u64 {
    let seed = xxh3_64(name.as_bytes());
    // Nodes store vectors apart from the document and print their fields in any order.
    match name {
        "_vectors" => {
            let sorted = serde_json::from_str(value.get()).map(|mut value: Value| {
                value.sort_all_objects();
                value.to_string()
            });
            let text = sorted.unwrap_or_else(|_| value.get().to_owned());
            xxh3_64_with_seed(text.as_bytes(), seed)
        }
        _ => xxh3_64_with_seed(value.get().as_bytes(), seed),
    }
}

/// For each slot, one number over all of its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotDigests(Vec<u64>);

impl Default for SlotDigests {
    fn default() -> Self {
        Self(vec![0; usize::from(SLOT_COUNT)])
    }
}

impl SlotDigests {
    pub(crate) fn add(&mut self, print: &Print) {
        if let Some(digest) = self.0.get_mut(usize::from(print.slot.0)) {
            *digest = digest.wrapping_add(print.whole());
        }
    }

    /// A flag for each slot: true if the two differ in it.
    pub(crate) fn differing(&self, other: &Self) -> Vec<bool> {
        self.0.iter().zip(&other.0).map(|(a, b)| a != b).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(json: &str) -> Print {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        Print::of(&raw, "id").unwrap()
    }

    #[test]
    fn the_order_of_fields_does_not_count_and_everything_else_does() {
        let one = print(
            r#"{"id":1,"a":"x","b":[1,2],"_vectors":{"m":{"regenerate":false,"embeddings":[[1.0]]}}}"#,
        );
        let two = print(
            r#"{"b":[1,2],"_vectors":{"m":{"embeddings":[[1.0]],"regenerate":false}},"id":1,"a":"x"}"#,
        );
        assert_eq!(one, two);
        for other in [
            r#"{"id":1,"a":"x","b":[2,1],"_vectors":{"m":{"regenerate":false,"embeddings":[[1.0]]}}}"#,
            r#"{"id":1,"a":"x","b":[1,2],"_vectors":{"m":{"regenerate":true,"embeddings":[[1.0]]}}}"#,
            r#"{"id":1,"b":"x","a":[1,2],"_vectors":{"m":{"regenerate":false,"embeddings":[[1.0]]}}}"#,
            r#"{"id":1,"a":"x","b":[1,2]}"#,
        ] {
            assert_ne!(print(other).content, one.content, "{other}");
        }
    }

    #[test]
    fn digests_tell_in_which_slots_documents_differ() {
        let (mut one, mut two) = (SlotDigests::default(), SlotDigests::default());
        let (a, b) = (print(r#"{"id":1,"v":1}"#), print(r#"{"id":2,"v":1}"#));
        one.add(&a);
        one.add(&b);
        two.add(&b);
        two.add(&a);
        assert_eq!(one, two, "in any order");
        let changed = print(r#"{"id":2,"v":2}"#);
        let mut three = SlotDigests::default();
        three.add(&a);
        three.add(&changed);
        let differing = one.differing(&three);
        let slots: Vec<usize> = (0..differing.len())
            .filter(|slot| differing[*slot])
            .collect();
        assert_eq!(slots, [usize::from(b.slot.0)]);
    }
}
