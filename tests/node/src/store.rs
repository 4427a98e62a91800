//! What a node remembers besides its indexes: tasks, the names of indexes, API keys, feature flags.
//!
//! One small ACID file. A record is JSON, so that it can be read and changed with the code.

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
/// Index uids and the folder and dates of each.
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

/// Some changes that take effect together, on disk when [`Changes::commit`] returns.
pub(crate) struct Changes(WriteTransaction);

impl Store {
    /// Opens the file, or makes it.
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

    /// Begins some changes; others wait until they are committed or dropped.
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

    /// Removes a record, if it is there.
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
