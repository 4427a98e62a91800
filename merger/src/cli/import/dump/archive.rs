//! The archive that a dump is: compressed with gzip, and never unpacked to the disk.
//!
//! Bounds: the number of files, the size of what stands between files, and the length of a line. A file with a path that leads
//! outside, and a link, are refused, though nothing here would follow them: no Meilisearch writes such a dump.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Component, Path};
use std::rc::Rc;

use flate2::read::GzDecoder;

use super::super::batch::LARGEST_DOCUMENT;

/// The most files in a dump.
const MAX_FILES: u64 = 10_000_000;
/// The most bytes between two files: their headers.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// The most bytes behind the archive's end.
const MAX_REST_BYTES: u64 = 16 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// Calls `each` with the path and content of every file. What it leaves unread is skipped.
pub(super) fn walk(
    path: &Path,
    mut each: impl FnMut(&str, &mut dyn Read) -> Result<(), String>,
) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let budget = Rc::new(Cell::new(Some(MAX_HEADER_BYTES)));
    let mut archive = tar::Archive::new(Bounded {
        inner: GzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, file)),
        budget: Rc::clone(&budget),
    });
    let mut count = 0;
    let mut entries = archive.entries().map_err(|error| said(&error))?;
    loop {
        budget.set(Some(MAX_HEADER_BYTES));
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|error| said(&error))?;
        budget.set(None);
        count += 1;
        if count > MAX_FILES {
            return Err(format!("it has more than {MAX_FILES} files"));
        }
        let name = name_of(&entry.path().map_err(|error| said(&error))?)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return Err(format!("{name} is no ordinary file"));
        }
        let size = entry.size();
        let mut counted = Counted {
            inner: &mut entry,
            read: 0,
        };
        let taken = each(&name, &mut counted);
        io::copy(&mut counted, &mut io::sink()).map_err(|error| said(&error))?;
        // Whatever is wrong with a file that isn't whole, that is why.
        if counted.read != size {
            return Err(format!("it is cut off in {name}"));
        }
        taken?;
    }
    // The checksum stands at the very end.
    budget.set(Some(MAX_REST_BYTES));
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| said(&error))?;
    Ok(())
}

/// Calls `each` with the number and content of every line that isn't empty.
pub(super) fn lines(
    file: &mut dyn Read,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        let mut limited = (&mut file).take(LARGEST_DOCUMENT as u64 + 2);
        let read = limited.read_until(b'\n', &mut line);
        if read.map_err(|error| said(&error))? == 0 {
            return Ok(());
        }
        number += 1;
        let content = line.trim_ascii_end();
        if content.len() > LARGEST_DOCUMENT {
            return Err(format!(
                "line {number} of a file has more than {LARGEST_DOCUMENT} bytes"
            ));
        }
        if !content.is_empty() {
            each(number, content)?;
        }
    }
}

/// What an error of reading means to a person.
pub(super) fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            format!("it is damaged, or no dump: {error}")
        }
        _ => error.to_string(),
    }
}

fn name_of(path: &Path) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str().ok_or("a path in it is no UTF-8")?),
            _ => return Err(format!("the path {} leads outside", path.display())),
        }
    }
    Ok(parts.join("/"))
}

/// Lets no more through than a budget, where there is one.
struct Bounded<R> {
    inner: R,
    budget: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.budget.get() else {
            return self.inner.read(buffer);
        };
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too much stands between its files",
            ));
        }
        let read = self.inner.by_ref().take(left).read(buffer)?;
        self.budget.set(Some(left - read as u64));
        Ok(read)
    }
}

/// Counts what was read.
struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}
