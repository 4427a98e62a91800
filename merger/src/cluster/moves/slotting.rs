//! Which slot a stored document has. Whoever looks at documents on a shard asks here, whatever the index's strategy is. Pure.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use weft_routing::document_id::DocumentId;
use weft_routing::slot::Slot;
use weft_routing::strategy::Strategy;
use weft_routing::value::RoutingValue;

/// Tells the slots of an index's documents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slotting<'a> {
    strategy: &'a Strategy,
    /// The primary key.
    key: &'a str,
}

/// A document's id and its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) id: String,
    /// `None` if the document lacks what tells its slot.
    pub(crate) slot: Option<Slot>,
}

impl<'a> Slotting<'a> {
    /// For the documents of an index with this primary key.
    pub(crate) fn new(strategy: &'a Strategy, key: &'a str) -> Self {
        Self { strategy, key }
    }

    /// The strategy.
    pub(crate) fn strategy(&self) -> &'a Strategy {
        self.strategy
    }

    /// The primary key.
    pub(crate) fn key(&self) -> &'a str {
        self.key
    }

    /// Whether an id alone tells the slot, for as long as its document exists.
    pub(crate) fn is_by_id(&self) -> bool {
        self.strategy.field().is_none()
    }

    /// The fields that tell a document's id and slot.
    pub(crate) fn fields(&self) -> Vec<&'a str> {
        let field = self.strategy.field().map(|field| field.as_str());
        let field = field.filter(|field| *field != self.key);
        std::iter::once(self.key).chain(field).collect()
    }

    /// The id and the slot of a document, as a node prints it with these [`fields`](Self::fields) or more. `None` if it has no
    /// valid id.
    pub(crate) fn of(&self, document: &RawValue) -> Option<Told> {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(document.get()).ok()?;
        let id = DocumentId::from_json(fields.get(self.key)?.get()).ok()?;
        let field = self.strategy.field();
        let value = field.and_then(|field| fields.get(field.as_str()));
        Some(Told {
            slot: slot_told(self.strategy, &id, value.map(|value| value.get())),
            id: id.as_str().to_owned(),
        })
    }
}

/// The slot of the document with this id, whose routing field has this JSON `value`; `None` if it can't be told.
fn slot_told(strategy: &Strategy, id: &DocumentId<'_>, value: Option<&str>) -> Option<Slot> {
    let value = value.and_then(|json| RoutingValue::from_json(json).ok());
    strategy.slot_of_document(id, value.as_ref())
}

#[cfg(test)]
mod tests {
    use weft_routing::slot::{slot_of, slot_of_value};

    use super::*;

    #[test]
    fn a_document_has_the_slot_of_its_id_or_of_its_value() {
        let document = r#"{"id":"7","tenant":" ACME ","a":1}"#;
        let raw = RawValue::from_string(document.to_owned()).unwrap();
        let told = |strategy: &str| {
            let strategy: Strategy = strategy.parse().unwrap();
            Slotting::new(&strategy, "id").of(&raw).unwrap()
        };
        let by_id = slot_of(&DocumentId::from_text("7").unwrap());
        let by_value = slot_of_value(&RoutingValue::from_text("acme").unwrap());
        assert_ne!(by_id, by_value);
        assert_eq!(told("hash").slot, Some(by_id));
        assert_eq!(told("field:tenant").slot, Some(by_value));
        assert_eq!(told("field:other").slot, None);
        assert_eq!(told("field:tenant").id, "7");
    }
}
