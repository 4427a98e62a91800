//! The list of a backup's files: `manifest.json`. It is written last and in one step, so that a folder holds a whole backup or the
//! one before.
//!
//! Every other file is named for its SHA-256 and never changed, so two backups in one folder share what is equal. The manifest
//! holds a SHA-256 of itself. Names in it come from somebody's disk: only those that Weft would have chosen are opened.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use weft_routing::is_index_uid;
use weft_routing::slot::SLOT_COUNT;

/// The version of the format that this program writes.
pub(super) const FORMAT: u32 = 1;
/// The manifest's name in the folder.
pub(super) const MANIFEST: &str = "manifest.json";
/// The largest manifest that is read, in bytes.
const MAX_BYTES: u64 = 512 << 20;
/// The longest part of a folder's name that is an index's uid.
const MAX_NAME: usize = 80;

/// Why a backup can't be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Damage {
    /// There is no manifest.
    #[error("{} holds no whole backup: it has no {MANIFEST}", .0.display())]
    None(PathBuf),
    /// The manifest isn't what was written.
    #[error("{MANIFEST} is damaged: {0}")]
    Manifest(String),
    /// The manifest is of a later version.
    #[error(
        "the backup has format {0}, and this program reads formats up to {FORMAT}: use the version of weft that made it, or a later one"
    )]
    Newer(u64),
    /// A file isn't there.
    #[error("{0} is missing")]
    Missing(String),
    /// A file has another size.
    #[error("{path} is damaged: it has {found} bytes, and {expected} were written")]
    Size {
        /// The file.
        path: String,
        /// Its size.
        found: u64,
        /// The size that was written.
        expected: u64,
    },
    /// A file has another content.
    #[error("{0} is damaged: its SHA-256 isn't the one that was written down")]
    Content(String),
    /// A file can't be understood, though its SHA-256 is right.
    #[error("{path} can't be read: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// The disk failed.
    #[error("{path} can't be read: {source}")]
    Disk {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileEntry {
    /// The path from the backup's folder, with `/`.
    pub path: String,
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The documents of some slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SlotsEntry {
    /// The group of slots: 0 for the first `slotsPerFile` slots, and so on.
    pub group: u16,
    /// How many documents there are.
    pub documents: u64,
    /// The digest of the documents: it doesn't depend on how they are printed and ordered.
    pub digest: String,
    /// How many bytes the documents have when they are unpacked.
    pub unpacked: u64,
    /// The file.
    #[serde(flatten)]
    pub file: FileEntry,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IndexEntry {
    /// The uid.
    pub uid: String,
    /// The primary key; none if no document was ever added.
    pub primary_key: Option<String>,
    /// On how many shards it was to lie; none for all.
    pub shard_count: Option<u16>,
    /// Its own write mode.
    pub write_mode: Option<String>,
    /// How its documents got their shards, as `sharding` of `POST /indexes` says it. Missing where an earlier version made the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Map<String, Value>>,
    /// How many documents it has.
    pub documents: u64,
    /// Its settings.
    pub settings: FileEntry,
    /// How many slots share a file.
    pub slots_per_file: u16,
    /// The files with documents.
    pub files: Vec<SlotsEntry>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// The backup's name.
    pub id: String,
    /// When it was made, by the clock of the machine that made it (RFC 3339).
    pub created_at: String,
    /// The version of `weft` that made it.
    pub weft: String,
    /// The URL of the cluster.
    pub source: String,
    /// The moment: the last task that the cluster had taken.
    pub last_task: Option<u32>,
    /// How long writers waited for the moment, in milliseconds.
    pub pause_ms: u64,
    /// Keys, features and webhooks.
    pub state: FileEntry,
    /// The indexes, in the order of their uids.
    pub indexes: Vec<IndexEntry>,
}

impl Manifest {
    /// The manifest as it is written.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).unwrap_or_default();
        let mut fields = Map::new();
        fields.insert("sha256".to_owned(), Value::from(sum(&value)));
        fields.insert("backup".to_owned(), value);
        let mut bytes = serde_json::to_vec_pretty(&fields).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// It isn't what was written, or is of a later version, or names what Weft would not have named.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Damage> {
        let damaged = |why: &str| Damage::Manifest(why.to_owned());
        let fields: Value =
            serde_json::from_slice(bytes).map_err(|error| damaged(&error.to_string()))?;
        let backup = fields
            .get("backup")
            .ok_or_else(|| damaged("it has no `backup`"))?;
        let format = backup.get("format").and_then(Value::as_u64);
        match format {
            None => return Err(damaged("it has no format")),
            Some(format) if format > u64::from(FORMAT) => return Err(Damage::Newer(format)),
            Some(_) => {}
        }
        if fields.get("sha256").and_then(Value::as_str) != Some(&sum(backup)) {
            return Err(damaged("its SHA-256 isn't the one that it names"));
        }
        let manifest: Self =
            serde_json::from_value(backup.clone()).map_err(|error| damaged(&error.to_string()))?;
        manifest.check().map_err(|why| damaged(&why))?;
        Ok(manifest)
    }

    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// As for [`from_bytes`](Self::from_bytes), or there is none.
    pub(super) fn read(folder: &Path) -> Result<Self, Damage> {
        let path = folder.join(MANIFEST);
        let disk = |source| Damage::Disk {
            path: MANIFEST.to_owned(),
            source,
        };
        match std::fs::metadata(&path) {
            Ok(found) if found.len() > MAX_BYTES => {
                return Err(Damage::Manifest("it is too large".to_owned()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Damage::None(folder.to_owned()));
            }
            Err(error) => return Err(disk(error)),
        }
        Self::from_bytes(&std::fs::read(&path).map_err(disk)?)
    }

    fn check(&self) -> Result<(), String> {
        if !is_of(&self.state, "state", ".json") {
            return Err(format!("it names `{}` as its state", self.state.path));
        }
        for (place, index) in self.indexes.iter().enumerate() {
            let uid = &index.uid;
            if !is_index_uid(uid) {
                return Err(format!("`{uid}` can't be an index's uid"));
            }
            if self
                .indexes
                .iter()
                .skip(place + 1)
                .any(|other| other.uid == *uid)
            {
                return Err(format!("`{uid}` is there twice"));
            }
            let folder = folder_of(uid);
            if !is_of(&index.settings, &folder, ".settings.json") {
                return Err(format!("it names `{}` as settings", index.settings.path));
            }
            let per_file = index.slots_per_file;
            if !per_file.is_power_of_two() || per_file > SLOT_COUNT {
                return Err(format!("{per_file} slots can't share a file"));
            }
            let documents = documents_of(uid);
            for slots in &index.files {
                if slots.group >= SLOT_COUNT / per_file
                    || !is_of(&slots.file, &documents, ".jsonl.zst")
                {
                    return Err(format!("it names `{}` as documents", slots.file.path));
                }
            }
        }
        Ok(())
    }

    /// All files, the manifest aside.
    pub(super) fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let indexes = self.indexes.iter();
        let of_indexes = indexes.flat_map(|index| {
            let documents = index.files.iter().map(|slots| &slots.file);
            std::iter::once(&index.settings).chain(documents)
        });
        std::iter::once(&self.state).chain(of_indexes)
    }

    /// An index.
    pub(super) fn index(&self, uid: &str) -> Option<&IndexEntry> {
        self.indexes.iter().find(|index| index.uid == uid)
    }
}

/// The folder of an index, from the backup's. Long uids are cut: file systems allow no more than 255 bytes.
pub(super) fn folder_of(uid: &str) -> String {
    let short: String = uid.chars().take(MAX_NAME).collect();
    match short.len() == uid.len() {
        true => format!("indexes/{uid}"),
        false => format!("indexes/{short}.{}", hex(Sha256::digest(uid).as_slice())),
    }
}

/// The folder of an index's documents.
pub(super) fn documents_of(uid: &str) -> String {
    format!("{}/documents", folder_of(uid))
}

/// Whether a file has the name that Weft gives to its content in a folder.
fn is_of(file: &FileEntry, folder: &str, ending: &str) -> bool {
    let is_sum = file.sha256.len() == 64 && file.sha256.bytes().all(|c| c.is_ascii_hexdigit());
    is_sum && file.path == format!("{folder}/{}{ending}", file.sha256)
}

/// The digest of JSON whose members are in one order.
fn sum(value: &Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    hex(Sha256::digest(value.to_string()).as_slice())
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
