//! Documents on the backup's disk: the file of a group of slots, and the notebooks in which copies gather until they are whole.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use weft_routing::document_id::DocumentId;
use weft_routing::slot::{SLOT_COUNT, slot_of};

use super::BackupError;
use super::folder::{self, Folder};
use super::manifest::{Damage, SlotsEntry, documents_of};
use crate::repair::Print;

/// What is known last of documents, by their ids; `None` of one that is gone.
type Known = BTreeMap<String, Option<Box<RawValue>>>;

/// How many documents a file shall have.
const DOCUMENTS_A_FILE: u64 = 256;
/// How many bytes are kept in memory before they go to the notebooks.
const BUFFERED: usize = 16 << 20;
const LEVEL: i32 = 3;

/// Documents by their ids.
pub(super) type Documents = BTreeMap<String, Box<RawValue>>;

/// How many slots share a file, for an index with so many documents.
pub(super) fn slots_per_file(documents: u64) -> u16 {
    let files = documents
        .div_ceil(DOCUMENTS_A_FILE)
        .clamp(1, u64::from(SLOT_COUNT))
        .next_power_of_two();
    u16::try_from(u64::from(SLOT_COUNT) / files).unwrap_or(SLOT_COUNT)
}

/// The group of slots that an id belongs to; `None` if no document can have it.
pub(super) fn group_of(id: &str, slots_per_file: u16) -> Option<u16> {
    let id = DocumentId::from_text(id).ok()?;
    Some(slot_of(&id).0 / slots_per_file)
}

/// A digest as it is written.
pub(super) fn digest_text(digest: u64) -> String {
    format!("{digest:016x}")
}

/// The digest of documents, however they are printed and ordered.
pub(super) fn digest(documents: &Documents, primary_key: &str) -> u64 {
    let prints = documents
        .values()
        .filter_map(|document| Print::of(document, primary_key));
    prints.fold(0, |sum, print| sum.wrapping_add(print.whole()))
}

/// Stores the documents of a group of slots.
pub(super) fn store(
    folder: &Folder,
    uid: &str,
    group: u16,
    (documents, digest): (&Documents, u64),
) -> Result<SlotsEntry, BackupError> {
    let mut text = Vec::new();
    for document in documents.values() {
        push_line(&mut text, document);
    }
    let packed = zstd::bulk::compress(&text, LEVEL)
        .map_err(|source| BackupError::disk(folder.path(), source))?;
    let file = folder.store(&documents_of(uid), ".jsonl.zst", &packed)?;
    Ok(SlotsEntry {
        group,
        documents: documents.len() as u64,
        digest: digest_text(digest),
        unpacked: text.len() as u64,
        file,
    })
}

/// Appends a document as one line. Line ends can only stand between its fields, as strings escape them.
pub(super) fn push_line(text: &mut Vec<u8>, document: &RawValue) {
    let bytes = document.get().bytes();
    text.extend(bytes.filter(|byte| *byte != b'\n' && *byte != b'\r'));
    text.push(b'\n');
}

/// Reads the documents of a group of slots, and checks everything that is written down of them.
///
/// # Errors
/// The file isn't what was written.
pub(super) fn load(
    folder: &Path,
    entry: &SlotsEntry,
    primary_key: &str,
) -> Result<Documents, Damage> {
    let unreadable = |why: String| Damage::Unreadable {
        path: entry.file.path.clone(),
        why,
    };
    let packed = folder::read(folder, &entry.file)?;
    // Not more than was written down, whatever the file unpacks to.
    let mut text = Vec::new();
    zstd::stream::read::Decoder::new(packed.as_slice())
        .and_then(|unpacking| unpacking.take(entry.unpacked + 1).read_to_end(&mut text))
        .map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 != entry.unpacked {
        return Err(unreadable("it unpacks to another size".to_owned()));
    }
    let mut documents = Documents::new();
    let lines = text.split(|byte| *byte == b'\n');
    for line in lines.filter(|line| !line.is_empty()) {
        let document: Box<RawValue> =
            serde_json::from_slice(line).map_err(|error| unreadable(error.to_string()))?;
        let print = Print::of(&document, primary_key);
        let print = print.ok_or_else(|| unreadable("a document has no id".to_owned()))?;
        documents.insert(print.id, document);
    }
    if documents.len() as u64 != entry.documents
        || digest_text(digest(&documents, primary_key)) != entry.digest
    {
        return Err(unreadable("its documents have another digest".to_owned()));
    }
    Ok(documents)
}

/// A line of a notebook: what is known last of a document counts. Without a document there is none of that id any more.
#[derive(Serialize, Deserialize)]
struct Note<D> {
    i: String,
    d: Option<D>,
}

/// Notebooks of an index, one for each group of slots: appended to in any order, read when all is there.
#[derive(Debug)]
pub(super) struct Notebooks {
    folder: PathBuf,
    slots_per_file: u16,
    buffers: BTreeMap<u16, Vec<u8>>,
    buffered: usize,
}

impl Notebooks {
    /// Empty notebooks in a folder of their own.
    pub(super) fn new(folder: PathBuf, slots_per_file: u16) -> Result<Self, BackupError> {
        let made = match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir_all(&folder),
        };
        made.map_err(|source| BackupError::disk(&folder, source))?;
        Ok(Self {
            folder,
            slots_per_file,
            buffers: BTreeMap::new(),
            buffered: 0,
        })
    }

    /// Notes a document, or that there is none of this id.
    pub(super) fn note(
        &mut self,
        id: &str,
        document: Option<&RawValue>,
    ) -> Result<(), BackupError> {
        let Some(group) = group_of(id, self.slots_per_file) else {
            return Ok(());
        };
        let buffer = self.buffers.entry(group).or_default();
        let before = buffer.len();
        let note = Note {
            i: id.to_owned(),
            d: document,
        };
        let line = serde_json::value::to_raw_value(&note);
        push_line(buffer, &line.unwrap_or_default());
        self.buffered += buffer.len() - before;
        match self.buffered > BUFFERED {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Writes down what is in memory.
    pub(super) fn flush(&mut self) -> Result<(), BackupError> {
        for (group, buffer) in std::mem::take(&mut self.buffers) {
            let path = self.path(group);
            let opened = OpenOptions::new().create(true).append(true).open(&path);
            let written = opened.and_then(|mut file| file.write_all(&buffer));
            written.map_err(|source| BackupError::disk(&path, source))?;
        }
        self.buffered = 0;
        Ok(())
    }

    /// What is known last of each document of a group; `None` if nothing was noted of the group.
    pub(super) fn read(&self, group: u16) -> Result<Option<Known>, BackupError> {
        let path = self.path(group);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(BackupError::disk(&path, source)),
        };
        let mut known = BTreeMap::new();
        let lines = text.split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            let note: Note<Box<RawValue>> = serde_json::from_slice(line)
                .map_err(|error| BackupError::disk(&path, error.into()))?;
            known.insert(note.i, note.d);
        }
        Ok(Some(known))
    }

    fn path(&self, group: u16) -> PathBuf {
        self.folder.join(group.to_string())
    }
}
