//! The journal: how far an import is, in a file that is replaced as a whole after each batch that the cluster has confirmed.
//!
//! A journal that was cut off can't exist: the new text is written beside it, brought to the disk, and renamed over it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::ImportError;

const VERSION: u32 = 1;
/// The largest journal that is read, in bytes: some hundred thousand indexes.
const MAX_BYTES: u64 = 64 << 20;

/// What an import has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    /// What is read: a URL, or a dump with its size and date.
    pub(super) source: String,
    /// Where it goes: a URL.
    pub(super) target: String,
    /// True once everything that was chosen is there.
    #[serde(default)]
    pub(super) finished: bool,
    /// The source's first task that the copy may not have seen the effect of.
    #[serde(default)]
    pub(super) tasks_from: Option<u64>,
    /// The uids of the keys that were brought over; `None` before that.
    #[serde(default)]
    pub(super) keys: Option<BTreeSet<String>>,
    /// The indexes that were begun.
    #[serde(default)]
    pub(super) indexes: BTreeMap<String, IndexState>,
}

/// What was done for an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IndexState {
    /// What comes next.
    pub(super) stage: Stage,
    /// How many documents, in the source's order, the cluster has confirmed.
    pub(super) documents: u64,
    /// A digest of the settings that were applied.
    #[serde(default)]
    pub(super) settings: Option<String>,
    /// True if the cluster had documents in it before.
    #[serde(default)]
    pub(super) existed: bool,
}

/// What comes next for an index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stage {
    /// The index and its settings.
    #[default]
    Settings,
    /// Its documents.
    Documents,
    /// Nothing.
    Done,
}

/// The journal, open for one process at a time.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Held for as long as this process uses the journal.
    _lock: File,
    /// What it says.
    pub(super) state: State,
}

impl Journal {
    /// Opens the journal of an import, or begins one. Nothing is written yet.
    ///
    /// # Errors
    /// It is another import's, can't be read, or another process uses it.
    pub(super) fn open(path: &Path, source: &str, target: &str) -> Result<Self, ImportError> {
        let fail = |reason: String| ImportError::Journal {
            path: path.to_owned(),
            reason,
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(path, ".lock"))
            .map_err(|error| fail(error.to_string()))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => fail("another import uses it".to_owned()),
            std::fs::TryLockError::Error(error) => fail(error.to_string()),
        })?;
        let state = match read(path).map_err(fail)? {
            None => State {
                version: VERSION,
                source: source.to_owned(),
                target: target.to_owned(),
                finished: false,
                tasks_from: None,
                keys: None,
                indexes: BTreeMap::new(),
            },
            Some(state) if state.source == source && state.target == target => state,
            Some(other) => {
                return Err(ImportError::OtherJournal {
                    path: path.to_owned(),
                    source_name: other.source,
                    target: other.target,
                });
            }
        };
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            state,
        })
    }

    /// Writes it, so that it survives a crash of the process or the machine.
    ///
    /// # Errors
    /// The disk is full, or the folder can't be written to.
    pub(super) fn save(&self) -> Result<(), ImportError> {
        self.write().map_err(|error| ImportError::Journal {
            path: self.path.clone(),
            reason: format!(
                "it can't be written ({error}); the cluster keeps what it has, and the same command goes on"
            ),
        })
    }

    fn write(&self) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(&self.state)?;
        let new = beside(&self.path, ".new");
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)
    }

    /// What the journal says of an index, to be changed.
    pub(super) fn index(&mut self, uid: &str) -> &mut IndexState {
        self.state.indexes.entry(uid.to_owned()).or_default()
    }

    /// What is next for an index.
    pub(super) fn stage(&self, uid: &str) -> Stage {
        let known = self.state.indexes.get(uid);
        known.map_or(Stage::Settings, |index| index.stage)
    }
}

/// Whether a journal says that its import is finished. One that can't be read says nothing.
pub(super) fn is_finished(path: &Path) -> bool {
    matches!(read(path), Ok(Some(state)) if state.finished)
}

fn read(path: &Path) -> Result<Option<State>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut text = Vec::new();
    let limited = file.take(MAX_BYTES + 1).read_to_end(&mut text);
    limited.map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    let state: State = serde_json::from_slice(&text)
        .map_err(|error| format!("it is no journal of an import: {error}"))?;
    match state.version {
        VERSION => Ok(Some(state)),
        other => Err(format!("it has version {other}; this program knows 1")),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn what_was_saved_is_read_again() {
        let folder = folder();
        let path = folder.path().join("journal.json");
        let mut journal = Journal::open(&path, "http://old/", "http://new/").unwrap();
        assert!(
            !path.exists(),
            "nothing is written before something is done"
        );
        *journal.index("films") = IndexState {
            stage: Stage::Documents,
            documents: 12,
            settings: Some("abc".to_owned()),
            existed: false,
        };
        journal.state.tasks_from = Some(7);
        journal.save().unwrap();
        let state = journal.state.clone();
        drop(journal);
        let again = Journal::open(&path, "http://old/", "http://new/").unwrap();
        assert_eq!(again.state, state);
        assert_eq!(again.stage("films"), Stage::Documents);
        assert_eq!(again.stage("other"), Stage::Settings);
        assert!(!is_finished(&path));
    }

    #[test]
    fn a_journal_of_another_source_or_target_is_refused() {
        let folder = folder();
        let path = folder.path().join("journal.json");
        Journal::open(&path, "a", "b").unwrap().save().unwrap();
        for (source, target) in [("a", "c"), ("c", "b")] {
            let error = Journal::open(&path, source, target).unwrap_err();
            assert!(
                matches!(&error, ImportError::OtherJournal { source_name, .. } if source_name == "a"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_that_is_no_journal_is_refused_and_left_as_it_is() {
        let folder = folder();
        let path = folder.path().join("journal.json");
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":1}"#,
            r#"{"version":2,"source":"a","target":"b"}"#,
            r#"{"version":1,"source":"a","target":"b","more":1}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Journal::open(&path, "a", "b").unwrap_err();
            assert!(matches!(error, ImportError::Journal { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_last_journal_whole() {
        let folder = folder();
        let path = folder.path().join("journal.json");
        let mut journal = Journal::open(&path, "a", "b").unwrap();
        journal.save().unwrap();
        // A folder in the way of the new text fails as a full disk does.
        std::fs::create_dir(folder.path().join("journal.json.new")).unwrap();
        journal.index("films").documents = 5;
        assert!(journal.save().is_err());
        drop(journal);
        let again = Journal::open(&path, "a", "b").unwrap();
        assert!(again.state.indexes.is_empty());
    }

    #[test]
    fn two_imports_can_not_use_one_journal() {
        let folder = folder();
        let path = folder.path().join("journal.json");
        let first = Journal::open(&path, "a", "b").unwrap();
        let error = Journal::open(&path, "a", "b").unwrap_err();
        assert!(error.to_string().contains("another import"), "{error}");
        drop(first);
        Journal::open(&path, "a", "b").unwrap();
    }
}
