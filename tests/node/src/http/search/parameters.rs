//! A search in query parameters.

use deserr::Deserr;
use serde_json::Value;

use super::shapes::{
    CROP_LENGTH, CROP_MARKER, MatchingStrategy, POST_TAG, PRE_TAG, SemanticRatio, Threshold, refuse,
};
use crate::engine::locales::Locale;
use crate::engine::search::{Hybrid, Query};
use crate::errors::{ApiError, ApiResult, Code, of};
use crate::validate::{InQuery, List, Param};

/// `GET /indexes/{uid}/search`.
#[derive(Debug, Deserr)]
#[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct SearchParameters {
    #[deserr(default, error = InQuery<of::InvalidSearchQ>)]
    q: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidSearchOffset>)]
    offset: Option<Param<usize>>,
    #[deserr(default, error = InQuery<of::InvalidSearchLimit>)]
    limit: Option<Param<usize>>,
    #[deserr(default, error = InQuery<of::InvalidSearchPage>)]
    page: Option<Param<usize>>,
    #[deserr(default, error = InQuery<of::InvalidSearchHitsPerPage>)]
    hits_per_page: Option<Param<usize>>,
    #[deserr(default, error = InQuery<of::InvalidSearchAttributesToRetrieve>)]
    attributes_to_retrieve: Option<List<String>>,
    #[deserr(default, error = InQuery<of::InvalidSearchAttributesToCrop>)]
    attributes_to_crop: Option<List<String>>,
    #[deserr(default = Param(CROP_LENGTH), error = InQuery<of::InvalidSearchCropLength>)]
    crop_length: Param<usize>,
    #[deserr(default = CROP_MARKER.to_owned(), error = InQuery<of::InvalidSearchCropMarker>)]
    crop_marker: String,
    #[deserr(default, error = InQuery<of::InvalidSearchAttributesToHighlight>)]
    attributes_to_highlight: Option<List<String>>,
    #[deserr(default = PRE_TAG.to_owned(), error = InQuery<of::InvalidSearchHighlightPreTag>)]
    highlight_pre_tag: String,
    #[deserr(default = POST_TAG.to_owned(), error = InQuery<of::InvalidSearchHighlightPostTag>)]
    highlight_post_tag: String,
    #[deserr(default, error = InQuery<of::InvalidSearchShowMatchesPosition>)]
    show_matches_position: Param<bool>,
    #[deserr(default, error = InQuery<of::InvalidSearchFilter>)]
    filter: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidSearchSort>)]
    sort: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidSearchDistinct>)]
    distinct: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidSearchFacets>)]
    facets: Option<List<String>>,
    #[deserr(default, error = InQuery<of::InvalidSearchMatchingStrategy>)]
    matching_strategy: MatchingStrategy,
    #[deserr(default, error = InQuery<of::InvalidSearchAttributesToSearchOn>)]
    attributes_to_search_on: Option<List<String>>,
    #[deserr(default, error = InQuery<of::InvalidSearchRankingScoreThreshold>)]
    ranking_score_threshold: Option<Param<Threshold>>,
    #[deserr(default, error = InQuery<of::InvalidSearchLocales>)]
    locales: Option<List<Locale>>,
    #[deserr(default, error = InQuery<of::InvalidSearchEmbedder>)]
    hybrid_embedder: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidSearchSemanticRatio>)]
    hybrid_semantic_ratio: Option<Param<SemanticRatio>>,
    #[deserr(default, error = InQuery<of::InvalidSearchVector>)]
    vector: Option<List<f32>>,
    #[deserr(default, error = InQuery<of::InvalidSearchRetrieveVectors>)]
    retrieve_vectors: Param<bool>,
    #[deserr(default, error = InQuery<of::InvalidSearchPersonalizeUserContext>)]
    personalize_user_context: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidSearchUseNetwork>)]
    use_network: Option<Param<bool>>,
    #[deserr(default, error = InQuery<of::InvalidSearchShowRankingScore>)]
    show_ranking_score: Param<bool>,
    #[deserr(default, error = InQuery<of::InvalidSearchShowRankingScoreDetails>)]
    show_ranking_score_details: Param<bool>,
    #[deserr(default, error = InQuery<of::InvalidSearchShowPerformanceDetails>)]
    show_performance_details: Param<bool>,
}

impl SearchParameters {
    /// Converts the parameters to a search.
    pub(crate) fn into_query(self) -> ApiResult<Query> {
        refuse(self.personalize_user_context.is_some(), "`personalize`")?;
        refuse(self.use_network.is_some(), "network search (`useNetwork`)")?;
        let hybrid = match (self.hybrid_embedder, self.hybrid_semantic_ratio) {
            (None, None) if self.vector.is_some() => {
                return Err(ApiError::new(
                    Code::MissingSearchHybrid,
                    "`hybridEmbedder` is mandatory when `vector` is present",
                ));
            }
            (None, None) => None,
            (None, Some(_)) => {
                return Err(ApiError::new(
                    Code::InvalidSearchHybridQuery,
                    "`hybridEmbedder` is mandatory when `hybridSemanticRatio` is present",
                ));
            }
            (Some(embedder), ratio) => Some(Hybrid {
                ratio: ratio.map(|ratio| ratio.0).unwrap_or_default().0,
                embedder,
            }),
        };
        Ok(Query {
            q: self.q,
            offset: self.offset.map(|offset| offset.0),
            limit: self.limit.map(|limit| limit.0),
            page: self.page.map(|page| page.0),
            hits_per_page: self.hits_per_page.map(|hits| hits.0),
            attributes_to_retrieve: self
                .attributes_to_retrieve
                .map(|names| names.0.into_iter().collect()),
            attributes_to_crop: self.attributes_to_crop.map(|names| names.0),
            crop_length: self.crop_length.0,
            crop_marker: self.crop_marker,
            attributes_to_highlight: self
                .attributes_to_highlight
                .map(|names| names.0.into_iter().collect()),
            highlight_pre_tag: self.highlight_pre_tag,
            highlight_post_tag: self.highlight_post_tag,
            show_matches_position: self.show_matches_position.0,
            filter: self
                .filter
                .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
            sort: self.sort.map(|text| split_sort(&text)),
            distinct: self.distinct,
            facets: self.facets.map(|names| names.0),
            matching_strategy: self.matching_strategy.into(),
            attributes_to_search_on: self.attributes_to_search_on.map(|names| names.0),
            ranking_score_threshold: self.ranking_score_threshold.map(|threshold| threshold.0.0),
            locales: self.locales.map(|locales| locales.0),
            hybrid,
            vector: self.vector.map(|vector| vector.0),
            retrieve_vectors: self.retrieve_vectors.0,
            show_ranking_score: self.show_ranking_score.0,
            show_ranking_score_details: self.show_ranking_score_details.0,
            show_performance_details: self.show_performance_details.0,
        })
    }
}

/// Splits sort criteria at commas, except for the comma inside `_geoPoint(…)`.
pub(crate) fn split_sort(text: &str) -> Vec<String> {
    let mut criteria = Vec::new();
    let mut criterion = String::new();
    let mut depth = 0usize;
    for letter in text.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                criteria.push(std::mem::take(&mut criterion).trim().to_owned());
                continue;
            }
            _ => {}
        }
        criterion.push(letter);
    }
    criteria.push(criterion.trim().to_owned());
    criteria
}

#[cfg(test)]
mod tests {
    use super::split_sort;

    #[test]
    fn the_comma_of_a_point_separates_no_criteria() {
        assert_eq!(
            split_sort("a:asc, _geoPoint(1, 2):desc,b:asc"),
            ["a:asc", "_geoPoint(1, 2):desc", "b:asc"]
        );
    }
}
