//! The indexes of a node: their names, and each one's folder and open environment.
//!
//! A name is not tied to the data: an index's folder is named by a random number, so swapping and renaming move no data. An
//! index is opened when it is first used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use milli_core::Index;
use milli_core::heed::EnvOpenOptions;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::errors::{ApiError, ApiResult, Code};
use crate::queue::Swap;
use crate::store::{INDEXES, Store};

/// The most concurrent readers of one index.
const MAX_READERS: u32 = 256;

/// All indexes.
pub(crate) struct Indexes {
    store: Arc<Store>,
    folder: PathBuf,
    map_size: usize,
    entries: RwLock<BTreeMap<String, Entry>>,
}

struct Entry {
    record: IndexRecord,
    open: Option<Index>,
}

/// What is stored about an index besides its content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct IndexRecord {
    /// The name of its folder.
    pub(crate) folder: Uuid,
    /// The ranking rules as the client wrote them, if they aren't the default: the engine has one rule, `attribute`, for
    /// the protocol's `attributeRank` and `wordPosition`.
    #[serde(default)]
    pub(crate) ranking_rules: Option<Vec<String>>,
}

impl Indexes {
    /// Loads the list of indexes, and removes folders that belong to no index.
    pub(crate) fn open(store: Arc<Store>, folder: &Path, map_size: usize) -> ApiResult<Indexes> {
        std::fs::create_dir_all(folder)?;
        let records: Vec<(String, IndexRecord)> = store.all(INDEXES)?;
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.parse::<Uuid>().ok());
            if !records
                .iter()
                .any(|(_, record)| Some(record.folder) == name)
            {
                std::fs::remove_dir_all(path)?;
            }
        }
        let entries = records
            .into_iter()
            .map(|(uid, record)| (uid, Entry { record, open: None }))
            .collect();
        Ok(Indexes {
            store,
            folder: folder.to_owned(),
            map_size,
            entries: RwLock::new(entries),
        })
    }

    /// The uids of all indexes, in alphabetical order.
    pub(crate) fn uids(&self) -> Vec<String> {
        self.read().keys().cloned().collect()
    }

    /// True if an index of that name exists.
    pub(crate) fn exists(&self, uid: &str) -> bool {
        self.read().contains_key(uid)
    }

    /// Opens an index.
    pub(crate) fn get(&self, uid: &str) -> ApiResult<Index> {
        match self.read().get(uid) {
            None => return Err(ApiError::index_not_found(uid)),
            Some(Entry {
                open: Some(index), ..
            }) => return Ok(index.clone()),
            Some(_) => {}
        }
        let mut entries = self.write();
        let entry = entries
            .get_mut(uid)
            .ok_or_else(|| ApiError::index_not_found(uid))?;
        if let Some(index) = &entry.open {
            return Ok(index.clone());
        }
        let index = self.open_folder(entry.record.folder)?;
        entry.open = Some(index.clone());
        Ok(index)
    }

    /// The record of an index.
    pub(crate) fn record(&self, uid: &str) -> ApiResult<IndexRecord> {
        self.read()
            .get(uid)
            .map(|entry| entry.record.clone())
            .ok_or_else(|| ApiError::index_not_found(uid))
    }

    /// Changes the record of an index.
    pub(crate) fn set_record(&self, uid: &str, record: IndexRecord) -> ApiResult<()> {
        let mut entries = self.write();
        let entry = entries
            .get_mut(uid)
            .ok_or_else(|| ApiError::index_not_found(uid))?;
        self.store.put(INDEXES, uid, &record)?;
        entry.record = record;
        Ok(())
    }

    /// Creates an empty index.
    pub(crate) fn create(&self, uid: &str) -> ApiResult<Index> {
        let mut entries = self.write();
        if entries.contains_key(uid) {
            return Err(already_exists(uid));
        }
        let record = IndexRecord {
            folder: Uuid::new_v4(),
            ranking_rules: None,
        };
        let index = self.open_folder(record.folder)?;
        self.store.put(INDEXES, uid, &record)?;
        entries.insert(
            uid.to_owned(),
            Entry {
                record,
                open: Some(index.clone()),
            },
        );
        Ok(index)
    }

    /// The index of that name; created if it doesn't exist and `may_create` is set.
    pub(crate) fn get_or_create(&self, uid: &str, may_create: bool) -> ApiResult<Index> {
        if may_create && !self.exists(uid) {
            self.create(uid)
        } else {
            self.get(uid)
        }
    }

    /// Removes an index. Searches that are running on it finish normally.
    pub(crate) fn delete(&self, uid: &str) -> ApiResult<()> {
        let mut entries = self.write();
        let entry = entries
            .get(uid)
            .ok_or_else(|| ApiError::index_not_found(uid))?;
        let folder = entry.record.folder;
        self.store.remove(INDEXES, uid)?;
        entries.remove(uid);
        drop(entries);
        std::fs::remove_dir_all(self.path(folder))?;
        Ok(())
    }

    /// Swaps the names of indexes, all pairs or none.
    pub(crate) fn swap(&self, swaps: &[Swap]) -> ApiResult<()> {
        let mut entries = self.write();
        check_swaps(&entries, swaps)?;
        let mut changes = self.store.change()?;
        for Swap {
            indexes: (left, right),
            ..
        } in swaps
        {
            let pair = (entries.remove(left), entries.remove(right));
            for (uid, entry) in [(right, pair.0), (left, pair.1)] {
                match entry {
                    Some(entry) => {
                        changes.put(INDEXES, uid, &entry.record)?;
                        entries.insert(uid.clone(), entry);
                    }
                    None => changes.remove(INDEXES, uid)?,
                }
            }
        }
        changes.commit()
    }

    fn open_folder(&self, folder: Uuid) -> ApiResult<Index> {
        let path = self.path(folder);
        std::fs::create_dir_all(&path)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(self.map_size).max_readers(MAX_READERS);
        Ok(Index::new(options, path, true)?)
    }

    fn path(&self, folder: Uuid) -> PathBuf {
        self.folder.join(folder.to_string())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Entry>> {
        self.entries
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Entry>> {
        self.entries
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn already_exists(uid: &str) -> ApiError {
    ApiError::new(
        Code::IndexAlreadyExists,
        format!("Index `{uid}` already exists."),
    )
}

fn check_swaps(entries: &BTreeMap<String, Entry>, swaps: &[Swap]) -> ApiResult<()> {
    let mut missing = Vec::new();
    for Swap {
        indexes: (left, right),
        rename,
    } in swaps
    {
        if *rename && entries.contains_key(right) {
            return Err(already_exists(right));
        }
        let needed = if *rename {
            vec![left]
        } else {
            vec![left, right]
        };
        missing.extend(
            needed
                .into_iter()
                .filter(|uid| !entries.contains_key(*uid))
                .cloned(),
        );
    }
    missing.sort_unstable();
    missing.dedup();
    match missing.as_slice() {
        [] => Ok(()),
        [uid] => Err(ApiError::index_not_found(uid)),
        uids => {
            let names: Vec<String> = uids.iter().map(|uid| format!("`{uid}`")).collect();
            Err(ApiError::new(
                Code::IndexNotFound,
                format!("Indexes {} not found.", names.join(", ")),
            ))
        }
    }
}
