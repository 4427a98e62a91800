//! The shapes of searches in bodies: a single one, and one of several.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use deserr::Deserr;
use milli_core::TermsMatchingStrategy;
use serde_json::Value;

use crate::engine::locales::Locale;
use crate::engine::search::{Hybrid, Query};
use crate::errors::{ApiError, ApiResult, Code, of};
use crate::http::uid::IndexUid;
use crate::validate::{FromText, InBody, Wrong, missing};

pub(super) const CROP_LENGTH: usize = 10;
pub(super) const CROP_MARKER: &str = "…";
pub(super) const PRE_TAG: &str = "<em>";
pub(super) const POST_TAG: &str = "</em>";

/// The semantic share of a hybrid search, from 0 to 1.
#[derive(Debug, Clone, Copy, Deserr)]
#[deserr(try_from(f32) = SemanticRatio::parse -> Wrong)]
pub(crate) struct SemanticRatio(pub(crate) f32);

impl SemanticRatio {
    fn parse(ratio: f32) -> Result<SemanticRatio, Wrong> {
        if (0.0..=1.0).contains(&ratio) {
            Ok(SemanticRatio(ratio))
        } else {
            Err(Wrong(
                "the value of `semanticRatio` is invalid, expected a float between `0.0` and `1.0`.".to_owned(),
            ))
        }
    }
}

impl Default for SemanticRatio {
    fn default() -> Self {
        SemanticRatio(0.5)
    }
}

impl FromText for SemanticRatio {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        SemanticRatio::parse(text.parse().unwrap_or(-1.0))
    }
}

/// The score that a hit must reach, from 0 to 1.
#[derive(Debug, Clone, Copy, Deserr)]
#[deserr(try_from(f64) = Threshold::parse -> Wrong)]
pub(crate) struct Threshold(pub(crate) f64);

impl Threshold {
    fn parse(threshold: f64) -> Result<Threshold, Wrong> {
        if (0.0..=1.0).contains(&threshold) {
            Ok(Threshold(threshold))
        } else {
            Err(Wrong(
                "the value of `rankingScoreThreshold` is invalid, expected a float between `0.0` and `1.0`.".to_owned(),
            ))
        }
    }
}

impl FromText for Threshold {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        Threshold::parse(text.parse().unwrap_or(-1.0))
    }
}

/// Which words may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserr)]
#[deserr(rename_all = camelCase)]
pub(crate) enum MatchingStrategy {
    /// The last words may be missing.
    #[default]
    Last,
    /// No word may be missing.
    All,
    /// The most frequent words may be missing.
    Frequency,
}

impl From<MatchingStrategy> for TermsMatchingStrategy {
    fn from(strategy: MatchingStrategy) -> Self {
        match strategy {
            MatchingStrategy::Last => TermsMatchingStrategy::Last,
            MatchingStrategy::All => TermsMatchingStrategy::All,
            MatchingStrategy::Frequency => TermsMatchingStrategy::Frequency,
        }
    }
}

/// `hybrid`.
#[derive(Debug, Clone, Deserr)]
#[deserr(error = InBody<of::InvalidSearchHybridQuery>, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct HybridShape {
    #[deserr(default, error = InBody<of::InvalidSearchSemanticRatio>)]
    pub(crate) semantic_ratio: SemanticRatio,
    #[deserr(error = InBody<of::InvalidSearchEmbedder>)]
    pub(crate) embedder: String,
}

impl From<HybridShape> for Hybrid {
    fn from(shape: HybridShape) -> Self {
        Hybrid {
            ratio: shape.semantic_ratio.0,
            embedder: shape.embedder,
        }
    }
}

macro_rules! search_shape {
    ($(#[$doc:meta])* $name:ident { $($(#[$before_attribute:meta])* $before:ident: $before_type:ty,)* }
        { $($(#[$after_attribute:meta])* $after:ident: $after_type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Deserr)]
        #[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$before_attribute])* pub(crate) $before: $before_type,)*
            #[deserr(default, error = InBody<of::InvalidSearchQ>)]
            pub(crate) q: Option<String>,
            #[deserr(default, error = InBody<of::InvalidSearchOffset>)]
            pub(crate) offset: Option<usize>,
            #[deserr(default, error = InBody<of::InvalidSearchLimit>)]
            pub(crate) limit: Option<usize>,
            #[deserr(default, error = InBody<of::InvalidSearchPage>)]
            pub(crate) page: Option<usize>,
            #[deserr(default, error = InBody<of::InvalidSearchHitsPerPage>)]
            pub(crate) hits_per_page: Option<usize>,
            #[deserr(default, error = InBody<of::InvalidSearchAttributesToRetrieve>)]
            attributes_to_retrieve: Option<BTreeSet<String>>,
            #[deserr(default, error = InBody<of::InvalidSearchAttributesToCrop>)]
            attributes_to_crop: Option<Vec<String>>,
            #[deserr(default = CROP_LENGTH, error = InBody<of::InvalidSearchCropLength>)]
            crop_length: usize,
            #[deserr(default = CROP_MARKER.to_owned(), error = InBody<of::InvalidSearchCropMarker>)]
            crop_marker: String,
            #[deserr(default, error = InBody<of::InvalidSearchAttributesToHighlight>)]
            attributes_to_highlight: Option<HashSet<String>>,
            #[deserr(default = PRE_TAG.to_owned(), error = InBody<of::InvalidSearchHighlightPreTag>)]
            highlight_pre_tag: String,
            #[deserr(default = POST_TAG.to_owned(), error = InBody<of::InvalidSearchHighlightPostTag>)]
            highlight_post_tag: String,
            #[deserr(default, error = InBody<of::InvalidSearchShowMatchesPosition>)]
            show_matches_position: bool,
            #[deserr(default, error = InBody<of::InvalidSearchFilter>)]
            filter: Option<Value>,
            #[deserr(default, error = InBody<of::InvalidSearchSort>)]
            sort: Option<Vec<String>>,
            #[deserr(default, error = InBody<of::InvalidSearchDistinct>)]
            pub(crate) distinct: Option<String>,
            #[deserr(default, error = InBody<of::InvalidSearchFacets>)]
            pub(crate) facets: Option<Vec<String>>,
            #[deserr(default, error = InBody<of::InvalidSearchMatchingStrategy>)]
            matching_strategy: MatchingStrategy,
            #[deserr(default, error = InBody<of::InvalidSearchAttributesToSearchOn>)]
            attributes_to_search_on: Option<Vec<String>>,
            #[deserr(default, error = InBody<of::InvalidSearchRankingScoreThreshold>)]
            ranking_score_threshold: Option<Threshold>,
            #[deserr(default, error = InBody<of::InvalidSearchLocales>)]
            locales: Option<Vec<Locale>>,
            #[deserr(default, error = InBody<of::InvalidSearchHybridQuery>)]
            hybrid: Option<HybridShape>,
            #[deserr(default, error = InBody<of::InvalidSearchVector>)]
            vector: Option<Vec<f32>>,
            #[deserr(default, error = InBody<of::InvalidSearchRetrieveVectors>)]
            retrieve_vectors: bool,
            #[deserr(default, error = InBody<of::InvalidSearchMedia>)]
            media: Option<Value>,
            #[deserr(default, error = InBody<of::InvalidSearchPersonalize>)]
            personalize: Option<Value>,
            #[deserr(default, error = InBody<of::InvalidSearchUseNetwork>)]
            use_network: Option<bool>,
            #[deserr(default, error = InBody<of::InvalidSearchShowRankingScore>)]
            show_ranking_score: bool,
            #[deserr(default, error = InBody<of::InvalidSearchShowRankingScoreDetails>)]
            show_ranking_score_details: bool,
            #[deserr(default, error = InBody<of::InvalidSearchShowPerformanceDetails>)]
            show_performance_details: bool,
            $($(#[$after_attribute])* pub(crate) $after: $after_type,)*
        }

        impl $name {
            /// Converts the body to a search. Parameters that the node doesn't support are refused by name.
            pub(crate) fn into_query(self) -> ApiResult<Query> {
                if (self.vector.is_some() || self.media.is_some()) && self.hybrid.is_none() {
                    return Err(missing_hybrid());
                }
                refuse(self.media.is_some(), "multimodal search (`media`)")?;
                refuse(self.personalize.is_some(), "`personalize`")?;
                refuse(self.use_network.is_some(), "network search (`useNetwork`)")?;
                Ok(Query {
                    q: self.q,
                    offset: self.offset,
                    limit: self.limit,
                    page: self.page,
                    hits_per_page: self.hits_per_page,
                    attributes_to_retrieve: self.attributes_to_retrieve,
                    attributes_to_crop: self.attributes_to_crop,
                    crop_length: self.crop_length,
                    crop_marker: self.crop_marker,
                    attributes_to_highlight: self.attributes_to_highlight,
                    highlight_pre_tag: self.highlight_pre_tag,
                    highlight_post_tag: self.highlight_post_tag,
                    show_matches_position: self.show_matches_position,
                    filter: self.filter,
                    sort: self.sort,
                    distinct: self.distinct,
                    facets: self.facets,
                    matching_strategy: self.matching_strategy.into(),
                    attributes_to_search_on: self.attributes_to_search_on,
                    ranking_score_threshold: self.ranking_score_threshold.map(|threshold| threshold.0),
                    locales: self.locales,
                    hybrid: self.hybrid.map(Hybrid::from),
                    vector: self.vector,
                    retrieve_vectors: self.retrieve_vectors,
                    show_ranking_score: self.show_ranking_score,
                    show_ranking_score_details: self.show_ranking_score_details,
                    show_performance_details: self.show_performance_details,
                })
            }
        }
    };
}

search_shape! {
    /// `POST /indexes/{uid}/search`.
    SearchBody {} {}
}

search_shape! {
    /// One of the queries of `POST /multi-search`.
    SearchOfIndex {
        #[deserr(error = InBody<of::InvalidIndexUid>, missing_field_error = missing::<of::MissingIndexUid>)]
        index_uid: IndexUid,
    } {
        #[deserr(default, error = InBody<of::InvalidMultiSearchFederationOptions>)]
        federation_options: Option<FederationOptions>,
    }
}

/// `POST /multi-search`.
#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct MultiSearch {
    #[deserr(error = InBody<of::BadRequest>)]
    pub(crate) queries: Vec<SearchOfIndex>,
    #[deserr(default)]
    pub(crate) federation: Option<Federation>,
}

/// How a federated search uses the hits of one query.
#[derive(Debug, Clone, Deserr)]
#[deserr(error = InBody<of::InvalidMultiSearchFederationOptions>, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct FederationOptions {
    #[deserr(default, error = InBody<of::InvalidMultiSearchWeight>)]
    pub(crate) weight: Weight,
    #[deserr(default, error = InBody<of::InvalidMultiSearchRemote>)]
    pub(crate) remote: Option<String>,
    #[deserr(default, error = InBody<of::InvalidMultiSearchQueryPosition>)]
    pub(crate) query_position: Option<usize>,
}

/// The weight of a query's scores.
#[derive(Debug, Clone, Copy, Deserr)]
#[deserr(try_from(f64) = Weight::parse -> Wrong)]
pub(crate) struct Weight(pub(crate) f64);

impl Weight {
    fn parse(weight: f64) -> Result<Weight, Wrong> {
        if weight >= 0.0 {
            Ok(Weight(weight))
        } else {
            Err(Wrong(
                "the value of `weight` is invalid, expected a positive float (>= 0.0).".to_owned(),
            ))
        }
    }
}

impl Default for Weight {
    fn default() -> Self {
        Weight(1.0)
    }
}

/// `federation`: merges the hits of all queries into one list.
#[derive(Debug, Clone, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct Federation {
    #[deserr(default = 20, error = InBody<of::InvalidSearchLimit>)]
    pub(crate) limit: usize,
    #[deserr(default, error = InBody<of::InvalidSearchOffset>)]
    pub(crate) offset: usize,
    #[deserr(default, error = InBody<of::InvalidSearchPage>)]
    pub(crate) page: Option<usize>,
    #[deserr(default, error = InBody<of::InvalidSearchHitsPerPage>)]
    pub(crate) hits_per_page: Option<usize>,
    #[deserr(default, error = InBody<of::InvalidMultiSearchFacetsByIndex>)]
    pub(crate) facets_by_index: BTreeMap<String, Option<Vec<String>>>,
    #[deserr(default, error = InBody<of::InvalidMultiSearchMergeFacets>)]
    pub(crate) merge_facets: Option<MergeFacets>,
    #[deserr(default, error = InBody<of::InvalidMultiSearchDistinct>)]
    pub(crate) distinct: Option<String>,
    #[deserr(default, error = InBody<of::InvalidSearchShowPerformanceDetails>)]
    pub(crate) show_performance_details: bool,
    #[deserr(default, error = InBody<of::InvalidSearchPersonalize>)]
    pub(crate) personalize: Option<Value>,
}

/// `federation.mergeFacets`: merges the facets of all indexes.
#[derive(Debug, Clone, Deserr)]
#[deserr(error = InBody<of::InvalidMultiSearchMergeFacets>, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct MergeFacets {
    #[deserr(default, error = InBody<of::InvalidMultiSearchMaxValuesPerFacet>)]
    pub(crate) max_values_per_facet: Option<usize>,
}

/// The error for a vector without an embedder.
fn missing_hybrid() -> ApiError {
    ApiError::new(
        Code::MissingSearchHybrid,
        "Invalid request: missing `hybrid` parameter when `vector` or `media` are present.",
    )
}

/// Refuses a parameter that the node doesn't support.
pub(super) fn refuse(asked: bool, what: &str) -> ApiResult<()> {
    if asked {
        Err(ApiError::not_implemented(what))
    } else {
        Ok(())
    }
}
