//! Which shard gets each document of a body whose index lies by a field.
//!
//! ```text
//! replacing:           the value of its field tells
//! updating, at first:  all documents stay together, and their ids are noted, since an update needn't name the field
//! updating, at last:   each goes to the shard that holds it; a new one to the shard that its value tells
//! ```
//!
//! Invariants: all documents with one id go to one shard, or the others are removed there afterwards ([`Owners`] says where each
//! id ends). A document that can't be placed refuses the whole batch, as one without an id does.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde_json::{Value, json};
use weft_routing::document_id::DocumentId;
use weft_routing::placement::{ShardId, SlotMap};
use weft_routing::slot::Slot;
use weft_routing::value::{InvalidValue, RoutingField, RoutingValue};

use crate::bounds::{NoRoom, Share};

/// About how many bytes of memory a document's id takes, beside its text.
const ENTRY_BYTES: u64 = 64;

/// Where a document lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) shard: ShardId,
    /// The value of its routing field, if it matters and is known.
    pub(crate) value: Option<RoutingValue>,
}

/// Where the documents with some ids lie.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    homes: HashMap<Box<str>, Home>,
    text_bytes: u64,
    /// By shard: the documents that it got before a later version got another home.
    superseded: BTreeMap<ShardId, HashSet<Box<str>>>,
    memory: Option<Share>,
}

impl Owners {
    /// Notes where a document lies.
    pub(crate) fn put(&mut self, id: &str, home: Home) {
        match self.homes.get_mut(id) {
            Some(known) => {
                if known.shard != home.shard {
                    let before = self.superseded.entry(known.shard).or_default();
                    before.insert(id.into());
                    if let Some(now) = self.superseded.get_mut(&home.shard) {
                        now.remove(id);
                    }
                }
                *known = home;
            }
            None => {
                self.text_bytes += id.len() as u64;
                self.homes.insert(id.into(), home);
            }
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Home> {
        self.homes.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.homes.len()
    }

    /// Whether the body has documents with the same id for different shards: their order counts.
    pub(crate) fn are_superseded(&self) -> bool {
        !self.superseded.is_empty()
    }

    /// How many documents a shard gets although a later version of the same body has another home.
    pub(crate) fn superseded_on(&self, shard: ShardId) -> u64 {
        self.superseded
            .get(&shard)
            .map_or(0, |ids| ids.len() as u64)
    }

    /// Whether a document lies on a shard, or was noted there before it was noted elsewhere.
    pub(crate) fn was_on(&self, id: &str, shard: ShardId) -> bool {
        let is_home = self.homes.get(id).is_some_and(|home| home.shard == shard);
        let before = || self.superseded.get(&shard);
        is_home || before().is_some_and(|ids| ids.contains(id))
    }

    /// All ids with the shards where they lie, in no certain order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, ShardId)> {
        let homes = self.homes.iter();
        homes.map(|(id, home)| (id.as_ref(), home.shard))
    }

    fn hold_memory(&mut self) -> Result<(), NoRoom> {
        let bytes = self.text_bytes + self.homes.len() as u64 * ENTRY_BYTES;
        self.memory
            .as_mut()
            .map_or(Ok(()), |share| share.resize(bytes))
    }
}

/// How documents find their shards.
#[derive(Debug)]
enum Manner {
    Replacing,
    Gathering,
    Updating {
        /// Where the documents lie that exist.
        found: Arc<Owners>,
        /// Whether new documents are left out.
        skips_creation: bool,
    },
}

/// Places the documents of one body.
#[derive(Debug)]
pub(super) struct ByField {
    field: RoutingField,
    manner: Manner,
    owners: Owners,
}

impl ByField {
    /// For whole documents. `memory` is for the ids.
    pub(super) fn replacing(field: &RoutingField, memory: Share) -> Self {
        let owners = Owners {
            memory: Some(memory),
            ..Owners::default()
        };
        Self {
            field: field.clone(),
            manner: Manner::Replacing,
            owners,
        }
    }

    /// For updates of documents that are looked for afterwards.
    pub(super) fn gathering(self) -> Self {
        Self {
            manner: Manner::Gathering,
            ..self
        }
    }

    /// For updates of documents that lie where they were found.
    pub(super) fn updating(self, found: Arc<Owners>, skips_creation: bool) -> Self {
        Self {
            manner: Manner::Updating {
                found,
                skips_creation,
            },
            ..self
        }
    }

    pub(super) fn field(&self) -> &RoutingField {
        &self.field
    }

    /// The shard of the next document, and whether that brings it to another slot. `value` is the JSON text of its routing field, if it
    /// has one.
    pub(super) fn place(
        &mut self,
        slots: &SlotMap,
        id: &str,
        value: Result<Option<&str>, Twice>,
    ) -> Result<(ShardId, Goes), Unplaced> {
        let first = slots.shards().first().copied().unwrap_or(ShardId(0));
        let unplaced = |why| Unplaced {
            id: id.to_owned(),
            field: self.field.clone(),
            why,
        };
        let named = || match value {
            Err(Twice) => Err(unplaced(Why::Twice)),
            Ok(None) => Err(unplaced(Why::Missing)),
            Ok(Some(json)) => {
                RoutingValue::from_json(json).map_err(|error| unplaced(Why::Invalid(error)))
            }
        };
        let (home, goes) = match &self.manner {
            Manner::Replacing => {
                let (shard, goes) = owner(slots, id, &named()?).unwrap_or((first, Goes::Unknown));
                (Home { shard, value: None }, goes)
            }
            Manner::Gathering => {
                let home = Home {
                    shard: first,
                    value: None,
                };
                (home, Goes::Unknown)
            }
            Manner::Updating {
                found,
                skips_creation,
            } => match self.owners.get(id).or_else(|| found.get(id)) {
                Some(home) => {
                    if value != Ok(None)
                        && let (named, Some(held)) = (named()?, &home.value)
                        && named != *held
                    {
                        let (held, named) = (held.clone(), named);
                        return Err(unplaced(Why::Changed { held, named }));
                    }
                    (home.clone(), Goes::Nowhere)
                }
                // A node leaves it out, whichever gets it.
                None if *skips_creation => return Ok((first, Goes::Nowhere)),
                None => {
                    let value = named()?;
                    let (shard, goes) = owner(slots, id, &value).unwrap_or((first, Goes::Unknown));
                    let value = Some(value);
                    (Home { shard, value }, goes)
                }
            },
        };
        let shard = home.shard;
        self.owners.put(id, home);
        Ok((shard, goes))
    }

    pub(super) fn hold_memory(&mut self) -> Result<(), NoRoom> {
        self.owners.hold_memory()
    }

    pub(super) fn into_owners(self) -> Owners {
        self.owners
    }
}

/// The shard and the slot of a document with this value. Known for every valid id.
fn owner(slots: &SlotMap, id: &str, value: &RoutingValue) -> Option<(ShardId, Goes)> {
    let id = DocumentId::from_text(id).ok()?;
    let shard = slots.shard_of_document(&id, Some(value))?;
    let slot = slots.strategy().slot_of_document(&id, Some(value));
    Some((shard, slot.map_or(Goes::Unknown, Goes::To)))
}

/// To which slot a write brings a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goes {
    To(Slot),
    /// It stays where it is, if it is there.
    Nowhere,
    /// It isn't known here, or the id tells.
    Unknown,
}

/// The routing field stands twice in a document whose node wouldn't say which one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Twice;

/// A document that no shard can get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unplaced {
    id: String,
    field: RoutingField,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    Missing,
    Twice,
    Invalid(InvalidValue),
    Changed {
        held: RoutingValue,
        named: RoutingValue,
    },
}

impl Unplaced {
    /// The error of the task, in the API's shape.
    pub(in crate::write) fn error(&self) -> Value {
        let Self { id, field, why } = self;
        let (code, message) = match why {
            Why::Missing => (
                "missing_sharding_field",
                format!(
                    "Document `{id}` doesn't have a `{field}` attribute, which tells where documents of the index lie."
                ),
            ),
            Why::Twice => (
                "invalid_sharding_field",
                format!("Document `{id}` has the `{field}` attribute twice."),
            ),
            Why::Invalid(error) => (
                "invalid_sharding_field",
                format!(
                    "Document `{id}` has an invalid `{field}` attribute, which tells where documents of the index lie: {error}."
                ),
            ),
            Why::Changed { held, named } => (
                "invalid_sharding_field",
                format!(
                    "Document `{id}` belongs to `{held}`: an update can't change its `{field}` to `{named}`. Replace the whole document instead."
                ),
            ),
        };
        json!({
            "message": message,
            "code": code,
            "type": "invalid_request",
            "link": format!("https://docs.meilisearch.com/errors#{code}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use weft_routing::strategy::Change;

    use super::*;
    use crate::bounds::Budget;

    #[test]
    fn while_the_strategy_changes_a_document_goes_by_its_id_and_its_value() {
        let shards = [ShardId(0), ShardId(1), ShardId(2)];
        let map = |strategy: &str| {
            let strategy = strategy.parse().unwrap();
            Arc::new(SlotMap::deal_by(&strategy, &shards).unwrap())
        };
        let (hash, by_tenant) = (map("hash"), map("field:tenant"));
        for (old, new) in [(&hash, &by_tenant), (&by_tenant, &hash)] {
            let change = Change::new(Arc::clone(old), Arc::clone(new)).unwrap();
            let change = Arc::new(change);
            let maps = [SlotMap::begun(&change), SlotMap::arrived(&change)];
            let field = maps[0].field().unwrap();
            for (slots, wanted) in maps.iter().zip([old, new]) {
                let mut placed = ByField::replacing(field, Budget::unbounded().share());
                for id in 0..50 {
                    let (id, value) = (id.to_string(), (id % 7).to_string());
                    let (shard, _) = placed.place(slots, &id, Ok(Some(&value))).unwrap();
                    let key = DocumentId::from_text(&id).unwrap();
                    let value = RoutingValue::from_text(&value).unwrap();
                    let owner = wanted.shard_of_document(&key, Some(&value));
                    assert_eq!(Some(shard), owner);
                }
                let lacks = placed.place(slots, "7", Ok(None)).unwrap_err();
                assert_eq!(lacks.error()["code"], "missing_sharding_field");
            }
        }
    }
}
