//! Keeps a shard's part of a write until it is delivered: in memory up to a limit, then in an unlinked temporary file.
//!
//! Documents are appended as the client wrote them. A part is cut into pieces between documents, each below the nodes' payload
//! limit; a piece can be sent any number of times, to any number of replicas at once.

mod piece;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use self::piece::{Framing, Piece};

use self::piece::{Source, Span};
use crate::bounds::{Budget, Share};

/// The limits on how parts are kept.
#[derive(Debug, Clone)]
pub(crate) struct SpoolLimits {
    /// How many bytes of a part are kept in memory.
    pub(crate) memory_bytes: usize,
    /// The largest size of a piece, in bytes.
    pub(crate) piece_bytes: u64,
    /// The folder for temporary files.
    pub(crate) folder: PathBuf,
    /// The memory budget of all parts together.
    pub(crate) memory: Budget,
    /// The disk budget of all parts together.
    pub(crate) disk: Budget,
}

/// A part that is being written.
#[derive(Debug)]
pub(crate) struct Spool {
    frame: Framing,
    memory: Vec<u8>,
    file: Option<File>,
    /// The number of bytes in the file.
    filed: u64,
    pieces: Vec<Span>,
    piece_bytes: u64,
    shares: Shares,
}

/// A part's shares of the budgets for all parts.
#[derive(Debug)]
struct Shares {
    memory: Share,
    disk: Share,
}

impl Spool {
    pub(crate) fn new(frame: Framing, limits: &SpoolLimits) -> Self {
        let around = (frame.before.len() + frame.after.len()) as u64;
        let piece_bytes = limits.piece_bytes.saturating_sub(around).max(1);
        Self {
            frame,
            memory: Vec::new(),
            file: None,
            filed: 0,
            pieces: Vec::new(),
            piece_bytes,
            shares: Shares {
                memory: limits.memory.share(),
                disk: limits.disk.share(),
            },
        }
    }

    /// Appends a document.
    pub(crate) fn append(&mut self, document: &[u8]) {
        let start = self.filed + self.memory.len() as u64;
        self.memory.extend_from_slice(document);
        let end = start + document.len() as u64;
        self.memory.push(self.frame.between);
        match self.pieces.last_mut() {
            Some(piece) if end - piece.start <= self.piece_bytes => {
                piece.end = end;
                piece.documents += 1;
            }
            _ => self.pieces.push(Span {
                start,
                end,
                documents: 1,
            }),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Discards everything in memory, if it is more than `bytes`.
    pub(crate) fn discard(&mut self, bytes: usize) {
        if self.memory.len() > bytes {
            self.memory.clear();
            self.pieces.clear();
        }
    }

    /// Moves the documents in memory to the file, if they exceed the limit. [`NoRoom`](crate::bounds::NoRoom) is wrapped in the
    /// returned error.
    pub(crate) async fn spill(&mut self, limits: &SpoolLimits) -> io::Result<()> {
        if self.memory.len() > limits.memory_bytes {
            self.write_out(limits).await
        } else {
            self.hold_memory()
        }
    }

    fn hold_memory(&mut self) -> io::Result<()> {
        let bytes = self.memory.len() as u64;
        self.shares.memory.resize(bytes).map_err(io::Error::other)
    }

    async fn write_out(&mut self, limits: &SpoolLimits) -> io::Result<()> {
        let bytes = self.filed + self.memory.len() as u64;
        self.shares.disk.resize(bytes).map_err(io::Error::other)?;
        let memory = std::mem::take(&mut self.memory);
        let file = self.file.take();
        let folder = limits.folder.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => tempfile::tempfile_in(folder)?,
            };
            file.write_all(&memory)?;
            Ok::<_, io::Error>((file, memory))
        });
        let (file, mut memory) = written.await.map_err(io::Error::other)??;
        self.filed += memory.len() as u64;
        self.file = Some(file);
        memory.clear();
        self.memory = memory;
        self.hold_memory()
    }

    /// Ends the part; returns its pieces, ready to be delivered.
    pub(crate) async fn finish(mut self, limits: &SpoolLimits) -> io::Result<Vec<Piece>> {
        let source = if self.file.is_some() {
            self.write_out(limits).await?;
            Source::File(self.file.map(|file| Arc::new((file, self.shares.disk))))
        } else {
            self.hold_memory()?;
            let memory = std::mem::take(&mut self.memory).into();
            Source::Memory(self.shares.memory.held_by(memory))
        };
        let piece = |span: Span| Piece::new(self.frame.clone(), source.clone(), span);
        Ok(self.pieces.iter().copied().map(piece).collect())
    }
}

#[cfg(test)]
mod tests;
