//! What has changed in the routing table since an epoch, for a filter that holds the table of that epoch.
//!
//! It is sent as a table is, with the routes that are new or others, and beside them `since`, the epoch that it builds on, and
//! `gone`, the indexes that aren't there any more:
//!
//! ```json
//! {"epoch": 9, "since": 7, "leaseMs": 3000, "layouts": [{"shards": [1]}], "indexes": {"books": {"layout": 0}}, "gone": ["films"]}
//! ```
//!
//! A filter says that it understands changes when it asks; an older one gets the whole table.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashSet;

use super::{Epoch, IndexRoute, RoutingTable, TableError, WireTable, read, routes, written};
use crate::cors::Origins;
use crate::placement::SlotMap;

/// A change of the routing table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableChange {
    /// The epoch of the table that it changes.
    pub since: Epoch,
    /// The epoch of the table that it makes.
    pub epoch: Epoch,
    /// As [`RoutingTable::lease_ms`].
    pub lease_ms: u32,
    /// As [`RoutingTable::origins`].
    pub origins: Origins,
    /// The routes that are new, or others than before.
    pub changed: BTreeMap<String, IndexRoute>,
    /// The indexes that have no route any more.
    pub gone: Vec<String>,
}

/// What a filter is told of the routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableNews {
    /// The whole table.
    Whole(RoutingTable),
    /// What has changed.
    Change(TableChange),
}

/// A change builds on another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the change of the routing table builds on epoch {}, and epoch {} is held", .since.0, .held.0)]
pub struct OtherTable {
    /// What it builds on.
    pub since: Epoch,
    /// What is there.
    pub held: Epoch,
}

impl TableChange {
    /// Writes the change as JSON.
    ///
    /// # Errors
    /// Never occurs; serde's functions require the type.
    pub fn to_json(&self) -> Result<String, TableError> {
        let (layouts, indexes) = written(&self.changed);
        let wire = WireTable {
            epoch: self.epoch,
            since: Some(self.since),
            lease_ms: self.lease_ms,
            origins: self.origins.clone(),
            layouts,
            indexes,
            gone: self.gone.clone(),
        };
        Ok(serde_json::to_string(&wire)?)
    }
}

impl TableNews {
    /// Reads what a merger answers.
    ///
    /// # Errors
    /// Anything that is neither a table nor a change of one.
    pub fn from_json(json: &[u8]) -> Result<Self, TableError> {
        let wire = read(json)?;
        let Some(since) = wire.since else {
            return wire.into_table().map(Self::Whole);
        };
        let changed = routes(&wire.layouts, wire.indexes)?.into_iter().collect();
        Ok(Self::Change(TableChange {
            since,
            epoch: wire.epoch,
            lease_ms: wire.lease_ms,
            origins: wire.origins,
            changed,
            gone: wire.gone,
        }))
    }
}

impl RoutingTable {
    /// Makes this the table that a change makes of it.
    ///
    /// # Errors
    /// The change builds on another table. Nothing is changed then.
    pub fn apply(&mut self, change: TableChange) -> Result<(), OtherTable> {
        let (since, held) = (change.since, self.epoch);
        if since != held || change.epoch < held {
            return Err(OtherTable { since, held });
        }
        let known = match change.changed.is_empty() {
            true => HashSet::new(),
            false => self.layouts(),
        };
        for uid in &change.gone {
            self.indexes.remove(uid);
        }
        for (uid, mut route) in change.changed {
            // Equal slots share one allocation, as in a table that is read as a whole.
            if let Some(slots) = known.get(&route.slots) {
                route.slots = Arc::clone(slots);
            }
            self.indexes.insert(uid, route);
        }
        self.epoch = change.epoch;
        self.lease_ms = change.lease_ms;
        self.origins = change.origins;
        Ok(())
    }

    /// All layouts, each once.
    fn layouts(&self) -> HashSet<Arc<SlotMap>> {
        let mut seen = HashSet::new();
        let slots = self.indexes.values().map(|route| &route.slots);
        let new = slots.filter(|slots| seen.insert(Arc::as_ptr(slots)));
        new.cloned().collect()
    }
}
