//! The formats of a body of documents, and their content types.

use mime::Mime;

/// The content types that `POST` and `PUT …/documents` take.
pub(crate) const ACCEPTED: &str = "`application/json`, `application/x-ndjson`, `text/csv`";

/// A format of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An array of objects, or one object.
    Json,
    /// Objects, one after the other, usually one on each line.
    Ndjson,
    /// A line of column names, and a line for each document.
    Csv {
        /// The byte between two fields.
        delimiter: u8,
    },
}

/// Why a body's format isn't valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There is no content type.
    #[error(
        "A Content-Type header is missing. Accepted values for the Content-Type header are: {ACCEPTED}"
    )]
    Missing,
    /// The content type isn't one of the three formats.
    #[error(
        "The Content-Type `{0}` is invalid. Accepted values for the Content-Type header are: {ACCEPTED}"
    )]
    Unknown(String),
    /// A delimiter was given for a format other than CSV.
    #[error(
        "The Content-Type `{0}` does not support the use of a csv delimiter. The csv delimiter can only be used with the Content-Type `text/csv`."
    )]
    Delimiter(&'static str),
}

impl Format {
    /// The format of a content type, with the query's `csvDelimiter`.
    ///
    /// # Errors
    /// The type is missing or isn't one of the three, or the delimiter is for a format other than CSV.
    pub fn of(content_type: Option<&[u8]>, delimiter: Option<u8>) -> Result<Self, FormatError> {
        let raw = content_type.ok_or(FormatError::Missing)?;
        let text = || String::from_utf8_lossy(raw).into_owned();
        let mime: Mime = text().parse().map_err(|_| FormatError::Unknown(text()))?;
        match (mime.type_().as_str(), mime.subtype().as_str(), delimiter) {
            ("application", "json", None) => Ok(Self::Json),
            ("application", "json", Some(_)) => Err(FormatError::Delimiter("application/json")),
            ("application", "x-ndjson", None) => Ok(Self::Ndjson),
            ("application", "x-ndjson", Some(_)) => {
                Err(FormatError::Delimiter("application/x-ndjson"))
            }
            ("text", "csv", delimiter) => Ok(Self::Csv {
                delimiter: delimiter.unwrap_or(b','),
            }),
            (kind, subtype, _) => Err(FormatError::Unknown(format!("{kind}/{subtype}"))),
        }
    }

    /// The format's name in error messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv { .. } => "csv",
        }
    }

    /// The format's content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv { .. } => "text/csv",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_content_type_do_not_matter() {
        let of = |content_type: &str| Format::of(Some(content_type.as_bytes()), None);
        assert_eq!(of("application/json; charset=utf-8"), Ok(Format::Json));
        assert_eq!(of("Application/JSON"), Ok(Format::Json));
        assert_eq!(of("application/x-ndjson"), Ok(Format::Ndjson));
        assert_eq!(of("text/csv"), Ok(Format::Csv { delimiter: b',' }));
    }

    #[test]
    fn other_types_are_named_in_the_error() {
        let of = |content_type: &str| Format::of(Some(content_type.as_bytes()), None);
        assert_eq!(
            of("text/plain; charset=utf-8"),
            Err(FormatError::Unknown("text/plain".to_owned()))
        );
        assert_eq!(of("json"), Err(FormatError::Unknown("json".to_owned())));
        assert_eq!(Format::of(None, None), Err(FormatError::Missing));
        assert_eq!(
            Format::of(Some(b"application/json"), Some(b';')),
            Err(FormatError::Delimiter("application/json"))
        );
    }
}
