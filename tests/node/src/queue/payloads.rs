//! Staged documents: one file per task, in the form that the engine reads (JSON objects, one per line).

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use uuid::Uuid;

use crate::errors::ApiResult;

/// The folder of staged files.
pub(crate) struct Payloads {
    folder: PathBuf,
}

impl Payloads {
    /// Opens the folder, or creates it.
    pub(crate) fn open(folder: &Path) -> ApiResult<Payloads> {
        std::fs::create_dir_all(folder)?;
        Ok(Payloads {
            folder: folder.to_owned(),
        })
    }

    /// Writes a file. The file is on disk when this returns.
    pub(crate) fn stage(&self, bytes: &[u8]) -> ApiResult<Uuid> {
        let name = Uuid::new_v4();
        let mut file = File::create(self.path(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        File::open(&self.folder)?.sync_all()?;
        Ok(name)
    }

    /// A file's content; `None` for an empty file, which can't be mapped.
    pub(crate) fn map(&self, name: Uuid) -> ApiResult<Option<Mmap>> {
        let file = File::open(self.path(name))?;
        if file.metadata()?.len() == 0 {
            return Ok(None);
        }
        #[allow(
            unsafe_code,
            reason = "nothing writes to a staged file after it was synced"
        )]
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Some(map))
    }

    /// A file's size in bytes.
    pub(crate) fn size(&self, name: Uuid) -> u64 {
        std::fs::metadata(self.path(name)).map_or(0, |metadata| metadata.len())
    }

    /// Removes a file that no task needs any more.
    pub(crate) fn remove(&self, name: Uuid) {
        if let Err(error) = std::fs::remove_file(self.path(name)) {
            tracing::warn!(%name, %error, "could not remove a staged file");
        }
    }

    /// Removes files that belong to no task: their requests were interrupted before they were answered.
    pub(crate) fn keep_only(&self, names: &[Uuid]) -> ApiResult<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.parse().ok());
            if !name.is_some_and(|name| names.contains(&name)) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn path(&self, name: Uuid) -> PathBuf {
        self.folder.join(name.to_string())
    }
}
