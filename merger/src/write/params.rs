//! The query of a write.

use crate::call::Call;

/// The query parameters of `POST` and `PUT …/documents`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Params {
    pub(crate) primary_key: Option<String>,
    pub(crate) csv_delimiter: Option<u8>,
    pub(crate) custom_metadata: Option<String>,
    pub(crate) skip_creation: Option<bool>,
}

/// The query isn't valid. A node words the refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidQuery;

impl Params {
    /// Parses the query of an addition or update of documents.
    pub(crate) fn read(call: &Call) -> Result<Self, InvalidQuery> {
        let mut params = Self::default();
        for (name, value) in call.query_pairs() {
            match name.as_ref() {
                // If a parameter is given twice, the last value counts.
                "primaryKey" => params.primary_key = Some(value.into_owned()),
                "customMetadata" => params.custom_metadata = Some(value.into_owned()),
                "csvDelimiter" => match value.as_bytes() {
                    [delimiter] if delimiter.is_ascii() => params.csv_delimiter = Some(*delimiter),
                    _ => return Err(InvalidQuery),
                },
                "skipCreation" if value.eq_ignore_ascii_case("true") => {
                    params.skip_creation = Some(true)
                }
                "skipCreation" if value.eq_ignore_ascii_case("false") => {
                    params.skip_creation = Some(false)
                }
                _ => return Err(InvalidQuery),
            }
        }
        Ok(params)
    }

    /// The query for a node, with the primary key of the whole write.
    pub(crate) fn for_node(&self, primary_key: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(key) = primary_key {
            query.append_pair("primaryKey", key);
        }
        if let Some(delimiter) = self.csv_delimiter {
            query.append_pair("csvDelimiter", &char::from(delimiter).to_string());
        }
        if let Some(skip) = self.skip_creation {
            query.append_pair("skipCreation", if skip { "true" } else { "false" });
        }
        query.finish()
    }
}

/// `customMetadata` from the query of any other write; the other parameters are ignored.
pub(crate) fn custom_metadata(call: &Call) -> Option<String> {
    let mut pairs = call.query_pairs();
    pairs
        .find(|(name, _)| name == "customMetadata")
        .map(|(_, value)| value.into_owned())
}
