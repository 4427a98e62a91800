//! Strategies: how a document gets its slot.
//!
//! By *hash* and by *range*, its id tells. By *field*, the value of a field tells, so that all documents of a value lie together,
//! and an id alone doesn't say where its document is.
//!
//! By *hash*, all slots are alike. By *range*, boundaries cut the ids in their order into ranges; each range has an interval of
//! slots, and the hash chooses among them. So every strategy ends in a slot, and slots are moved in the same way whatever it is.
//!
//! Ids are ordered so: integers before all other texts, integers by value, texts byte by byte. An id is an integer if its
//! canonical text is that of a 64-bit integer: `42` and `"42"`, but not `"042"`.
//!
//! Where documents are follows from this, so none of it can ever change.
//!
//! An index goes from one strategy to another by a third one, [`Change`], which lasts as long as its documents are moved.

mod change;

use std::sync::Arc;

use crate::document_id::{DocumentId, InvalidDocumentId};
use crate::slot::{SLOT_COUNT, Slot, hash_among, slot_of, slot_of_value};
use crate::value::{InvalidField, RoutingField, RoutingValue};

pub use change::{BadChange, Change};

/// The most boundaries that an index may have.
pub const MAX_BOUNDARIES: usize = 255;

/// An id by its place in the order of ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdKey {
    /// A 64-bit integer, signed or not.
    Integer(i128),
    /// Any other text.
    Text(Box<str>),
}

impl IdKey {
    /// The place of an id.
    #[must_use]
    pub fn of(id: &DocumentId<'_>) -> Self {
        // An id in JSON number syntax is an integer exactly if its text is canonical.
        match DocumentId::from_json(id.as_str()) {
            Ok(number) if number == *id => number
                .as_str()
                .parse()
                .map_or_else(|_| Self::Text(id.as_str().into()), Self::Integer),
            _ => Self::Text(id.as_str().into()),
        }
    }
}

impl std::fmt::Display for IdKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(number) => write!(formatter, "{number}"),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

/// Why boundaries aren't usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRanges {
    /// There is no boundary.
    #[error("at least one boundary is needed")]
    None,
    /// There are more than [`MAX_BOUNDARIES`].
    #[error("there are more than {MAX_BOUNDARIES} boundaries")]
    TooMany,
    /// A boundary isn't larger than the one before it.
    #[error(
        "`{0}` isn't larger than the boundary before it: integers come before other ids and are ordered by value, other ids byte by byte"
    )]
    Order(String),
}

/// Boundaries between ranges of ids: a boundary is the first id of the range that begins there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ranges(Arc<[IdKey]>);

/// One of the ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange<'a> {
    /// The first id; `None` for the first range, which has no lower end.
    pub from: Option<&'a IdKey>,
    /// The first id beyond it; `None` for the last range, which has no upper end.
    pub to: Option<&'a IdKey>,
    /// The first of its slots.
    pub first: Slot,
    /// How many slots it has; at least one.
    pub slots: u16,
}

impl Ranges {
    /// Ranges between these boundaries.
    ///
    /// # Errors
    /// There are none or too many, or they don't ascend.
    pub fn new(boundaries: Vec<IdKey>) -> Result<Self, BadRanges> {
        match boundaries.len() {
            0 => return Err(BadRanges::None),
            count if count > MAX_BOUNDARIES => return Err(BadRanges::TooMany),
            _ => {}
        }
        let pairs = boundaries.iter().zip(boundaries.iter().skip(1));
        for (one, next) in pairs {
            if one >= next {
                return Err(BadRanges::Order(next.to_string()));
            }
        }
        Ok(Self(boundaries.into()))
    }

    /// The boundaries, ascending.
    #[must_use]
    pub fn boundaries(&self) -> &[IdKey] {
        &self.0
    }

    /// All ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = IdRange<'_>> {
        (0..=self.0.len()).map(|place| self.range(place))
    }

    /// The slot of a document.
    #[must_use]
    pub fn slot_of(&self, id: &DocumentId<'_>) -> Slot {
        let key = IdKey::of(id);
        let range = self.range(self.0.partition_point(|boundary| *boundary <= key));
        Slot(range.first.0 + hash_among(id, range.slots))
    }

    fn range(&self, place: usize) -> IdRange<'_> {
        let (first, end) = (self.first_slot(place), self.first_slot(place + 1));
        IdRange {
            from: place.checked_sub(1).and_then(|before| self.0.get(before)),
            to: self.0.get(place),
            first: Slot(first),
            slots: end.saturating_sub(first).max(1),
        }
    }

    /// The first slot of a range: intervals differ by at most one slot.
    fn first_slot(&self, place: usize) -> u16 {
        let count = u64::try_from(self.0.len() + 1).unwrap_or(u64::MAX);
        let place = u64::try_from(place).unwrap_or(u64::MAX).min(count);
        u16::try_from(place * u64::from(SLOT_COUNT) / count).unwrap_or(SLOT_COUNT)
    }
}

/// How documents get their slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// The hash of the id.
    #[default]
    Hash,
    /// The range that holds the id, and the hash within it.
    Range(Ranges),
    /// The hash of the value of this field, which every document must have.
    Field(RoutingField),
    /// The old and the new owner, while the index goes from one of the others to another. Filters never meet it.
    Change(Arc<Change>),
}

impl Strategy {
    /// The slot of the document with this id; `None` if its id doesn't tell.
    #[must_use]
    pub fn slot_of(&self, id: &DocumentId<'_>) -> Option<Slot> {
        match self {
            Self::Hash => Some(slot_of(id)),
            Self::Range(ranges) => Some(ranges.slot_of(id)),
            Self::Field(_) => None,
            Self::Change(change) => match change.field() {
                None => change.slot_of(id, None),
                Some(_) => None,
            },
        }
    }

    /// The slot of a stored document with this id and this value of the routing field; `None` if it lacks what tells.
    #[must_use]
    pub fn slot_of_document(
        &self,
        id: &DocumentId<'_>,
        value: Option<&RoutingValue>,
    ) -> Option<Slot> {
        match self {
            Self::Hash | Self::Range(_) => self.slot_of(id),
            Self::Field(_) => value.map(slot_of_value),
            Self::Change(change) => change.slot_of(id, value),
        }
    }

    /// The field whose value tells the slot, during a change together with the id; `None` if the id alone does.
    #[must_use]
    pub fn field(&self) -> Option<&RoutingField> {
        match self {
            Self::Hash | Self::Range(_) => None,
            Self::Field(field) => Some(field),
            Self::Change(change) => change.field(),
        }
    }

    /// The name in the API: `hash`, `range` or `field`; during a change, the one before it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Range(_) => "range",
            Self::Field(_) => "field",
            Self::Change(change) => change.old().strategy().name(),
        }
    }

    /// The boundaries; empty unless documents are placed by range. During a change, those before it.
    #[must_use]
    pub fn boundaries(&self) -> &[IdKey] {
        match self {
            Self::Hash | Self::Field(_) => &[],
            Self::Range(ranges) => ranges.boundaries(),
            Self::Change(change) => change.old().strategy().boundaries(),
        }
    }
}

/// Why a text isn't a strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStrategy {
    /// No strategy has this name.
    #[error(
        "unknown strategy `{0}`: expected `hash`, or `range:` and boundaries, separated by commas, or `field:` and the name of a field"
    )]
    Unknown(String),
    /// A boundary can't be the id of a document.
    #[error("`{0}`: {1}")]
    Boundary(String, InvalidDocumentId),
    /// The boundaries aren't usable.
    #[error(transparent)]
    Ranges(#[from] BadRanges),
    /// The name can't be that of a routing field.
    #[error(transparent)]
    Field(#[from] InvalidField),
}

impl std::str::FromStr for Strategy {
    type Err = BadStrategy;

    /// Reads `hash`, `range:` and the boundaries (`range:1000,2000,m`), or `field:` and a name (`field:tenant`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "hash" {
            return Ok(Self::Hash);
        }
        if let Some(name) = text.strip_prefix("field:") {
            return Ok(Self::Field(RoutingField::new(name)?));
        }
        let Some(list) = text.strip_prefix("range:") else {
            return Err(BadStrategy::Unknown(text.to_owned()));
        };
        let key = |text: &str| match DocumentId::from_text(text) {
            Ok(id) => Ok(IdKey::of(&id)),
            Err(error) => Err(BadStrategy::Boundary(text.to_owned(), error)),
        };
        let boundaries = list.split(',').map(|text| key(text.trim()));
        let boundaries = boundaries.collect::<Result<Vec<_>, _>>()?;
        Ok(Self::Range(Ranges::new(boundaries)?))
    }
}
