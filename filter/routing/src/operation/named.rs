//! An operation with what it names, apart from the request that asked for it.

use super::{Classified, Operation};

/// What a request does: its operation, and the index and the document that it names, decoded but not validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedOperation {
    /// The operation.
    pub operation: Operation,
    /// The uid of the index.
    pub index: Option<String>,
    /// The id of the document.
    pub document: Option<String>,
}

impl NamedOperation {
    /// An operation that names no index: it concerns the instance, or its body says what it is about.
    #[must_use]
    pub fn unnamed(operation: Operation) -> Self {
        Self {
            operation,
            index: None,
            document: None,
        }
    }

    /// An operation on this index.
    #[must_use]
    pub fn of_index(operation: Operation, uid: impl Into<String>) -> Self {
        Self {
            index: Some(uid.into()),
            ..Self::unnamed(operation)
        }
    }
}

impl From<Classified<'_>> for NamedOperation {
    fn from(classified: Classified<'_>) -> Self {
        Self {
            operation: classified.operation,
            index: classified.index.map(Into::into),
            document: classified.document.map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::classify;

    #[test]
    fn a_request_names_what_a_node_reads_in_its_path() {
        let named = |method, path| NamedOperation::from(classify(method, path).unwrap());
        assert_eq!(
            named("DELETE", "/%69ndexes/m%6Fvies//documents/a%2Db?x=1"),
            NamedOperation {
                document: Some("a-b".to_owned()),
                ..NamedOperation::of_index(Operation::DeleteDocument, "movies")
            }
        );
        assert_eq!(
            named("POST", "/indexes/movies/documents/%64elete"),
            NamedOperation::of_index(Operation::DeleteDocumentsByFilter, "movies")
        );
        assert_eq!(
            named("POST", "/swap-indexes"),
            NamedOperation::unnamed(Operation::SwapIndexes)
        );
    }
}
