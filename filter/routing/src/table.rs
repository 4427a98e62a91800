//! The routing table: all placements, with an epoch and a lease. The merger owns it, and each filter holds a copy.
//!
//! It is sent as JSON in which indexes with the same slots share a *layout*, so that thousands of small tenants' indexes
//! need little space:
//!
//! ```json
//! {"epoch": 7, "leaseMs": 3000,
//!  "layouts": [{"shards": [0, 1, 2], "slots": "ABCAACB…"}, {"shards": [1]}],
//!  "indexes": {"movies": {"layout": 0, "primaryKey": "id", "directWrites": true}}}
//! ```
//!
//! A layout's `slots` holds, for each slot, a position in `shards` in digits of base 64 (`A-Z a-z 0-9 - _`): one digit for
//! up to 64 shards, two for more, none for one shard. Its `ranges`, if there are any, are the boundaries between ranges of ids
//! for documents that are placed by range, as texts, ascending. Its `field`, if there is one, is the field whose value places
//! documents; their ids then tell nothing. `origins` is present if not every page may read answers (`{"listed":
//! ["https://shop.example"]}` or `"none"`). A reader refuses a table with anything it doesn't know, and a filter without a
//! table sends everything to the merger: so an old filter is slow, but not wrong.

mod change;

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::cors::Origins;
use crate::document_id::DocumentId;
use crate::placement::{ShardId, SlotMap};
use crate::slot::SLOT_COUNT;
use crate::strategy::{IdKey, Ranges, Strategy};
use crate::value::RoutingField;

pub use change::{OtherTable, TableChange, TableNews};

/// A version of the routing table. Only ever grows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The largest table that is accepted, in bytes of JSON. Each of Envoy's workers holds a copy.
pub const MAX_TABLE_BYTES: usize = 16 * 1024 * 1024;

/// All placements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingTable {
    /// The version.
    pub epoch: Epoch,
    /// How long a filter may use the table after it asked for it, in milliseconds.
    pub lease_ms: u32,
    /// The origins whose pages may read answers.
    pub origins: Origins,
    /// The indexes by uid. The merger answers for any index that isn't here.
    pub indexes: HashMap<String, IndexRoute>,
}

/// Where one index is, and what may be sent there without the merger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRoute {
    /// The owner of each slot.
    pub slots: Arc<SlotMap>,
    /// The primary key, if the index has one yet.
    pub primary_key: Option<String>,
    /// True if reads that one shard can answer may go directly to it. False for an index whose answers need other indexes
    /// (foreign keys), and while its slots are being moved.
    pub direct_reads: bool,
    /// True if writes whose documents one shard owns may go directly to it: this needs a shard of one replica and a known primary key.
    pub direct_writes: bool,
}

impl IndexRoute {
    /// A route that allows direct reads and no direct writes.
    #[must_use]
    pub fn new(slots: Arc<SlotMap>) -> Self {
        Self {
            slots,
            primary_key: None,
            direct_reads: true,
            direct_writes: false,
        }
    }
}

/// Why a table was refused.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// More than [`MAX_TABLE_BYTES`].
    #[error("the routing table is larger than {MAX_TABLE_BYTES} bytes")]
    TooLarge,
    /// Not valid JSON for a table.
    #[error("the routing table can't be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A layout without shards, or with slots or ranges that don't fit.
    #[error("layout {0} of the routing table is malformed")]
    Layout(usize),
    /// An index names a layout that doesn't exist.
    #[error("index `{0}` of the routing table names a layout that isn't there")]
    UnknownLayout(String),
    /// Only a part of a table.
    #[error("this is a change of the routing table, and not the whole")]
    Change,
}

impl RoutingTable {
    /// The route of an index.
    #[must_use]
    pub fn get(&self, index_uid: &str) -> Option<&IndexRoute> {
        self.indexes.get(index_uid)
    }

    /// Writes the table as JSON; equal tables give equal texts.
    ///
    /// # Errors
    /// Never occurs; serde's functions require the type.
    pub fn to_json(&self) -> Result<String, TableError> {
        let sorted: BTreeMap<&String, &IndexRoute> = self.indexes.iter().collect();
        let (layouts, indexes) = written(sorted);
        let wire = WireTable {
            epoch: self.epoch,
            since: None,
            lease_ms: self.lease_ms,
            origins: self.origins.clone(),
            layouts,
            indexes,
            gone: Vec::new(),
        };
        Ok(serde_json::to_string(&wire)?)
    }

    /// Reads a table from JSON.
    ///
    /// # Errors
    /// Anything that isn't exactly a table: unknown fields, missing layouts, or too many bytes.
    pub fn from_json(json: &[u8]) -> Result<Self, TableError> {
        read(json)?.into_table()
    }
}

fn read(json: &[u8]) -> Result<WireTable, TableError> {
    if json.len() > MAX_TABLE_BYTES {
        return Err(TableError::TooLarge);
    }
    // All of the filter's JSON is read as text: the reader of bytes would be a second copy of the whole parser in the wasm.
    let text = std::str::from_utf8(json);
    let text = text.map_err(<serde_json::Error as serde::de::Error>::custom)?;
    Ok(serde_json::from_str(text)?)
}

/// Routes in the order of their uids, and the layouts that they share.
fn written<'a>(
    routes: impl IntoIterator<Item = (&'a String, &'a IndexRoute)>,
) -> (Vec<WireLayout>, BTreeMap<String, WireIndex>) {
    let mut positions: HashMap<&SlotMap, usize> = HashMap::new();
    let mut layouts = Vec::new();
    let mut indexes = BTreeMap::new();
    for (uid, route) in routes {
        let layout = *positions.entry(&*route.slots).or_insert_with(|| {
            layouts.push(WireLayout::from(&*route.slots));
            layouts.len() - 1
        });
        let index = WireIndex {
            layout,
            primary_key: route.primary_key.clone(),
            direct_reads: route.direct_reads,
            direct_writes: route.direct_writes,
        };
        indexes.insert(uid.clone(), index);
    }
    (layouts, indexes)
}

impl WireTable {
    fn into_table(self) -> Result<RoutingTable, TableError> {
        if self.since.is_some() || !self.gone.is_empty() {
            return Err(TableError::Change);
        }
        let indexes = routes(&self.layouts, self.indexes)?;
        Ok(RoutingTable {
            epoch: self.epoch,
            lease_ms: self.lease_ms,
            origins: self.origins,
            indexes,
        })
    }
}

/// The routes by uid; those with the same layout share its slots.
fn routes(
    layouts: &[WireLayout],
    indexes: BTreeMap<String, WireIndex>,
) -> Result<HashMap<String, IndexRoute>, TableError> {
    let layouts = layouts.iter().enumerate();
    let layouts = layouts.map(|(position, layout)| {
        let layout = layout.decode().map(Arc::new);
        layout.ok_or(TableError::Layout(position))
    });
    let layouts = layouts.collect::<Result<Vec<_>, _>>()?;
    let mut routes = HashMap::with_capacity(indexes.len());
    for (uid, index) in indexes {
        let Some(slots) = layouts.get(index.layout) else {
            return Err(TableError::UnknownLayout(uid));
        };
        let route = IndexRoute {
            slots: Arc::clone(slots),
            primary_key: index.primary_key,
            direct_reads: index.direct_reads,
            direct_writes: index.direct_writes,
        };
        routes.insert(uid, route);
    }
    Ok(routes)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireTable {
    epoch: Epoch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Epoch>,
    lease_ms: u32,
    #[serde(default, skip_serializing_if = "Origins::is_any")]
    origins: Origins,
    layouts: Vec<WireLayout>,
    indexes: BTreeMap<String, WireIndex>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireIndex {
    layout: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    primary_key: Option<String>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    direct_reads: bool,
    #[serde(default, skip_serializing_if = "is_no")]
    direct_writes: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireLayout {
    shards: Vec<ShardId>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    slots: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl From<&SlotMap> for WireLayout {
    fn from(map: &SlotMap) -> Self {
        let shards = map.shards().to_vec();
        let width = digits_for(shards.len());
        let mut slots = String::with_capacity(usize::from(SLOT_COUNT) * width);
        for owner in map.owners() {
            let mut position = shards.binary_search(owner).unwrap_or(0);
            for _ in 0..width {
                slots.push(char::from(
                    DIGITS.get(position % 64).copied().unwrap_or(b'A'),
                ));
                position /= 64;
            }
        }
        let boundaries = map.strategy().boundaries().iter();
        Self {
            shards,
            slots,
            ranges: boundaries.map(ToString::to_string).collect(),
            field: map.field().map(ToString::to_string),
        }
    }
}

impl WireLayout {
    fn decode(&self) -> Option<SlotMap> {
        Some(self.decode_owners()?.by(self.strategy()?))
    }

    fn strategy(&self) -> Option<Strategy> {
        match (&self.field, self.ranges.is_empty()) {
            (None, true) => return Some(Strategy::Hash),
            (Some(field), true) => return RoutingField::new(field).ok().map(Strategy::Field),
            (Some(_), false) => return None,
            (None, false) => {}
        }
        let key = |text: &String| Some(IdKey::of(&DocumentId::from_text(text).ok()?));
        let boundaries = self.ranges.iter().map(key).collect::<Option<Vec<_>>>()?;
        Some(Strategy::Range(Ranges::new(boundaries).ok()?))
    }

    fn decode_owners(&self) -> Option<SlotMap> {
        let width = digits_for(self.shards.len());
        if width == 0 {
            let only = self.shards.first().copied()?;
            return self.slots.is_empty().then(|| SlotMap::single(only));
        }
        let owners = self
            .slots
            .as_bytes()
            .chunks(width)
            .map(|digits| self.shards.get(position(digits)?).copied())
            .collect::<Option<Vec<_>>>()?;
        let whole = self.slots.len() == usize::from(SLOT_COUNT) * width;
        SlotMap::from_owners(owners).ok().filter(|_| whole)
    }
}

fn digits_for(shards: usize) -> usize {
    match shards {
        0 | 1 => 0,
        2..=64 => 1,
        _ => 2,
    }
}

/// The number written in digits of base 64, the lowest digit first.
fn position(digits: &[u8]) -> Option<usize> {
    digits.iter().rev().try_fold(0, |number, digit| {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        Some(number * 64 + usize::from(value))
    })
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_yes(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_no(value: &bool) -> bool {
    !*value
}
