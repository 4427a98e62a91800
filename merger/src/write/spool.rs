//! Keeps a shard's part of a write until it is delivered: in memory up to a limit, then in an unlinked temporary file.
//!
//! Documents are appended as the client wrote them. A part is cut into pieces between documents, each below the nodes' payload
//! limit; a piece can be sent any number of times, to any number of replicas at once.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::bounds::{Budget, Share};
use crate::call::{AnyBody, BodyError};

/// How many bytes of a file are read at once while a piece is sent.
const READ_BYTES: usize = 256 << 10;

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

/// The text around and between the documents of a piece.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Framing {
    /// The text before the first document.
    pub(crate) before: Bytes,
    /// The text after the last document.
    pub(crate) after: Bytes,
    /// The byte between two documents.
    pub(crate) between: u8,
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

/// The range of a piece's documents in the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u64,
    end: u64,
    documents: u64,
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
        let piece = |span: Span| Piece {
            frame: self.frame.clone(),
            source: source.clone(),
            span,
        };
        Ok(self.pieces.iter().copied().map(piece).collect())
    }
}

#[derive(Debug, Clone)]
enum Source {
    Memory(Bytes),
    File(Option<Arc<(File, Share)>>),
}

/// The documents of one request.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    frame: Framing,
    source: Source,
    span: Span,
}

impl Piece {
    /// A piece with these documents, kept in memory.
    pub(crate) fn of(frame: Framing, documents: &[&[u8]]) -> Self {
        let bytes: Vec<u8> = documents.join(&frame.between);
        let span = Span {
            start: 0,
            end: bytes.len() as u64,
            documents: documents.len() as u64,
        };
        Self {
            frame,
            source: Source::Memory(bytes.into()),
            span,
        }
    }

    /// How many documents it holds.
    pub(crate) fn documents(&self) -> u64 {
        self.span.documents
    }

    /// The piece as a request's body.
    pub(crate) fn body(&self) -> AnyBody {
        let left = self.bytes();
        let (before, after) = (self.frame.before.clone(), self.frame.after.clone());
        PieceBody {
            before,
            inner: self.reading(),
            after,
            left,
        }
        .boxed()
    }

    /// The documents with their separators, without the text around them, if they are in memory.
    pub(crate) fn in_memory(&self) -> Option<Bytes> {
        match &self.source {
            Source::Memory(_) => self.reading().queue.pop(),
            Source::File(_) => None,
        }
    }

    /// The text around and between the documents.
    pub(crate) fn framing(&self) -> &Framing {
        &self.frame
    }

    /// The documents with their separators, without the text around them.
    pub(crate) fn inner(&self) -> AnyBody {
        let left = self.span.end - self.span.start;
        PieceBody {
            before: Bytes::new(),
            inner: self.reading(),
            after: Bytes::new(),
            left,
        }
        .boxed()
    }

    fn reading(&self) -> Reading {
        let Span { start, end, .. } = self.span;
        match &self.source {
            Source::Memory(bytes) => {
                let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
                let inner = range
                    .filter(|(_, end)| *end <= bytes.len())
                    .map(|(start, end)| bytes.slice(start..end));
                Reading {
                    queue: vec![inner.unwrap_or_default()],
                    file: None,
                    at: 0,
                    end: 0,
                    read: None,
                }
            }
            Source::File(file) => Reading {
                queue: Vec::new(),
                file: file.clone(),
                at: start,
                end,
                read: None,
            },
        }
    }

    /// The length of the body, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let around = (self.frame.before.len() + self.frame.after.len()) as u64;
        self.span.end - self.span.start + around
    }
}

/// A piece that is being read, from memory or from a file.
struct Reading {
    queue: Vec<Bytes>,
    file: Option<Arc<(File, Share)>>,
    at: u64,
    end: u64,
    read: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reading {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(bytes) = self.queue.pop() {
            return Poll::Ready(Some(Ok(bytes)));
        }
        let Some(file) = &self.file else {
            return Poll::Ready(None);
        };
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let read = self.read.get_or_insert_with(|| {
            let (file, at) = (Arc::clone(file), self.at);
            let length = usize::try_from(self.end - at)
                .unwrap_or(READ_BYTES)
                .min(READ_BYTES);
            tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; length];
                file.0.read_exact_at(&mut bytes, at)?;
                Ok(bytes.into())
            })
        });
        let outcome = ready!(Pin::new(read).poll(cx))
            .map_err(io::Error::other)
            .and_then(|read| read);
        self.read = None;
        if let Ok(bytes) = &outcome {
            self.at += bytes.len() as u64;
        }
        Poll::Ready(Some(outcome))
    }
}

struct PieceBody {
    before: Bytes,
    inner: Reading,
    after: Bytes,
    left: u64,
}

impl Body for PieceBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let next = if !this.before.is_empty() {
            std::mem::take(&mut this.before)
        } else {
            match ready!(this.inner.poll_next(cx)) {
                Some(Ok(bytes)) if !bytes.is_empty() => bytes,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(_)) | None if this.after.is_empty() => return Poll::Ready(None),
                Some(Ok(_)) | None => std::mem::take(&mut this.after),
            }
        };
        this.left = this.left.saturating_sub(next.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(next))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory_bytes: usize, piece_bytes: u64) -> (tempfile::TempDir, SpoolLimits) {
        let folder = tempfile::tempdir().unwrap();
        let limits = SpoolLimits {
            memory_bytes,
            piece_bytes,
            folder: folder.path().to_owned(),
            memory: Budget::unbounded(),
            disk: Budget::unbounded(),
        };
        (folder, limits)
    }

    fn array() -> Framing {
        Framing {
            before: Bytes::from_static(b"["),
            after: Bytes::from_static(b"]"),
            between: b',',
        }
    }

    async fn text(piece: &Piece) -> String {
        let body = piece.body();
        let exact = body.size_hint().exact().unwrap();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len() as u64, exact);
        assert_eq!(bytes.len() as u64, piece.bytes());
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_part_is_cut_between_documents_and_each_piece_is_whole() {
        for memory_bytes in [0, 7, 1 << 20] {
            let (_folder, limits) = limits(memory_bytes, 12);
            let mut spool = Spool::new(array(), &limits);
            for document in ["{\"a\":1}", "{}", "{\"bb\":22}", "{}", "{}", "{}"] {
                spool.append(document.as_bytes());
                spool.spill(&limits).await.unwrap();
            }
            let pieces = spool.finish(&limits).await.unwrap();
            let mut texts = Vec::new();
            for piece in &pieces {
                texts.push(text(piece).await);
                assert_eq!(
                    text(piece).await,
                    *texts.last().unwrap(),
                    "a piece can be sent twice"
                );
            }
            assert_eq!(texts, ["[{\"a\":1},{}]", "[{\"bb\":22}]", "[{},{},{}]"]);
            assert_eq!(
                pieces.iter().map(Piece::documents).collect::<Vec<_>>(),
                [2, 1, 3]
            );
        }
    }

    #[tokio::test]
    async fn parts_together_take_no_more_than_there_is_room_for_and_give_it_back() {
        let full = |error: io::Error| error.downcast::<crate::bounds::NoRoom>().unwrap();
        let (_folder, unbounded) = limits(8, 1 << 20);
        let limits = SpoolLimits {
            memory: Budget::new("bytes of request bodies", 20),
            disk: Budget::new("bytes of writes on disk", 100),
            ..unbounded
        };
        let mut one = Spool::new(array(), &limits);
        for _ in 0..9 {
            one.append(b"0123456789");
            one.spill(&limits).await.unwrap();
        }
        assert_eq!((limits.disk.used(), limits.memory.used()), (99, 0));
        let mut other = Spool::new(array(), &limits);
        other.append(b"0123456789");
        let refused = full(other.spill(&limits).await.unwrap_err());
        assert_eq!(refused.limit, 100);
        drop(other);
        let pieces = one.finish(&limits).await.unwrap();
        assert_eq!(limits.disk.used(), 99, "until it is delivered");
        let body = pieces[0].body();
        drop(pieces);
        assert_eq!(limits.disk.used(), 99, "while it is sent");
        drop(body);
        assert_eq!(limits.disk.used(), 0);

        let mut small: Vec<Spool> = (0..3).map(|_| Spool::new(array(), &limits)).collect();
        for spool in &mut small {
            spool.append(b"01234");
        }
        small[0].spill(&limits).await.unwrap();
        small[1].spill(&limits).await.unwrap();
        small[2].spill(&limits).await.unwrap();
        let mut last = Spool::new(array(), &limits);
        last.append(b"01234");
        assert_eq!(full(last.spill(&limits).await.unwrap_err()).limit, 20);
        drop((small, last));
        assert_eq!(limits.memory.used(), 0);
    }

    #[tokio::test]
    async fn a_piece_of_nothing_is_its_frame() {
        assert_eq!(text(&Piece::of(array(), &[])).await, "[]");
        assert_eq!(text(&Piece::of(array(), &[b"{}"])).await, "[{}]");
    }

    #[tokio::test]
    async fn a_large_part_comes_back_from_the_file_as_it_was() {
        let (_folder, limits) = limits(1_000, 1 << 20);
        let mut spool = Spool::new(
            Framing {
                between: b'\n',
                ..Framing::default()
            },
            &limits,
        );
        let mut expected = String::new();
        for number in 0..60_000 {
            let document = format!("{{\"id\":{number}}}");
            spool.append(document.as_bytes());
            spool.spill(&limits).await.unwrap();
            expected.push_str(&document);
            expected.push('\n');
        }
        let mut whole = String::new();
        for piece in spool.finish(&limits).await.unwrap() {
            whole.push_str(&text(&piece).await);
            whole.push('\n');
        }
        assert!(whole == expected);
    }
}
