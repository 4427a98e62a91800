//! What a node stores besides its indexes: tasks, the names of indexes, API keys and feature flags.
//!
//! The store is one small ACID file. Records are JSON, so they can be read without this program and changed together with the code.

use std::path::Path;

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::errors::ApiResult;

/// A table: keys are text, values are JSON.
pub(crate) type Table = TableDefinition<'static, &'static str, &'static [u8]>;

/// Tasks by their uid, written with leading zeros so that they sort.
pub(crate) const TASKS: Table = TableDefinition::new("tasks");
/// By index uid: the folder and the dates of each index.
pub(crate) const INDEXES: Table = TableDefinition::new("indexes");
/// API keys by their uid.
pub(crate) const KEYS: Table = TableDefinition::new("keys");
/// Single records: counters, feature flags.
pub(crate) const SINGLES: Table = TableDefinition::new("singles");

const CACHE_BYTES: usize = 4 << 20;

/// The file.
pub(crate) struct Store {
    database: Database,
}

/// Several changes that take effect together. They are on disk when [`Changes::commit`] returns.
pub(crate) struct Changes(WriteTransaction);

impl Store {
    /// Opens the file, or creates it.
    pub(crate) fn open(path: &Path) -> ApiResult<Store> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)?;
        let start = database.begin_write()?;
        for table in [TASKS, INDEXES, KEYS, SINGLES] {
            start.open_table(table)?;
        }
        start.commit()?;
        Ok(Store { database })
    }

    /// All records of a table, in the order of their keys.
    pub(crate) fn all<T: DeserializeOwned>(&self, table: Table) -> ApiResult<Vec<(String, T)>> {
        let read = self.database.begin_read()?;
        let mut records = Vec::new();
        for entry in read.open_table(table)?.iter()? {
            let (key, value) = entry?;
            records.push((
                key.value().to_owned(),
                serde_json::from_slice(value.value())?,
            ));
        }
        Ok(records)
    }

    /// Begins a set of changes. Other sets wait until it is committed or dropped.
    pub(crate) fn change(&self) -> ApiResult<Changes> {
        let mut write = self.database.begin_write()?;
        write
            .set_durability(Durability::Immediate)
            .map_err(crate::errors::ApiError::internal)?;
        Ok(Changes(write))
    }

    /// Writes one record.
    pub(crate) fn put<T: Serialize>(&self, table: Table, key: &str, value: &T) -> ApiResult<()> {
        let mut changes = self.change()?;
        changes.put(table, key, value)?;
        changes.commit()
    }

    /// Removes one record.
    pub(crate) fn remove(&self, table: Table, key: &str) -> ApiResult<()> {
        let mut changes = self.change()?;
        changes.remove(table, key)?;
        changes.commit()
    }
}

impl Changes {
    /// Writes a record.
    pub(crate) fn put<T: Serialize>(
        &mut self,
        table: Table,
        key: &str,
        value: &T,
    ) -> ApiResult<()> {
        let value = serde_json::to_vec(value)?;
        self.0.open_table(table)?.insert(key, value.as_slice())?;
        Ok(())
    }

    /// Removes a record, if it exists.
    pub(crate) fn remove(&mut self, table: Table, key: &str) -> ApiResult<()> {
        self.0.open_table(table)?.remove(key)?;
        Ok(())
    }

    /// Makes the changes durable.
    pub(crate) fn commit(self) -> ApiResult<()> {
        self.0.commit()?;
        Ok(())
    }
}
