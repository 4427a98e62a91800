//! Bodies with documents: JSON, NDJSON and CSV, all converted to the engine's form, one object per line.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Deserializer, Map, Value};

use crate::errors::{ApiError, ApiResult, Code};

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadFormat {
    /// An array of objects, or one object.
    Json,
    /// Objects, one after the other.
    Ndjson,
    /// A table with a header line.
    Csv {
        /// What separates its columns.
        delimiter: u8,
    },
}

impl PayloadFormat {
    /// The name in error messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            PayloadFormat::Json => "json",
            PayloadFormat::Ndjson => "ndjson",
            PayloadFormat::Csv { .. } => "csv",
        }
    }
}

/// Documents in the engine's form.
#[derive(Debug, Default)]
pub(crate) struct Normalized {
    /// The documents, one JSON object per line.
    pub(crate) lines: Vec<u8>,
    /// The number of documents.
    pub(crate) count: u64,
}

impl Normalized {
    fn push(&mut self, document: &str) {
        self.lines.extend_from_slice(document.as_bytes());
        self.lines.push(b'\n');
        self.count += 1;
    }
}

/// Converts a body to the engine's form.
pub(crate) fn normalize(body: &[u8], format: PayloadFormat) -> ApiResult<Normalized> {
    if body.is_empty() {
        return Err(ApiError::new(
            Code::MissingPayload,
            format!("A {} payload is missing.", format.name()),
        ));
    }
    match format {
        PayloadFormat::Json => from_json(body),
        PayloadFormat::Ndjson => from_ndjson(body),
        PayloadFormat::Csv { delimiter } => from_csv(body, delimiter),
    }
}

fn from_json(body: &[u8]) -> ApiResult<Normalized> {
    let malformed = |error: serde_json::Error| malformed_json(&error, PayloadFormat::Json);
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let mut deserializer = Deserializer::from_slice(body);
    let mut documents = Normalized::default();
    if is_array {
        deserializer
            .deserialize_seq(Documents(&mut documents))
            .map_err(malformed)?;
        deserializer.end().map_err(malformed)?;
    } else {
        // One object; anything else is refused here with the right message.
        let document: Map<String, Value> = serde_json::from_slice(body).map_err(malformed)?;
        documents.push(&serde_json::to_string(&document)?);
    }
    Ok(documents)
}

fn from_ndjson(body: &[u8]) -> ApiResult<Normalized> {
    let mut documents = Normalized::default();
    for document in Deserializer::from_slice(body).into_iter::<&RawValue>() {
        let document = document.map_err(|error| malformed_json(&error, PayloadFormat::Ndjson))?;
        if !document.get().starts_with('{') {
            return Err(malformed(
                "Couldn't serialize document value: data are neither an object nor a list of objects",
                PayloadFormat::Ndjson,
            ));
        }
        documents.push(document.get());
    }
    Ok(documents)
}

struct Documents<'a>(&'a mut Normalized);

impl<'de> Visitor<'de> for Documents<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut documents: A) -> Result<(), A::Error> {
        while documents.next_element_seed(OneDocument(self.0))?.is_some() {}
        Ok(())
    }
}

struct OneDocument<'a>(&'a mut Normalized);

impl<'de> DeserializeSeed<'de> for OneDocument<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let document: &RawValue = serde::Deserialize::deserialize(deserializer)?;
        if !document.get().starts_with('{') {
            return Err(serde::de::Error::custom("not an object"));
        }
        self.0.push(document.get());
        Ok(())
    }
}

fn malformed_json(error: &serde_json::Error, format: PayloadFormat) -> ApiError {
    let cause = match error.classify() {
        Category::Data => "data are neither an object nor a list of objects".to_owned(),
        _ => error.to_string(),
    };
    malformed(
        &format!("Couldn't serialize document value: {}", shortened(cause)),
        format,
    )
}

/// Shortens long causes in the middle, since they may quote the whole body.
fn shortened(cause: String) -> String {
    const START: usize = 50;
    const END: usize = 85;
    if cause.len() <= START + END + 3
        || !cause.is_char_boundary(START)
        || !cause.is_char_boundary(cause.len() - END)
    {
        return cause;
    }
    let (start, end) = (cause.get(..START), cause.get(cause.len() - END..));
    format!(
        "{}...{}",
        start.unwrap_or_default(),
        end.unwrap_or_default()
    )
}

fn malformed(cause: &str, format: PayloadFormat) -> ApiError {
    ApiError::new(
        Code::MalformedPayload,
        format!(
            "The `{}` payload provided is malformed. `{cause}`.",
            format.name()
        ),
    )
}

#[derive(Clone, Copy)]
enum ColumnType {
    Text,
    Number,
    Boolean,
}

fn from_csv(body: &[u8], delimiter: u8) -> ApiResult<Normalized> {
    let format = PayloadFormat::Csv { delimiter };
    let refused = |cause: String| {
        ApiError::new(
            Code::MalformedPayload,
            format!(
                "The `{}` payload provided is malformed: `{cause}`.",
                format.name()
            ),
        )
    };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .from_reader(body);
    let headers = reader
        .headers()
        .map_err(|error| refused(error.to_string()))?
        .clone();
    let columns: Vec<(&str, ColumnType)> = headers.iter().map(column).collect();
    let mut documents = Normalized::default();
    for (line, record) in reader.records().enumerate() {
        let record = record.map_err(|error| refused(error.to_string()))?;
        let mut document = Map::new();
        for ((name, kind), cell) in columns.iter().zip(record.iter()) {
            let value = cell_value(cell, *kind).map_err(|cause| {
                let (kind, cause) = cause;
                refused(format!(
                    "Error parsing {kind} {cell:?} at line {}: {cause}",
                    line + 1
                ))
            })?;
            document.insert((*name).to_owned(), value);
        }
        documents.push(&serde_json::to_string(&document)?);
    }
    Ok(documents)
}

fn column(header: &str) -> (&str, ColumnType) {
    match header.rsplit_once(':') {
        Some((name, "string")) => (name, ColumnType::Text),
        Some((name, "number")) => (name, ColumnType::Number),
        Some((name, "boolean")) => (name, ColumnType::Boolean),
        _ => (header, ColumnType::Text),
    }
}

fn cell_value(cell: &str, kind: ColumnType) -> Result<Value, (&'static str, String)> {
    let trimmed = cell.trim();
    Ok(match kind {
        ColumnType::Text if cell.is_empty() => Value::Null,
        ColumnType::Text => Value::from(cell),
        _ if trimmed.is_empty() => Value::Null,
        ColumnType::Number => match trimmed.parse::<i64>() {
            Ok(integer) => Value::from(integer),
            Err(_) => Value::from(
                trimmed
                    .parse::<f64>()
                    .map_err(|error| ("number", error.to_string()))?,
            ),
        },
        ColumnType::Boolean => Value::from(
            trimmed
                .parse::<bool>()
                .map_err(|error| ("boolean", error.to_string()))?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(body: &str, format: PayloadFormat) -> String {
        String::from_utf8(normalize(body.as_bytes(), format).unwrap().lines).unwrap()
    }

    #[test]
    fn an_array_and_a_single_object_become_lines() {
        assert_eq!(
            lines(r#" [{"id":1}, {"id": 2}]"#, PayloadFormat::Json),
            "{\"id\":1}\n{\"id\": 2}\n"
        );
        assert_eq!(lines(r#"{"id":1}"#, PayloadFormat::Json), "{\"id\":1}\n");
        assert_eq!(lines("[]", PayloadFormat::Json), "");
    }

    #[test]
    fn a_table_is_typed_by_its_header() {
        let csv = "id:number,name,ok:boolean\n1,\"a,b\",true\n2,,\n";
        let expected =
            "{\"id\":1,\"name\":\"a,b\",\"ok\":true}\n{\"id\":2,\"name\":null,\"ok\":null}\n";
        assert_eq!(lines(csv, PayloadFormat::Csv { delimiter: b',' }), expected);
    }

    #[test]
    fn what_is_malformed_is_said_in_the_protocols_words() {
        let refused = normalize(br#"[{"id": 1, }]"#, PayloadFormat::Json).unwrap_err();
        assert_eq!(
            refused.message,
            "The `json` payload provided is malformed. `Couldn't serialize document value: key must be a string at \
             line 1 column 12`."
        );
        let refused = normalize(b"3", PayloadFormat::Json).unwrap_err();
        assert!(
            refused
                .message
                .contains("data are neither an object nor a list of objects")
        );
    }
}
