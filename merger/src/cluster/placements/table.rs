//! The routing table that filters poll.

use std::sync::Arc;

use weft_routing::table::{Epoch, IndexRoute, RoutingTable};

use super::Placements;

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
            table.indexes.insert(placement.uid.clone(), route);
        }
        let json: Arc<str> = table.to_json().unwrap_or_default().into();
        state.table = Some(Arc::clone(&json));
        (epoch, json)
    }
}
