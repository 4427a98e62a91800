//! The folder of a backup: files that are named for their content, and the manifest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::BackupError;
use super::manifest::{Damage, FileEntry, MANIFEST, Manifest, hex};

/// Where files are while they are written, and what has been copied so far.
const INCOMPLETE: &str = "incomplete";
/// The file by which two backups into one folder keep out of each other's way.
const LOCK: &str = "lock";

/// A folder that this process alone writes to.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Held as long as this lives; the system releases it if the process dies.
    _lock: File,
}

impl Folder {
    /// Opens a folder for writing, and clears what an interrupted backup has left.
    ///
    /// # Errors
    /// Another backup writes there, or the disk fails, or the folder holds something else.
    pub(super) fn open(path: &Path) -> Result<Self, BackupError> {
        let disk = |source| BackupError::disk(path, source);
        let is_new = !path.join(MANIFEST).exists() && !path.join(LOCK).exists();
        if is_new
            && let Ok(mut entries) = fs::read_dir(path)
            && entries.next().is_some()
        {
            return Err(BackupError::NotOurs(path.to_owned()));
        }
        make_private(path).map_err(disk)?;
        let lock = File::create(path.join(LOCK)).map_err(disk)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(BackupError::Taken(path.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(disk(error)),
        }
        let folder = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        folder.clear()?;
        Ok(folder)
    }

    /// The folder's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A folder for what isn't whole yet.
    pub(super) fn incomplete(&self) -> PathBuf {
        self.path.join(INCOMPLETE)
    }

    /// Removes what isn't whole.
    pub(super) fn clear(&self) -> Result<(), BackupError> {
        let path = self.incomplete();
        match fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(BackupError::disk(&path, source)),
        }
        make_private(&path).map_err(|source| BackupError::disk(&path, source))
    }

    /// Stores bytes under the name of their SHA-256, on the disk for good. What is there already is left as it is if it is whole.
    ///
    /// # Errors
    /// The disk fails, or doesn't give back what was written.
    pub(super) fn store(
        &self,
        folder: &str,
        ending: &str,
        bytes: &[u8],
    ) -> Result<FileEntry, BackupError> {
        let sha256 = hex(Sha256::digest(bytes).as_slice());
        let entry = FileEntry {
            path: format!("{folder}/{sha256}{ending}"),
            sha256,
            bytes: bytes.len() as u64,
        };
        if verify(&self.path, &entry).is_ok() {
            return Ok(entry);
        }
        let path = self.path.join(&entry.path);
        let disk = |source| BackupError::disk(&path, source);
        make_private(&self.path.join(folder)).map_err(disk)?;
        self.write(&path, bytes).map_err(disk)?;
        // Verified by reading: a disk that lies is noticed now, not when the backup is needed.
        verify(&self.path, &entry)?;
        Ok(entry)
    }

    /// Stores the manifest: from then on the folder holds this backup. Then removes what it doesn't name.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn finish(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let path = self.path.join(MANIFEST);
        let disk = |source| BackupError::disk(&path, source);
        for folder in ["indexes", "state"] {
            sync_all(&self.path.join(folder)).map_err(disk)?;
        }
        self.write(&path, &manifest.to_bytes()).map_err(disk)?;
        let back = Manifest::read(&self.path)?;
        if back != *manifest {
            return Err(Damage::Content(MANIFEST.to_owned()).into());
        }
        self.remove_unnamed(manifest).map_err(disk)?;
        let incomplete = self.incomplete();
        fs::remove_dir_all(&incomplete).map_err(|source| BackupError::disk(&incomplete, source))
    }

    /// Writes a file in one step.
    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut new = tempfile::NamedTempFile::new_in(self.incomplete())?;
        new.write_all(bytes)?;
        new.as_file().sync_all()?;
        new.persist(path).map_err(|error| error.error)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn remove_unnamed(&self, manifest: &Manifest) -> std::io::Result<()> {
        let named: BTreeSet<PathBuf> = manifest
            .files()
            .map(|file| self.path.join(&file.path))
            .collect();
        for folder in ["indexes", "state"] {
            remove_others(&self.path.join(folder), &named)?;
        }
        Ok(())
    }
}

/// Removes files that aren't named, and folders that are empty then. Returns whether anything is left.
fn remove_others(folder: &Path, named: &BTreeSet<PathBuf>) -> std::io::Result<bool> {
    let mut left = false;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let stays = match entry.file_type()?.is_dir() {
            true => remove_others(&path, named)?,
            false => named.contains(&path),
        };
        match (stays, entry.file_type()?.is_dir()) {
            (true, _) => left = true,
            (false, true) => fs::remove_dir(&path)?,
            (false, false) => fs::remove_file(&path)?,
        }
    }
    Ok(left)
}

/// Makes the names of new folders durable.
fn sync_all(folder: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        }
    }
    File::open(folder)?.sync_all()?;
    match folder.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes a folder that only its owner reads: a backup holds keys' names and webhooks' secrets.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

/// The content of a file, if it is what was written.
///
/// # Errors
/// It is missing, or isn't.
pub(super) fn read(folder: &Path, entry: &FileEntry) -> Result<Vec<u8>, Damage> {
    let mut bytes = Vec::new();
    check(folder, entry, |piece| bytes.extend_from_slice(piece))?;
    Ok(bytes)
}

/// Checks that a file is what was written.
///
/// # Errors
/// It is missing, or isn't.
pub(super) fn verify(folder: &Path, entry: &FileEntry) -> Result<(), Damage> {
    check(folder, entry, |_| ())
}

fn check(folder: &Path, entry: &FileEntry, mut take: impl FnMut(&[u8])) -> Result<(), Damage> {
    let disk = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => Damage::Missing(entry.path.clone()),
        _ => Damage::Disk {
            path: entry.path.clone(),
            source,
        },
    };
    let mut file = File::open(folder.join(&entry.path)).map_err(disk)?;
    let found = file.metadata().map_err(disk)?.len();
    if found != entry.bytes {
        return Err(Damage::Size {
            path: entry.path.clone(),
            found,
            expected: entry.bytes,
        });
    }
    let (mut sum, mut piece) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let count = file.read(&mut piece).map_err(disk)?;
        let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        sum.update(read);
        take(read);
    }
    match hex(sum.finalize().as_slice()) == entry.sha256 {
        true => Ok(()),
        false => Err(Damage::Content(entry.path.clone())),
    }
}

/// Checks that a file is there and has its size.
///
/// # Errors
/// It isn't, or hasn't.
pub(super) fn is_there(folder: &Path, entry: &FileEntry) -> Result<(), Damage> {
    match fs::metadata(folder.join(&entry.path)) {
        Ok(found) if found.len() == entry.bytes => Ok(()),
        Ok(found) => Err(Damage::Size {
            path: entry.path.clone(),
            found: found.len(),
            expected: entry.bytes,
        }),
        Err(_) => Err(Damage::Missing(entry.path.clone())),
    }
}
