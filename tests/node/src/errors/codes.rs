//! The error codes of Meilisearch's protocol. Each has a status, a type, and its name in snake case.
//!
//! Each code is also a unit type in [`of`], so that a field's declaration can name the error code for a wrong value (see
//! [`crate::validate`]).

use axum::http::StatusCode;

macro_rules! codes {
    ($($status:ident $kind:literal: $($code:ident)+;)+) => {
        /// One code of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, dead_code, reason = "the names are the protocol's own, which the node doesn't use up")]
        pub(crate) enum Code { $($($code),+),+ }

        impl Code {
            /// The HTTP status of the code.
            pub(crate) fn status(self) -> StatusCode {
                match self { $($(Code::$code)|+ => StatusCode::$status),+ }
            }

            /// The type in the API: `invalid_request`, `auth`, `internal` or `system`.
            pub(crate) fn kind(self) -> &'static str {
                match self { $($(Code::$code)|+ => $kind),+ }
            }

            fn ident(self) -> &'static str {
                match self { $($(Code::$code => stringify!($code)),+),+ }
            }
        }

        /// The codes as types.
        #[allow(missing_docs, dead_code, reason = "the names are the protocol's own, which the node doesn't use up")]
        pub(crate) mod of {
            use super::{Code, Coded};
            $($(pub(crate) struct $code;
            impl Coded for $code { const CODE: Code = Code::$code; })+)+
        }
    };
}

/// A type that represents one code.
pub(crate) trait Coded {
    /// The code.
    const CODE: Code;
}

impl Code {
    /// The name in the API, such as `invalid_search_q`.
    pub(crate) fn name(self) -> String {
        let mut name = String::new();
        for letter in self.ident().chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

codes! {
    CONFLICT "invalid_request":
        ApiKeyAlreadyExists IndexAlreadyExists;
    NOT_FOUND "invalid_request":
        ApiKeyNotFound DocumentNotFound IndexNotFound TaskNotFound BatchNotFound;
    BAD_REQUEST "invalid_request":
        IndexScopedApiKeyWithGlobalAction BadParameter BadRequest DuplicateIndexFound
        ImmutableIndexCreatedAt ImmutableIndexUpdatedAt ImmutableApiKeyActions ImmutableApiKeyCreatedAt ImmutableApiKeyExpiresAt
        ImmutableApiKeyIndexes ImmutableApiKeyUid ImmutableApiKeyUpdatedAt
        IndexPrimaryKeyAlreadyExists IndexPrimaryKeyMultipleCandidatesFound
        IndexPrimaryKeyNoCandidateFound InvalidApiKeyActions InvalidApiKeyDescription
        InvalidApiKeyExpiresAt InvalidApiKeyIndexes InvalidApiKeyLimit InvalidApiKeyName
        InvalidApiKeyOffset InvalidApiKeyUid InvalidDocumentCsvDelimiter InvalidDocumentFields
        InvalidDocumentRetrieveVectors MissingDocumentFilter MissingDocumentEditionFunction
        InvalidDocumentFilter InvalidDocumentSort InvalidDocumentUseNetwork InvalidDocumentGeoField
        InvalidDocumentGeojsonField InvalidVectorDimensions InvalidVectorsType InvalidDocumentId
        InvalidDocumentIds InvalidDocumentLimit InvalidDocumentOffset InvalidSearchEmbedder
        InvalidSimilarEmbedder InvalidSearchHybridQuery InvalidIndexLimit InvalidIndexOffset
        InvalidIndexPrimaryKey InvalidIndexCustomMetadata InvalidSkipCreation InvalidIndexUid
        InvalidMultiSearchFacets InvalidMultiSearchFacetsByIndex InvalidMultiSearchFacetOrder
        InvalidMultiSearchQueryPersonalization InvalidMultiSearchQueryShowPerformanceDetails
        InvalidMultiSearchFederated InvalidMultiSearchFederationOptions
        InvalidMultiSearchMaxValuesPerFacet InvalidMultiSearchMergeFacets
        InvalidMultiSearchQueryFacets InvalidMultiSearchDistinct InvalidMultiSearchQueryPagination
        InvalidMultiSearchQueryRankingRules InvalidMultiSearchQueryPosition InvalidMultiSearchWeight InvalidMultiSearchRemote
        InvalidSearchAttributesToSearchOn InvalidSearchAttributesToCrop
        InvalidSearchAttributesToHighlight InvalidSimilarAttributesToRetrieve
        InvalidSimilarRetrieveVectors InvalidSearchAttributesToRetrieve
        InvalidSearchRankingScoreThreshold InvalidSimilarRankingScoreThreshold
        InvalidSearchRetrieveVectors InvalidSearchCropLength InvalidSearchCropMarker
        InvalidSearchFacets InvalidSearchSemanticRatio InvalidSearchLocales
        InvalidFacetSearchExhaustiveFacetCount InvalidFacetSearchFacetName InvalidSimilarId
        InvalidSearchFilter InvalidSimilarFilter InvalidSearchHighlightPostTag
        InvalidSearchHighlightPreTag InvalidSearchHitsPerPage InvalidSimilarLimit InvalidSearchLimit
        InvalidSearchMatchingStrategy InvalidSimilarOffset InvalidSearchOffset InvalidSearchPage
        InvalidSearchQ InvalidFacetSearchQuery InvalidFacetSearchName FacetSearchDisabled
        InvalidSearchVector InvalidSearchMedia InvalidSearchShowMatchesPosition
        InvalidSearchShowRankingScore InvalidSimilarShowRankingScore
        InvalidSearchShowRankingScoreDetails InvalidSearchShowPerformanceDetails
        InvalidSearchUseNetwork InvalidSimilarShowRankingScoreDetails
        InvalidSimilarShowPerformanceDetails InvalidSearchSort InvalidSearchDistinct
        InvalidSearchPersonalize InvalidSearchPersonalizeUserContext InvalidSearchMediaAndVector
        InvalidSettingsDisplayedAttributes InvalidSettingsDistinctAttribute
        InvalidSettingsProximityPrecision InvalidSettingsFacetSearch InvalidSettingsPrefixSearch
        InvalidSettingsFaceting InvalidSettingsFilterableAttributes InvalidSettingsPagination
        InvalidSettingsSearchCutoffMs InvalidSettingsEmbedders InvalidSettingsRankingRules
        InvalidSettingsSearchableAttributes InvalidSettingsSortableAttributes
        InvalidSettingsStopWords InvalidSettingsNonSeparatorTokens InvalidSettingsSeparatorTokens
        InvalidSettingsDictionary InvalidSettingsSynonyms InvalidSettingsTypoTolerance
        InvalidSettingsLocalizedAttributes InvalidStatsShowInternalDatabaseSizes
        InvalidStatsSizeFormat InvalidSwapDuplicateIndexFound InvalidSwapIndexes InvalidSwapRename
        InvalidTaskAfterEnqueuedAt InvalidTaskAfterFinishedAt InvalidTaskAfterStartedAt
        InvalidTaskBeforeEnqueuedAt InvalidTaskBeforeFinishedAt InvalidTaskBeforeStartedAt
        InvalidTaskCanceledBy InvalidTaskFrom InvalidTaskLimit InvalidTaskReverse
        InvalidTaskStatuses InvalidTaskTypes InvalidTaskUids InvalidBatchUids FeatureNotEnabled
        MalformedPayload MaxFieldsLimitExceeded MissingApiKeyActions MissingApiKeyExpiresAt
        MissingApiKeyIndexes MissingDocumentId MissingFacetSearchFacetName MissingIndexUid
        MissingPayload MissingSearchHybrid MissingSwapIndexes MissingTaskFilters TooManyVectors
        VectorEmbeddingError NotFoundSimilarId InvalidDocumentEditionContext
        InvalidDocumentEditionFunctionFilter EditDocumentsByFunctionError;
    INTERNAL_SERVER_ERROR "internal":
        DatabaseSizeLimitReached Internal InvalidStoreFile;
    FORBIDDEN "auth":
        InvalidApiKey;
    UNSUPPORTED_MEDIA_TYPE "invalid_request":
        InvalidContentType MissingContentType;
    UNPROCESSABLE_ENTITY "system":
        IoError NoSpaceLeftOnDevice TooManyOpenFiles;
    UNAUTHORIZED "auth":
        MissingAuthorizationHeader MissingMasterKey;
    PAYLOAD_TOO_LARGE "invalid_request":
        PayloadTooLarge;
    SERVICE_UNAVAILABLE "system":
        TooManySearchRequests;
    NOT_IMPLEMENTED "invalid_request":
        NotImplemented;
}
