//! The name of an index.

use deserr::Deserr;

use crate::errors::{ApiError, ApiResult, Code};
use crate::validate::{FromText, Wrong};

/// A well-formed name.
#[derive(Debug, Clone, Deserr)]
#[deserr(try_from(String) = IndexUid::parse -> Wrong)]
pub(crate) struct IndexUid(pub(crate) String);

impl IndexUid {
    fn parse(name: String) -> Result<IndexUid, Wrong> {
        let fits = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if name.is_empty() || name.len() > 400 || !fits {
            return Err(Wrong(format!(
                "`{name}` is not a valid index uid. Index uid can be an integer or a string containing only \
                 alphanumeric characters, hyphens (-) and underscores (_), and can not be more than 512 bytes."
            )));
        }
        Ok(IndexUid(name))
    }

    /// Checks a name from a path.
    pub(crate) fn from_path(name: String) -> ApiResult<String> {
        match IndexUid::parse(name) {
            Ok(uid) => Ok(uid.0),
            Err(Wrong(message)) => Err(ApiError::new(Code::InvalidIndexUid, message)),
        }
    }
}

impl FromText for IndexUid {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        IndexUid::parse(text.to_owned())
    }
}
