//! A piece of a shard's part, and how it is sent: from memory or from the file, any number of times.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::bounds::Share;
use crate::call::{AnyBody, BodyError};

/// How many bytes of a file are read at once while a piece is sent.
const READ_BYTES: usize = 256 << 10;

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

/// The range of a piece's documents in the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) documents: u64,
}

/// Where a part's documents are kept.
#[derive(Debug, Clone)]
pub(super) enum Source {
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
    /// The documents of `span`.
    pub(super) fn new(frame: Framing, source: Source, span: Span) -> Self {
        Self {
            frame,
            source,
            span,
        }
    }

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
