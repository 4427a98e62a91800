//! The routing table that filters poll.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_routing::table::{Epoch, IndexRoute, RoutingTable, TableChange};

use super::{Placement, Placements, State};

/// From how many indexes on filters are told what has changed. A smaller table is sent whole.
const CHANGES_FROM: usize = 64;

impl Placements {
    /// The routing table in its wire form, with its epoch.
    pub fn table(&self) -> (Epoch, Arc<str>) {
        let mut state = self.lock();
        let epoch = Epoch(state.epoch);
        if let Some(table) = &state.table {
            return (epoch, Arc::clone(table));
        }
        let mut table = RoutingTable {
            epoch,
            lease_ms: self.lease_ms,
            origins: self.origins.clone(),
            ..RoutingTable::default()
        };
        for placement in state.placements.values() {
            if let Some(route) = self.route(&state, placement) {
                table.indexes.insert(placement.uid.clone(), route);
            }
        }
        let json: Arc<str> = table.to_json().unwrap_or_default().into();
        state.table = Some(Arc::clone(&json));
        (epoch, json)
    }

    /// What has changed in the table since an epoch, in its wire form. `None` if the whole table must be told: it is small, most of
    /// it has changed, or it isn't known what has.
    pub fn changes_since(&self, since: Epoch) -> Option<String> {
        let state = self.lock();
        if state.placements.len() < CHANGES_FROM || since.0 > state.epoch {
            return None;
        }
        let uids = state.history.after(since.0)?;
        if uids.len() > state.placements.len() / 2 {
            return None;
        }
        let (mut changed, mut gone) = (BTreeMap::new(), Vec::new());
        for uid in uids {
            let placement = state.placements.get(uid);
            match placement.and_then(|placement| self.route(&state, placement)) {
                Some(route) => drop(changed.insert(uid.to_owned(), route)),
                None => gone.push(uid.to_owned()),
            }
        }
        let change = TableChange {
            since,
            epoch: Epoch(state.epoch),
            lease_ms: self.lease_ms,
            origins: self.origins.clone(),
            changed,
            gone,
        };
        change.to_json().ok()
    }

    /// What filters are told of an index; `None` for one that they leave to the merger as if they didn't know it: while a strategy
    /// changes, filters could tell no document's shard.
    fn route(&self, state: &State, placement: &Placement) -> Option<IndexRoute> {
        if placement.slots.change().is_some() {
            return None;
        }
        let mut route = IndexRoute::new(Arc::clone(&placement.slots));
        route.primary_key.clone_from(&placement.primary_key);
        let directed = !state.undirected.contains_key(&placement.uid);
        let directed = directed && placement.unsettled.is_empty();
        route.direct_reads = directed && placement.deleted_by.is_none();
        route.direct_writes = self.direct_writes
            && directed
            && placement.deleted_by.is_none()
            && placement.primary_key.is_some()
            // Each document's routing field must be looked at.
            && placement.slots.field().is_none()
            && placement
                .shards()
                .iter()
                .all(|shard| state.single_replica.contains(shard));
        Some(route)
    }
}
