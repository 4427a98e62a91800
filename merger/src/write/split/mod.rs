//! Split: turns the bytes of a body into each shard's part, as they arrive.
//!
//! A single pass finds where each document begins and ends, checks that it is valid, finds its id, and appends its bytes, as
//! the client wrote them, to the part of the shard that owns the id (or, [by field](by_field), the field's value). Memory is bounded by one document plus the parts' own
//! bound (see [`super::spool`]).
//!
//! Invariants: a body that a node would refuse is refused here, before anything is delivered. If a node's task would refuse a
//! document for its id, the whole batch is [`Batch::refused`]: the parts are dropped, and only that document goes to a node,
//! whose task fails with the node's own words. What the engine refuses later, while indexing, is noted by a judge.

mod by_field;
mod csv;
mod documents;
pub(crate) mod explain;
mod identify;
mod json;
mod scan;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use weft_routing::placement::{ShardId, SlotMap};

pub(crate) use self::by_field::{Home, Owners, Unplaced};
use self::documents::Documents;
pub use self::explain::Fault;
pub(super) use self::identify::keep_last;
use super::format::Format;
use super::judge::{Judge, Suspicions};
use super::spool::{Framing, Piece, SpoolLimits};
use crate::ids::Ids;

/// Why a body can't be split.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The body doesn't match its content type; the message is a node's.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The body is empty.
    #[error("the body is empty")]
    Empty,
    /// A single document is larger than a node accepts.
    #[error("a document is larger than {limit} bytes")]
    DocumentTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The temporary file can't be written or read.
    #[error("a part of the write could not be kept")]
    Spool(#[from] io::Error),
}

/// Splits one body. Push the body's bytes, [`spill`](Self::spill) after each push, then [`finish`](Self::finish).
pub(crate) struct Splitter {
    reader: Reader,
    documents: Documents,
    received_bytes: u64,
}

enum Reader {
    Json(json::Reader),
    Csv(Box<csv::Reader>),
}

/// The primary key by which a body is split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SplitKey {
    /// The key's name; if `None`, it is inferred from the first document.
    pub(crate) name: Option<String>,
    /// Whether another write may still decide on another key. If so, a refused batch keeps its documents.
    pub(crate) is_open: bool,
}

/// The result of splitting a body.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Each shard's part, without shards that have no documents. For a refused batch: all documents if the key was still open,
    /// otherwise nothing.
    pub(crate) parts: Vec<ShardPart>,
    /// How many documents the body has.
    pub(crate) received: u64,
    /// The primary key used for splitting; `None` if no document was there to infer it from, or there wasn't exactly one
    /// candidate.
    pub(crate) key: Option<String>,
    /// The first document for which a node's task would refuse the whole batch.
    pub(crate) refused: Option<Piece>,
    /// A body without documents, in the same format.
    pub(crate) nothing: Piece,
    /// The documents for which the engine may refuse the whole batch when it indexes it.
    pub(super) suspicions: Option<Suspicions>,
    /// Where each document lies after this write, for an index that lies by a field.
    pub(crate) owners: Option<Arc<Owners>>,
    /// The first document that no shard can get: the batch goes to none then.
    pub(crate) unplaced: Option<Unplaced>,
}

/// One shard's part of a body.
#[derive(Debug)]
pub(crate) struct ShardPart {
    pub(crate) shard: ShardId,
    pub(crate) pieces: Vec<Piece>,
    /// The documents' ids in order, unless there are too many to keep.
    pub(crate) ids: Option<Ids>,
}

impl Splitter {
    /// A splitter for bodies of `format`, for an index with these `slots`.
    pub(crate) fn new(
        format: Format,
        slots: &Arc<SlotMap>,
        key: SplitKey,
        limits: SpoolLimits,
    ) -> Self {
        let document_bytes = limits.piece_bytes;
        let documents = Documents::new(format, slots, key, limits);
        let reader = match format {
            Format::Json => Reader::Json(json::Reader::array(document_bytes)),
            Format::Ndjson => Reader::Json(json::Reader::lines(document_bytes)),
            Format::Csv { delimiter } => {
                Reader::Csv(Box::new(csv::Reader::new(delimiter, document_bytes)))
            }
        };
        Self {
            reader,
            documents,
            received_bytes: 0,
        }
    }

    /// The same splitter, with a judge of the documents.
    pub(super) fn judged(mut self, judge: Judge) -> Self {
        self.documents.judge(judge);
        self
    }

    /// The same splitter for updates of an index that lies by a field: all documents stay together until they were looked for.
    pub(super) fn gathering(mut self) -> Self {
        self.documents.gather();
        self
    }

    /// The same splitter for updates of documents that lie where they were found.
    pub(super) fn updating(mut self, found: Arc<Owners>, skips_creation: bool) -> Self {
        self.documents.update(found, skips_creation);
        self
    }

    /// Takes the next bytes of the body.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), SplitError> {
        self.received_bytes += chunk.len() as u64;
        match &mut self.reader {
            Reader::Json(reader) => reader.push(chunk, &mut self.documents),
            Reader::Csv(reader) => reader.push(chunk, &mut self.documents),
        }
    }

    /// How many bytes of an incomplete document are kept.
    pub(crate) fn unfinished_bytes(&self) -> u64 {
        match &self.reader {
            Reader::Json(reader) => reader.unfinished_bytes(),
            Reader::Csv(reader) => reader.unfinished_bytes(),
        }
    }

    /// Moves parts that have grown too large for memory to disk.
    pub(crate) async fn spill(&mut self) -> Result<(), SplitError> {
        Ok(self.documents.spill().await?)
    }

    /// Discards parts that have grown beyond `bytes`: for measurements without a disk and without nodes.
    pub(super) fn discard(&mut self, bytes: usize) {
        self.documents.discard(bytes);
    }

    /// Ends the body, and returns the batch.
    pub(crate) async fn finish(mut self) -> Result<Batch, SplitError> {
        if self.received_bytes == 0 {
            return Err(SplitError::Empty);
        }
        match self.reader {
            Reader::Json(reader) => reader.finish(&mut self.documents)?,
            Reader::Csv(reader) => reader.finish(&mut self.documents)?,
        }
        Ok(self.documents.finish().await?)
    }
}

impl Batch {
    /// Feeds all documents to another splitter.
    pub(crate) async fn feed(&self, splitter: &mut Splitter) -> Result<(), SplitError> {
        let framing = self.nothing.framing();
        splitter.push(&framing.before)?;
        let mut first = true;
        for piece in self.parts.iter().flat_map(|part| &part.pieces) {
            if !std::mem::take(&mut first) {
                splitter.push(&[framing.between])?;
            }
            let mut body = piece.inner();
            while let Some(frame) = body.frame().await {
                if let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() {
                    splitter.push(&bytes)?;
                    splitter.spill().await?;
                }
            }
        }
        splitter.push(&framing.after)
    }
}

/// The text around and between documents in a body for a node, by format.
fn framing(format: Format) -> Framing {
    match format {
        Format::Json => Framing {
            before: Bytes::from_static(b"["),
            after: Bytes::from_static(b"]"),
            between: b',',
        },
        Format::Ndjson | Format::Csv { .. } => Framing {
            before: Bytes::new(),
            after: Bytes::from_static(b"\n"),
            between: b'\n',
        },
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
