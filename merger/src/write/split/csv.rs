//! Reads CSV bodies: a line of column names, then one line for each document, with the same reader and rules as a node.
//!
//! A column's name may end with `:number`, `:boolean` or `:string`; a value of another type is an error. Rows are passed on as
//! written, behind the header line, so that a node's own reader types the fields.

use csv_core::{ReadRecordResult, ReaderBuilder};
use serde_json::Value;
use weft_routing::document_id::DocumentId;

use super::documents::Documents;
use super::{Fault, SplitError};
use crate::write::judge::Special;

/// Reads a body as it arrives.
pub(super) struct Reader {
    core: csv_core::Reader,
    delimiter: u8,
    /// The first bytes, until there are enough to recognize a byte order mark.
    start: Option<Vec<u8>>,
    /// The raw text of the current record so far.
    raw: Vec<u8>,
    /// The unquoted fields of the current record so far, one after the other.
    text: Vec<u8>,
    text_length: usize,
    /// The end of each field in `text`.
    ends: Vec<usize>,
    field_count: usize,
    /// Where the current record begins.
    place: Place,
    /// How many bytes were read so far.
    bytes: u64,
    header: Option<Header>,
    document_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    record: u64,
    line: u64,
    byte: u64,
}

struct Header {
    columns: Vec<(String, Kind)>,
    /// The column of the primary key: the last one with that name.
    id: Option<usize>,
    /// Whether any column may be one that has special checks in the engine.
    special: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Boolean,
    Number,
}

const BYTE_ORDER_MARK_BYTES: usize = 3;

impl Reader {
    pub(super) fn new(delimiter: u8, document_bytes: u64) -> Self {
        Self {
            core: ReaderBuilder::new().delimiter(delimiter).build(),
            delimiter,
            start: Some(Vec::new()),
            raw: Vec::new(),
            text: vec![0; 1024],
            text_length: 0,
            ends: vec![0; 32],
            field_count: 0,
            place: Place {
                record: 0,
                line: 1,
                byte: 0,
            },
            bytes: 0,
            header: None,
            document_bytes,
        }
    }

    pub(super) fn unfinished_bytes(&self) -> u64 {
        (self.raw.len() + self.text_length) as u64
    }

    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        documents: &mut Documents,
    ) -> Result<(), SplitError> {
        if let Some(mut start) = self.start.take() {
            start.extend_from_slice(chunk);
            if start.len() < BYTE_ORDER_MARK_BYTES {
                self.start = Some(start);
                return Ok(());
            }
            return self.read(&start, documents);
        }
        self.read(chunk, documents)
    }

    pub(super) fn finish(mut self, documents: &mut Documents) -> Result<(), SplitError> {
        if let Some(start) = self.start.take() {
            self.read(&start, documents)?;
        }
        loop {
            match self.step(&[]).0 {
                ReadRecordResult::Record => self.record(documents, true)?,
                ReadRecordResult::End => break,
                _ => {}
            }
        }
        if self.header.is_none() {
            documents.set_header(b"");
        }
        Ok(())
    }

    fn read(&mut self, chunk: &[u8], documents: &mut Documents) -> Result<(), SplitError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let (result, read) = self.step(rest);
            let (taken, left) = rest.split_at_checked(read).unwrap_or((rest, &[]));
            self.raw.extend_from_slice(taken);
            self.bytes += read as u64;
            rest = left;
            if self.raw.len() as u64 > self.document_bytes {
                return Err(SplitError::DocumentTooLarge {
                    limit: self.document_bytes,
                });
            }
            if result == ReadRecordResult::Record {
                self.record(documents, false)?;
            }
        }
        Ok(())
    }

    /// Feeds the reader; returns how many bytes it consumed.
    fn step(&mut self, input: &[u8]) -> (ReadRecordResult, usize) {
        let text = self.text.get_mut(self.text_length..).unwrap_or_default();
        let ends = self.ends.get_mut(self.field_count..).unwrap_or_default();
        let (result, read, written, ended) = self.core.read_record(input, text, ends);
        self.text_length += written;
        self.field_count += ended;
        match result {
            ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
            ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
            _ => {}
        }
        (result, read)
    }

    /// Handles a complete record: the header, or a document.
    fn record(&mut self, documents: &mut Documents, last: bool) -> Result<(), SplitError> {
        let fields = self.fields();
        match &self.header {
            None => {
                let header = self.header(&fields?, documents)?;
                documents.set_header(self.row(last).as_slice());
                self.header = Some(header);
            }
            Some(header) => {
                if self.field_count != header.columns.len() {
                    return Err(self.ragged(header.columns.len()).into());
                }
                let fields = fields?;
                self.check(header, &fields)?;
                if documents.wants_key() {
                    documents.infer_from_columns(header.distinct_names());
                    let id = documents
                        .key()
                        .and_then(|key| header.last_named(key.name()));
                    self.take(header, id, &fields, documents, last);
                    if let Some(header) = &mut self.header {
                        header.id = id;
                    }
                } else {
                    self.take(header, header.id, &fields, documents, last);
                }
            }
        }
        self.raw.clear();
        self.text_length = 0;
        self.field_count = 0;
        self.place = Place {
            record: self.place.record + 1,
            line: self.core.line(),
            byte: self.bytes,
        };
        Ok(())
    }

    fn header(&self, fields: &[&str], documents: &Documents) -> Result<Header, SplitError> {
        let columns = fields.iter().map(|field| column(field)).collect();
        let mut header = Header {
            columns,
            id: None,
            special: fields.iter().any(|name| name.starts_with('_')),
        };
        header.id = documents
            .key()
            .and_then(|key| header.last_named(key.name()));
        Ok(header)
    }

    fn take(
        &self,
        header: &Header,
        id: Option<usize>,
        fields: &[&str],
        documents: &mut Documents,
        last: bool,
    ) {
        let value = id.and_then(|id| fields.get(id).copied().zip(header.columns.get(id)));
        let number = match value {
            Some((text, (_, Kind::Number))) => text
                .trim()
                .parse::<i64>()
                .ok()
                .map(|number| number.to_string()),
            _ => None,
        };
        let id = match value {
            Some((text, (_, Kind::Text))) => DocumentId::from_text(text).ok(),
            Some((_, (_, Kind::Number))) => number
                .as_deref()
                .and_then(|text| DocumentId::from_text(text).ok()),
            _ => None,
        };
        let special = header.special(fields);
        let names = || header.distinct_names().map(str::to_owned).collect();
        let value = header.routing_value(documents.field(), fields);
        let row = self.row(last);
        documents.row(&row, id.as_ref(), &special, value.as_deref(), names);
    }

    /// The record's raw text without surrounding line ends, so that another row can follow.
    fn row(&self, last: bool) -> Vec<u8> {
        let begin = self
            .raw
            .iter()
            .position(|byte| !matches!(byte, b'\r' | b'\n'))
            .unwrap_or(self.raw.len());
        let mut row = self.raw.get(begin..).unwrap_or_default().to_vec();
        if last && self.is_open(&row) {
            // The body ends inside quotes; a reader treats the end of the body as the closing quote.
            row.push(b'"');
            return row;
        }
        while let Some(b'\r' | b'\n') = row.last() {
            row.pop();
        }
        row
    }

    /// Whether a row ends inside quotes.
    fn is_open(&self, row: &[u8]) -> bool {
        let mut core = ReaderBuilder::new().delimiter(self.delimiter).build();
        let (mut text, mut ends) = (vec![0; row.len() + 2], vec![0; self.field_count + 2]);
        let ended = [row, b"\n"].concat();
        !matches!(
            core.read_record(&ended, &mut text, &mut ends).0,
            ReadRecordResult::Record
        )
    }

    /// The fields of the current record.
    fn fields(&self) -> Result<Vec<&str>, Fault> {
        let mut fields = Vec::with_capacity(self.field_count);
        let mut begin = 0;
        for (number, end) in self.ends.iter().take(self.field_count).enumerate() {
            let bytes = self.text.get(begin..*end).unwrap_or_default();
            fields.push(
                std::str::from_utf8(bytes)
                    .map_err(|error| self.not_text(number, error.valid_up_to()))?,
            );
            begin = *end;
        }
        Ok(fields)
    }

    /// Checks that the values in typed columns have the column's type.
    fn check(&self, header: &Header, fields: &[&str]) -> Result<(), Fault> {
        for ((_, kind), value) in header.columns.iter().zip(fields) {
            let trimmed = value.trim();
            if trimmed.is_empty() {
                continue;
            }
            let what = match kind {
                Kind::Text => continue,
                Kind::Number if trimmed.parse::<i64>().is_ok() => continue,
                Kind::Number => match trimmed.parse::<f64>() {
                    Ok(_) => continue,
                    Err(error) => ("number", error.to_string()),
                },
                Kind::Boolean => match trimmed.parse::<bool>() {
                    Ok(_) => continue,
                    Err(error) => ("boolean", error.to_string()),
                },
            };
            let (kind, error) = what;
            let line = self.place.record;
            return Err(Fault::Malformed(format!(
                "Error parsing {kind} {value:?} at line {line}: {error}"
            )));
        }
        Ok(())
    }

    fn ragged(&self, expected: usize) -> Fault {
        let Place { record, line, byte } = self.place;
        Fault::Malformed(format!(
            "CSV error: record {record} (line: {line}, byte: {byte}): found record with {} fields, but the previous \
             record has {expected} fields",
            self.field_count
        ))
    }

    fn not_text(&self, field: usize, valid_bytes: usize) -> Fault {
        let Place { record, line, byte } = self.place;
        Fault::Malformed(format!(
            "CSV parse error: record {record} (line {line}, field: {field}, byte: {byte}): invalid utf-8: invalid UTF-8 \
             in field {field} near byte index {valid_bytes}"
        ))
    }
}

impl Header {
    fn last_named(&self, name: &str) -> Option<usize> {
        self.columns.iter().rposition(|(column, _)| column == name)
    }

    /// The values of a row's special fields, as JSON in the way a node converts them.
    fn special(&self, fields: &[&str]) -> Special<String> {
        let mut special = Special::NONE;
        if !self.special {
            return special;
        }
        for ((name, kind), text) in self.columns.iter().zip(fields) {
            if name.starts_with('_') {
                special.note(name.as_bytes(), json(*kind, text));
            }
        }
        special
    }

    /// The value of the routing field, as JSON in the way a node converts it.
    fn routing_value(&self, field: Option<&str>, fields: &[&str]) -> Option<String> {
        let at = self.last_named(field?)?;
        let (_, kind) = self.columns.get(at)?;
        Some(json(*kind, fields.get(at)?))
    }

    fn distinct_names(&self) -> impl Iterator<Item = &str> {
        let names = || self.columns.iter().map(|(name, _)| name.as_str());
        names()
            .enumerate()
            .filter(move |(at, name)| !names().take(*at).any(|before| before == *name))
            .map(|(_, name)| name)
    }
}

/// A field as JSON; its type was checked before.
fn json(kind: Kind, text: &str) -> String {
    let trimmed = text.trim();
    let value = match kind {
        Kind::Text if text.is_empty() => Value::Null,
        Kind::Text => Value::from(text),
        Kind::Number => match trimmed.parse::<i64>() {
            Ok(number) => Value::from(number),
            Err(_) => trimmed.parse::<f64>().map_or(Value::Null, Value::from),
        },
        Kind::Boolean => trimmed.parse::<bool>().map_or(Value::Null, Value::from),
    };
    value.to_string()
}

/// A column's name and type; an unknown suffix belongs to the name.
fn column(field: &str) -> (String, Kind) {
    match field.rsplit_once(':') {
        Some((name, "string")) => (name.to_owned(), Kind::Text),
        Some((name, "boolean")) => (name.to_owned(), Kind::Boolean),
        Some((name, "number")) => (name.to_owned(), Kind::Number),
        _ => (field.to_owned(), Kind::Text),
    }
}

#[cfg(test)]
mod tests;
