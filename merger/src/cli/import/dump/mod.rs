//! A dump of a Meilisearch, formats V5 and V6: a compressed archive that is read twice as a stream and never unpacked. The first
//! pass reads everything but keeps no documents, so a damaged dump is refused before anything is written. The second one hands the
//! documents on.
//!
//! ```text
//! metadata.json                      dumpVersion, dumpDate
//! keys.jsonl (V5: keys)              a key a line
//! experimental-features.json
//! tasks/update_files/7.jsonl         a write that was waiting
//! indexes/films/metadata.json        uid, primaryKey (V5: indexes/<uuid>/meta.json, with the settings)
//! indexes/films/settings.json
//! indexes/films/documents.jsonl
//! index_uuids/data.jsonl             V5 only: the uid of each uuid
//! ```
//!
//! The files may come in any order.

mod archive;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::batch::{Batch, Batcher};
use super::error::ImportError;
use super::source::Index;
use archive::{lines, walk};

/// The largest file of a dump that is read as a whole, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// The longest name of an index.
const MAX_UID: usize = 512;

/// What a dump holds, documents apart.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The file with its size and date, by which it is known again.
    pub(super) name: String,
    /// The indexes, by uid.
    pub(super) indexes: Vec<DumpIndex>,
    /// The keys.
    pub(super) keys: Vec<Map<String, Value>>,
    /// The experimental features.
    pub(super) features: Map<String, Value>,
    /// How many writes were waiting when it was made.
    pub(super) queued: u64,
}

/// An index in a dump.
#[derive(Debug)]
pub(super) struct DumpIndex {
    /// The index.
    pub(super) index: Index,
    /// The name of its folder.
    pub(super) folder: String,
    /// Its settings.
    pub(super) settings: Value,
    /// How many documents it has.
    pub(super) documents: u64,
}

/// An index whose documents are wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The name of its folder.
    pub(super) folder: String,
    /// The index.
    pub(super) index: Index,
    /// How many documents are there already.
    pub(super) skip: u64,
}

/// The files of a dump, as they were found.
#[derive(Debug, Default)]
struct Files {
    metadata: Option<Value>,
    keys: Vec<Map<String, Value>>,
    features: Map<String, Value>,
    queued: u64,
    /// V5: the uid of each folder.
    uids: BTreeMap<String, String>,
    folders: BTreeMap<String, Folder>,
}

#[derive(Debug, Default)]
struct Folder {
    metadata: Option<Value>,
    settings: Option<Value>,
    documents: Option<u64>,
}

/// Reads all of a dump, and says what is in it. Blocks.
///
/// # Errors
/// [`ImportError::Dump`]: it is damaged, of another format, or no dump.
pub(super) fn survey(path: &Path) -> Result<Survey, ImportError> {
    let fail = |reason: String| ImportError::Dump {
        path: path.to_owned(),
        reason,
    };
    let mut files = Files::default();
    walk(path, |name, file| files.take(name, file)).map_err(fail)?;
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let bytes = path.metadata().map_or(0, |file| file.len());
    files.survey(&full, bytes).map_err(fail)
}

/// Reads the documents of some indexes, in batches. The reader waits until they are taken.
pub(super) fn batches(
    path: &Path,
    wanted: Vec<Wanted>,
    batch_bytes: u64,
) -> mpsc::Receiver<Result<(Index, Batch), ImportError>> {
    let (sender, receiver) = mpsc::channel(1);
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let hand_on = |index: &Index, batch: Batch| {
            let sent = sender.blocking_send(Ok((index.clone(), batch)));
            sent.map_err(|_| "nobody reads it any more".to_owned())
        };
        let read = walk(&path, |name, file| {
            let folder = name
                .strip_prefix("indexes/")
                .and_then(|rest| rest.strip_suffix("/documents.jsonl"));
            match wanted
                .iter()
                .find(|one| Some(one.folder.as_str()) == folder)
            {
                Some(one) => documents(one, batch_bytes, file, hand_on),
                None => Ok(()),
            }
        });
        if let Err(reason) = read {
            // Nobody listens if the import has ended.
            let _ = sender.blocking_send(Err(ImportError::Dump { path, reason }));
        }
    });
    receiver
}

fn documents(
    wanted: &Wanted,
    batch_bytes: u64,
    file: &mut dyn Read,
    hand_on: impl Fn(&Index, Batch) -> Result<(), String>,
) -> Result<(), String> {
    let mut batcher = Batcher::new(&wanted.index.uid, batch_bytes, wanted.skip);
    let mut seen = 0;
    lines(file, |_, line| {
        seen += 1;
        if seen <= wanted.skip {
            return Ok(());
        }
        let full = batcher.push(line).map_err(|error| error.to_string())?;
        full.map_or(Ok(()), |batch| hand_on(&wanted.index, batch))
    })?;
    let rest = batcher.rest();
    rest.map_or(Ok(()), |batch| hand_on(&wanted.index, batch))
}

impl Files {
    fn take(&mut self, name: &str, file: &mut dyn Read) -> Result<(), String> {
        let parts: Vec<&str> = name.split('/').collect();
        match parts.as_slice() {
            ["metadata.json"] => self.metadata = Some(json(name, file)?),
            ["experimental-features.json"] => {
                if let Value::Object(features) = json(name, file)? {
                    self.features = features;
                }
            }
            ["keys.jsonl" | "keys"] => self.keys = objects(name, file)?,
            ["index_uuids", "data.jsonl"] => self.folders_of(objects(name, file)?),
            ["tasks", "update_files", _] | ["updates", "updates_files", _] => self.queued += 1,
            ["indexes", folder, "metadata.json" | "meta.json"] => {
                self.folder(folder).metadata = Some(json(name, file)?);
            }
            ["indexes", folder, "settings.json"] => {
                self.folder(folder).settings = Some(json(name, file)?);
            }
            ["indexes", folder, "documents.jsonl"] => {
                let mut count = 0;
                lines(file, |number, line| {
                    let whole = serde_json::from_slice::<IgnoredAny>(line).is_ok();
                    if !whole || !line.trim_ascii_start().starts_with(b"{") {
                        return Err(format!("{name} has no document in line {number}"));
                    }
                    count += 1;
                    Ok(())
                })?;
                self.folder(folder).documents = Some(count);
            }
            _ => {}
        }
        Ok(())
    }

    fn folder(&mut self, name: &str) -> &mut Folder {
        self.folders.entry(name.to_owned()).or_default()
    }

    fn folders_of(&mut self, lines: Vec<Map<String, Value>>) {
        for line in lines {
            let uid = line.get("uid").and_then(Value::as_str);
            let meta = line.get("index_meta");
            let uuid = meta
                .and_then(|meta| meta.get("uuid"))
                .and_then(Value::as_str);
            if let (Some(uid), Some(uuid)) = (uid, uuid) {
                self.uids.insert(uuid.to_owned(), uid.to_owned());
            }
        }
    }

    fn survey(self, path: &Path, bytes: u64) -> Result<Survey, String> {
        let metadata = self
            .metadata
            .ok_or("it has no metadata.json: it is no dump of a Meilisearch")?;
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or("");
        let version = text("dumpVersion");
        if !matches!(version, "V5" | "V6") {
            return Err(format!(
                "it has the format `{version}`; V5 and V6 can be read. Import it into a newer Meilisearch, and from there"
            ));
        }
        let mut indexes = Vec::new();
        for (name, folder) in self.folders {
            indexes.push(folder.index(name, &self.uids, version == "V5")?);
        }
        indexes.sort_by(|one, other| one.index.uid.cmp(&other.index.uid));
        let twice = indexes.windows(2).find_map(|pair| match pair {
            [one, other] if one.index.uid == other.index.uid => Some(one.index.uid.clone()),
            _ => None,
        });
        match twice {
            Some(uid) => Err(format!("it has the index `{uid}` twice")),
            None => Ok(Survey {
                name: format!(
                    "{} ({bytes} bytes, of {})",
                    path.display(),
                    text("dumpDate")
                ),
                indexes,
                keys: self.keys,
                features: self.features,
                queued: self.queued,
            }),
        }
    }
}

impl Folder {
    fn index(
        self,
        folder: String,
        uids: &BTreeMap<String, String>,
        in_folder_of_uuid: bool,
    ) -> Result<DumpIndex, String> {
        let lacks = |what: &str| format!("indexes/{folder} has no {what}");
        let mut metadata = self.metadata.ok_or_else(|| lacks("metadata"))?;
        let documents = self.documents.ok_or_else(|| lacks("documents.jsonl"))?;
        let (uid, settings) = match in_folder_of_uuid {
            true => {
                let settings = metadata.get_mut("settings").map(Value::take);
                (uids.get(&folder).cloned(), settings)
            }
            false => {
                let uid = metadata.get("uid").and_then(Value::as_str);
                (uid.map(str::to_owned), self.settings)
            }
        };
        let uid = uid.ok_or_else(|| lacks("uid"))?;
        let settings = settings.filter(Value::is_object);
        let settings = settings.ok_or_else(|| lacks("settings"))?;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if uid.is_empty() || uid.len() > MAX_UID || !uid.bytes().all(named) {
            return Err(format!("`{uid}` is no name of an index"));
        }
        let key = metadata
            .get("primaryKey")
            .or_else(|| metadata.get("primary_key"));
        let primary_key = key.and_then(Value::as_str).map(str::to_owned);
        Ok(DumpIndex {
            index: Index { uid, primary_key },
            folder,
            settings,
            documents,
        })
    }
}

fn json(name: &str, file: &mut dyn Read) -> Result<Value, String> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| archive::said(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{name} has more than {MAX_FILE_BYTES} bytes"));
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("{name} is no JSON: {error}"))
}

fn objects(name: &str, file: &mut dyn Read) -> Result<Vec<Map<String, Value>>, String> {
    let mut all = Vec::new();
    lines(&mut file.take(MAX_FILE_BYTES), |number, line| {
        let object = serde_json::from_slice(line);
        all.push(object.map_err(|error| format!("{name}, line {number}: {error}"))?);
        Ok(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests;
