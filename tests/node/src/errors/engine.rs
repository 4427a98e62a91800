//! Maps the engine's errors to the protocol's.

use milli_core::{Error, UserError};

use super::{ApiError, Code};

impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
        ApiError::new(code_of(&error), sentence_of(&error))
    }
}

impl ApiError {
    /// An engine's error about one index. Meilisearch names the index at the start of the message if the request doesn't
    /// make it obvious.
    pub(crate) fn of_index(uid: &str, error: Error) -> ApiError {
        let named = matches!(
            &error,
            Error::UserError(
                UserError::SerdeJson(_)
                    | UserError::InvalidFilter(_)
                    | UserError::FilterOperatorNotAllowed { .. }
                    | UserError::InvalidSortableAttribute { .. }
                    | UserError::InvalidSearchableAttribute { .. }
                    | UserError::InvalidDistinctAttribute { .. }
                    | UserError::SortRankingRuleMissing
                    | UserError::InvalidVectorDimensions { .. }
                    | UserError::InvalidIndexingVectorDimensions { .. }
                    | UserError::InvalidVectorsMapType { .. }
                    | UserError::InvalidVectorsEmbedderConf { .. }
                    | UserError::InvalidGeoField(_)
                    | UserError::DocumentEmbeddingError(_)
                    | UserError::InvalidMinTypoWordLenSetting(..)
                    | UserError::AttributeLimitReached
                    | UserError::DocumentEditionCannotModifyPrimaryKey
                    | UserError::DocumentEditionDocumentMustBeObject
                    | UserError::DocumentEditionRuntimeError(_)
                    | UserError::DocumentEditionCompilationError(_)
            )
        );
        let error = ApiError::from(error);
        if named {
            error.prefixed(&format!("Index `{uid}`: "))
        } else {
            error
        }
    }
}

fn code_of(error: &Error) -> Code {
    match error {
        Error::InternalError(_) => Code::Internal,
        Error::IoError(error) => match error.raw_os_error() {
            Some(5) => Code::IoError,
            Some(24) => Code::TooManyOpenFiles,
            Some(28) => Code::NoSpaceLeftOnDevice,
            _ => Code::Internal,
        },
        Error::UserError(error) => user_code_of(error),
    }
}

fn user_code_of(error: &UserError) -> Code {
    use UserError as U;
    match error {
        U::SerdeJson(_)
        | U::EnvAlreadyOpened
        | U::DocumentLimitReached
        | U::UnknownInternalDocumentId { .. } => Code::Internal,
        U::InvalidStoreFile => Code::InvalidStoreFile,
        U::NoSpaceLeftOnDevice => Code::NoSpaceLeftOnDevice,
        U::MaxDatabaseSizeReached => Code::DatabaseSizeLimitReached,
        U::AttributeLimitReached => Code::MaxFieldsLimitExceeded,
        U::InvalidFilter(_)
        | U::InvalidFilterExpression(..)
        | U::FilterOperatorNotAllowed { .. } => Code::InvalidSearchFilter,
        U::MissingDocumentId { .. } => Code::MissingDocumentId,
        U::InvalidDocumentId { .. } | U::TooManyDocumentIds { .. } => Code::InvalidDocumentId,
        U::MissingDocumentField(_) => Code::InvalidDocumentFields,
        U::NoPrimaryKeyCandidateFound => Code::IndexPrimaryKeyNoCandidateFound,
        U::MultiplePrimaryKeyCandidatesFound { .. } => Code::IndexPrimaryKeyMultipleCandidatesFound,
        U::PrimaryKeyCannotBeChanged(_) => Code::IndexPrimaryKeyAlreadyExists,
        U::InvalidDistinctAttribute { .. } => Code::InvalidSearchDistinct,
        U::SortRankingRuleMissing | U::InvalidSortableAttribute { .. } | U::SortError(_) => {
            Code::InvalidSearchSort
        }
        U::InvalidFacetsDistribution { .. } => Code::InvalidSearchFacets,
        U::InvalidSearchableAttribute { .. } => Code::InvalidSearchAttributesToSearchOn,
        U::InvalidFacetSearchFacetName { .. } => Code::InvalidFacetSearchFacetName,
        U::CriterionError(_) => Code::InvalidSettingsRankingRules,
        U::InvalidGeoField(_) => Code::InvalidDocumentGeoField,
        U::InvalidVectorDimensions { .. } | U::InvalidIndexingVectorDimensions { .. } => {
            Code::InvalidVectorDimensions
        }
        U::InvalidVectorsMapType { .. } | U::InvalidVectorsEmbedderConf { .. } => {
            Code::InvalidVectorsType
        }
        U::TooManyVectors(..) => Code::TooManyVectors,
        U::InvalidMinTypoWordLenSetting(..) => Code::InvalidSettingsTypoTolerance,
        U::InvalidSearchEmbedder(_) => Code::InvalidSearchEmbedder,
        U::InvalidSimilarEmbedder(_) => Code::InvalidSimilarEmbedder,
        U::VectorEmbeddingError(_) | U::DocumentEmbeddingError(_) => Code::VectorEmbeddingError,
        U::DocumentEditionCannotModifyPrimaryKey
        | U::DocumentEditionDocumentMustBeObject
        | U::DocumentEditionRuntimeError(_)
        | U::DocumentEditionCompilationError(_) => Code::EditDocumentsByFunctionError,
        U::InvalidPrompt(_)
        | U::InvalidPromptForEmbeddings(..)
        | U::TooManyEmbedders(_)
        | U::InvalidFieldForSource { .. }
        | U::InvalidOpenAiModel { .. }
        | U::MissingFieldForSource { .. }
        | U::InvalidOpenAiModelDimensions { .. }
        | U::InvalidOpenAiModelDimensionsMax { .. }
        | U::InvalidSourceForNested { .. }
        | U::MissingSourceForNested { .. }
        | U::InvalidSettingsEmbedder { .. }
        | U::InvalidSettingsDimensions { .. }
        | U::InvalidDisableBinaryQuantization { .. }
        | U::InvalidSettingsDocumentTemplateMaxBytes { .. }
        | U::InvalidUrl { .. } => Code::InvalidSettingsEmbedders,
    }
}

/// The message: the engine's own, except for messages that the protocol words differently.
fn sentence_of(error: &Error) -> String {
    match error {
        Error::UserError(UserError::InvalidFilterExpression(expected, found)) => format!(
            "Invalid syntax for the filter parameter: `expected {}, found: {found}`.",
            expected.join(", ")
        ),
        error => error.to_string(),
    }
}
