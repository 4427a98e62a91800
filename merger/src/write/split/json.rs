//! Reads JSON bodies (an array of objects, or one object) and NDJSON bodies (objects, one after the other).
//!
//! As on a node: text after the array's end is ignored; NDJSON needs no line breaks; a single object is parsed as a whole, with
//! everything in it.

use super::documents::{Documents, Invalid};
use super::explain::{self, Place, Position};
use super::scan::{Scanner, Stop, skip_space};
use super::{Fault, SplitError};

/// Text that can't be a document is refused once this many bytes of it, or all of it, have arrived: less text may not show the
/// error that a node would report.
const FAULT_BYTES: usize = 64 << 10;

/// Reads a body as it arrives.
pub(super) struct Reader {
    scanner: Scanner,
    state: State,
    /// Bytes that arrived and aren't read yet: less than one document.
    pending: Vec<u8>,
    /// The length that `pending` must reach before it is scanned again: double its last length, so that a long document in
    /// small chunks isn't scanned from the start for each chunk.
    again: usize,
    /// The position in the body where `pending` begins.
    position: Position,
    document_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In an array, at a place that determines what may follow.
    Array(Place),
    /// In NDJSON, between two documents.
    Lines,
    /// The body isn't an array: it is read as a whole.
    Whole,
    /// After the array's end.
    Done,
}

impl Reader {
    pub(super) fn array(document_bytes: u64) -> Self {
        Self::new(State::Array(Place::Start), document_bytes)
    }

    pub(super) fn lines(document_bytes: u64) -> Self {
        Self::new(State::Lines, document_bytes)
    }

    fn new(state: State, document_bytes: u64) -> Self {
        let scanner = Scanner::default();
        Self {
            scanner,
            state,
            pending: Vec::new(),
            again: 0,
            position: Position::START,
            document_bytes,
        }
    }

    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        documents: &mut Documents,
    ) -> Result<(), SplitError> {
        if self.state == State::Done {
            return Ok(());
        }
        if self.pending.is_empty() {
            let left = self.read(chunk, documents, false)?;
            self.pending.extend_from_slice(left);
        } else {
            self.pending.extend_from_slice(chunk);
            if self.pending.len() >= self.again {
                let pending = std::mem::take(&mut self.pending);
                let left = self.read(&pending, documents, false)?.len();
                self.pending = pending;
                self.pending.drain(..self.pending.len() - left);
            }
        }
        if self.pending.len() as u64 > self.document_bytes {
            return Err(SplitError::DocumentTooLarge {
                limit: self.document_bytes,
            });
        }
        Ok(())
    }

    pub(super) fn unfinished_bytes(&self) -> u64 {
        self.pending.len() as u64
    }

    pub(super) fn finish(mut self, documents: &mut Documents) -> Result<(), SplitError> {
        let pending = std::mem::take(&mut self.pending);
        let left = self.read(&pending, documents, true)?;
        match self.state {
            State::Done | State::Lines => Ok(()),
            State::Array(place) => Err(explain::json(place, left, self.position).into()),
            State::Whole => self.whole(left, documents),
        }
    }

    /// Reads as far as possible; returns the text that is left for later.
    fn read<'a>(
        &mut self,
        text: &'a [u8],
        documents: &mut Documents,
        last: bool,
    ) -> Result<&'a [u8], SplitError> {
        let mut rest = text;
        let outcome = loop {
            let begin = skip_space(rest);
            match self.step(begin, documents) {
                Ok(next) => rest = next,
                Err(step) => {
                    rest = begin;
                    break step;
                }
            }
        };
        let read = text.get(..text.len() - rest.len()).unwrap_or_default();
        self.position = self.position.after(read);
        // Scanned at the limit at the latest: documents that are complete by then must not count as one too large document.
        let limit = usize::try_from(self.document_bytes).unwrap_or(usize::MAX);
        self.again = (rest.len() * 2).min(limit);
        match outcome {
            Step::Later if last && self.state == State::Lines && !rest.is_empty() => {
                Err(self.explain(rest).into())
            }
            Step::Later => Ok(rest),
            Step::Invalid => match self.explain(rest) {
                // The message must not depend on how the body arrived, so more of the body may be needed for it.
                fault if !last && (rest.len() < FAULT_BYTES || fault.is_of_end()) => Ok(rest),
                fault => Err(fault.into()),
            },
            Step::TooLarge => Err(SplitError::DocumentTooLarge {
                limit: self.document_bytes,
            }),
            Step::NotText(length) => {
                let document = rest.get(..length).unwrap_or(rest);
                Err(explain::not_text(self.position.after(document)).into())
            }
        }
    }

    /// Reads one step from `text`, which must not begin with white space; returns the text after it.
    fn step<'a>(&mut self, text: &'a [u8], documents: &mut Documents) -> Result<&'a [u8], Step> {
        let Some((&byte, after)) = text.split_first() else {
            return Err(Step::Later);
        };
        match (self.state, byte) {
            (State::Array(Place::Start), b'[') => {
                self.state = State::Array(Place::First);
                Ok(after)
            }
            (State::Array(Place::Start), _) => {
                self.state = State::Whole;
                Err(Step::Later)
            }
            (State::Array(Place::Between), b',') => {
                self.state = State::Array(Place::Next);
                Ok(after)
            }
            (State::Array(Place::First | Place::Between), b']') => {
                self.state = State::Done;
                Ok(after)
            }
            (State::Array(Place::Between), _) => Err(Step::Invalid),
            (State::Array(_), _) => {
                let rest = self.document(text, documents)?;
                self.state = State::Array(Place::Between);
                Ok(rest)
            }
            (State::Lines, _) => self.document(text, documents),
            (State::Whole, _) => Err(Step::Later),
            (State::Done, _) => Ok(&[]),
        }
    }

    fn document<'a>(
        &mut self,
        text: &'a [u8],
        documents: &mut Documents,
    ) -> Result<&'a [u8], Step> {
        let object = self.scanner.object(text, documents.wanted())?;
        if object.raw.len() as u64 > self.document_bytes {
            return Err(Step::TooLarge);
        }
        documents.object(&object)?;
        Ok(text.get(object.raw.len()..).unwrap_or_default())
    }

    /// Reads a body that isn't an array: a single object, or something that a node refuses.
    fn whole(&mut self, text: &[u8], documents: &mut Documents) -> Result<(), SplitError> {
        if !text.starts_with(b"{") {
            return Err(explain::json(Place::Start, text, self.position).into());
        }
        if let Err(error) =
            serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(text)
        {
            return Err(explain::single(&error, self.position).into());
        }
        let scanned = self.scanner.object(text, documents.wanted());
        let taken = scanned
            .map_err(Step::from)
            .and_then(|object| Ok(documents.object(&object)?));
        taken.map_err(|_| explain::json(Place::Start, text, self.position).into())
    }

    fn explain(&self, text: &[u8]) -> Fault {
        match self.state {
            State::Array(place) => explain::json(place, text, self.position),
            _ => explain::ndjson(text, self.position),
        }
    }
}

/// Why a step can't be completed.
enum Step {
    /// More of the body is needed.
    Later,
    /// The text can't become valid, whatever follows.
    Invalid,
    /// The next bytes, this many, are a document but aren't UTF-8.
    NotText(usize),
    /// The document is larger than a node accepts.
    TooLarge,
}

impl From<Stop> for Step {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Incomplete => Self::Later,
            Stop::Invalid => Self::Invalid,
        }
    }
}

impl From<Invalid> for Step {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Text(length) => Self::NotText(length),
            Invalid::Key => Self::Invalid,
        }
    }
}
