//! A part of a state that was read elsewhere, for a merger that only reads.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;

use super::{Change, Store, StoreError, Versioned};

/// Entries in memory. Nothing can be changed.
pub struct Snapshot(BTreeMap<String, Versioned>);

impl Snapshot {
    /// These entries.
    pub fn of(entries: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        // Versions are for those who change something.
        let versioned = |value| Versioned { version: 1, value };
        let entries = entries.into_iter();
        Self(
            entries
                .map(|(key, value)| (key, versioned(value)))
                .collect(),
        )
    }
}

impl Store for Snapshot {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(async move { Ok(self.0.get(key).cloned()) })
    }

    fn commit(&self, _: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Err(StoreError::NotLeader) })
    }

    fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        Box::pin(async move {
            let from = self.0.range(prefix.to_owned()..);
            let found = from.take_while(|(key, _)| key.starts_with(prefix));
            Ok(found
                .map(|(key, entry)| (key.clone(), entry.clone()))
                .collect())
        })
    }
}
