//! Split: from the bytes of a body to each shard's part, as they come in.
//!
//! One pass finds where a document begins and ends, checks that it is what it should be, finds its id, and appends its
//! bytes, as the client wrote them, to the part of the shard that owns the id. Memory is bounded by one document and the
//! parts' own bound (see [`super::spool`]).
//!
//! Invariants: a body that a node would refuse is refused here, before anything is delivered. A document that a node's
//! task would refuse for its id makes the whole batch [`Batch::refused`]: the parts are dropped, and that document alone goes to a
//! node, whose task fails in the node's own words. What the engine refuses later, when it indexes, is noted by a judge.

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
    /// The body is not what its content type says; in a node's words.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The body is empty.
    #[error("the body is empty")]
    Empty,
    /// One document is larger than what a node takes.
    #[error("a document is larger than {limit} bytes")]
    DocumentTooLarge {
        /// The bound, in bytes.
        limit: u64,
    },
    /// The temporary file.
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
    /// Its name; without one, it is inferred from the first document.
    pub(crate) name: Option<String>,
    /// Whether another write may yet decide for another key. Then a refused batch keeps its documents.
    pub(crate) is_open: bool,
}

/// A body, split.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Each shard's part; shards without documents are left out. Of a refused batch, which was split by a key that may
    /// not be the last word, all documents; of any other refused batch, nothing.
    pub(crate) parts: Vec<ShardPart>,
    /// How many documents there were.
    pub(crate) received: u64,
    /// The primary key by which they were split; `None` if there was no document to infer it from, or no one candidate.
    pub(crate) key: Option<String>,
    /// The first document that a node's task would refuse, and with it the batch.
    pub(crate) refused: Option<Piece>,
    /// A body with no document in it, of the same format.
    pub(crate) nothing: Piece,
    /// Documents that the engine may refuse when it indexes them, and with them the batch.
    pub(super) suspicions: Option<Suspicions>,
}

/// What one shard gets of a body.
#[derive(Debug)]
pub(crate) struct ShardPart {
    pub(crate) shard: ShardId,
    pub(crate) pieces: Vec<Piece>,
    /// The documents' ids as they came, unless they are too many to keep.
    pub(crate) ids: Option<Ids>,
}

impl Splitter {
    /// A splitter of bodies of `format` for an index whose slots lie as `slots` says.
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

    /// The same, with a judge of the documents.
    pub(super) fn judged(mut self, judge: Judge) -> Self {
        self.documents.judge(judge);
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

    /// How much is kept of a document that isn't complete.
    pub(crate) fn unfinished_bytes(&self) -> u64 {
        match &self.reader {
            Reader::Json(reader) => reader.unfinished_bytes(),
            Reader::Csv(reader) => reader.unfinished_bytes(),
        }
    }

    /// Moves to disk what has grown too large for memory.
    pub(crate) async fn spill(&mut self) -> Result<(), SplitError> {
        Ok(self.documents.spill().await?)
    }

    /// Forgets parts that have grown beyond `bytes`: for measurements without a disk and without nodes.
    pub(super) fn discard(&mut self, bytes: usize) {
        self.documents.discard(bytes);
    }

    /// The body is complete.
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
    /// Brings all documents to another splitter.
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

/// What stands around documents of a format in a body for a node.
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
