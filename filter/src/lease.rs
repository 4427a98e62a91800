//! The routing table as this VM holds it: a copy that is valid until its lease expires.
//!
//! The filter counts the lease from the time it sent the question, and the merger from the time it answered. So the merger
//! always waits longer than any filter uses the table.

use std::rc::Rc;

use weft_routing::table::OtherTable;
use weft_routing::{Epoch, RoutingTable, TableChange};

/// A table, and until when it may be used, in milliseconds of a monotonic clock.
#[derive(Debug, Default)]
pub struct LeasedTable {
    table: Option<Rc<RoutingTable>>,
    valid_until_ms: u64,
}

impl LeasedTable {
    /// The table, unless its lease has expired.
    #[must_use]
    pub fn at(&self, now_ms: u64) -> Option<&Rc<RoutingTable>> {
        self.table.as_ref().filter(|_| now_ms < self.valid_until_ms)
    }

    /// The epoch of the copy, valid or not.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.table.as_ref().map(|table| table.epoch)
    }

    /// Stores a new table, requested at `asked_ms`.
    pub fn replace(&mut self, table: RoutingTable, asked_ms: u64, max_lease_ms: u32) {
        self.table = Some(Rc::new(table));
        self.valid_until_ms = 0;
        self.renew(asked_ms, max_lease_ms);
    }

    /// Changes the table, as the merger told in its answer to a request sent at `asked_ms`.
    ///
    /// # Errors
    /// The change builds on another table. Table and lease stay as they were.
    pub fn change(
        &mut self,
        change: TableChange,
        asked_ms: u64,
        max_lease_ms: u32,
    ) -> Result<(), OtherTable> {
        match &mut self.table {
            // A request that holds the table goes on with the one that it has.
            Some(table) => Rc::make_mut(table).apply(change)?,
            None => {
                let (since, held) = (change.since, Epoch(0));
                return Err(OtherTable { since, held });
            }
        }
        self.valid_until_ms = 0;
        self.renew(asked_ms, max_lease_ms);
        Ok(())
    }

    /// Renews the lease: the merger confirmed the copy in its answer to a request sent at `asked_ms`.
    pub fn renew(&mut self, asked_ms: u64, max_lease_ms: u32) {
        if let Some(table) = &self.table {
            let lease_ms = u64::from(table.lease_ms.min(max_lease_ms));
            self.valid_until_ms = self.valid_until_ms.max(asked_ms.saturating_add(lease_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lease_ms: u32) -> RoutingTable {
        RoutingTable {
            origins: weft_routing::Origins::Any,
            lease_ms,
            ..RoutingTable::default()
        }
    }

    #[test]
    fn a_lease_counts_from_the_question_and_is_bounded() {
        let mut leased = LeasedTable::default();
        assert!(leased.at(0).is_none());
        leased.replace(table(1000), 100, 5000);
        assert!(leased.at(1099).is_some());
        assert!(leased.at(1100).is_none());
        leased.renew(900, 500);
        assert!(leased.at(1399).is_some());
        assert!(leased.at(1400).is_none());
    }

    #[test]
    fn a_late_confirmation_doesnt_shorten_the_lease() {
        let mut leased = LeasedTable::default();
        leased.replace(table(1000), 500, 5000);
        leased.renew(100, 5000);
        assert!(leased.at(1499).is_some());
    }

    #[test]
    fn a_change_of_another_table_leaves_table_and_lease_as_they_were() {
        let change = |since, epoch| TableChange {
            since: Epoch(since),
            epoch: Epoch(epoch),
            lease_ms: 1000,
            ..TableChange::default()
        };
        let mut leased = LeasedTable::default();
        assert!(leased.change(change(0, 1), 0, 5000).is_err());
        leased.replace(table(1000), 100, 5000);
        let held = leased.at(0).map(Rc::clone).unwrap();
        assert!(leased.change(change(1, 2), 900, 5000).is_err());
        assert_eq!(leased.epoch(), Some(Epoch(0)));
        assert!(leased.at(1100).is_none());
        leased.change(change(0, 2), 900, 5000).unwrap();
        assert_eq!(leased.epoch(), Some(Epoch(2)));
        assert!(leased.at(1899).is_some());
        assert!(leased.at(1900).is_none());
        assert_eq!(held.epoch, Epoch(0), "a request goes on with its table");
    }

    #[test]
    fn a_new_table_brings_its_own_lease() {
        let mut leased = LeasedTable::default();
        leased.replace(table(60_000), 0, 60_000);
        leased.replace(table(10), 100, 60_000);
        assert!(leased.at(110).is_none());
    }
}
