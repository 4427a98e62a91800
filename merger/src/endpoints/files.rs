//! Reads and writes the files that Envoy watches.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Assignment, UnreadableFile};

/// The largest file that is read, in bytes: some ten thousand nodes.
const MAX_BYTES: u64 = 4 << 20;

/// Why a file can't be used; the path is in the caller's words.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is larger than any such file.
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// It isn't a file with endpoints.
    #[error(transparent)]
    Unreadable(#[from] UnreadableFile),
}

/// Reads a file with endpoints.
///
/// # Errors
/// It can't be read, or isn't one.
pub fn read(path: &Path) -> Result<Assignment, FileError> {
    let mut text = Vec::new();
    let mut file = fs::File::open(path)?.take(MAX_BYTES + 1);
    file.read_to_end(&mut text)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= MAX_BYTES => Ok(Assignment::parse(&text)?),
        _ => Err(FileError::TooLarge),
    }
}

/// Writes a file beside its place, and moves it there when it is on the disk. Everybody may read it, since Envoy may run as
/// somebody else.
///
/// # Errors
/// The folder can't be written to. The old file, if there was one, is still there then.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".weft-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // Otherwise the move itself may be forgotten in a power cut. The file is whole in any case.
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_everybody_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spare.json");
        let file = Assignment::new("spare", &[], None);
        for _ in 0..2 {
            write(&path, &file.text()).unwrap();
            assert_eq!(read(&path).unwrap(), file);
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left beside it");
        assert!(write(&folder.path().join("none/spare.json"), "").is_err());
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        assert!(matches!(read(&path), Err(FileError::Io(_))));
        fs::write(&path, "no JSON").unwrap();
        assert!(matches!(read(&path), Err(FileError::Unreadable(_))));
        let large = vec![b' '; usize::try_from(MAX_BYTES).unwrap() + 1];
        fs::write(&path, large).unwrap();
        assert!(matches!(read(&path), Err(FileError::TooLarge)));
    }
}
