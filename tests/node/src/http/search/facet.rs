//! `/indexes/{uid}/facet-search`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::Path;
use axum::response::IntoResponse;
use deserr::Deserr;
use serde_json::{Value, json};

use super::shapes::{HybridShape, MatchingStrategy, Threshold};
use super::{Answer, Call, IndexUid, blocking};
use crate::auth::Action;
use crate::engine::locales::Locale;
use crate::engine::search::{FacetQuery, Hybrid, Query, facet_search as run};
use crate::errors::{ApiError, ApiResult, of};
use crate::validate::{InBody, missing};

#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
struct FacetSearchBody {
    #[deserr(default, error = InBody<of::InvalidFacetSearchQuery>)]
    facet_query: Option<String>,
    #[deserr(error = InBody<of::InvalidFacetSearchFacetName>,
        missing_field_error = missing::<of::MissingFacetSearchFacetName>)]
    facet_name: String,
    #[deserr(default, error = InBody<of::InvalidSearchQ>)]
    q: Option<String>,
    #[deserr(default, error = InBody<of::InvalidSearchVector>)]
    vector: Option<Vec<f32>>,
    #[deserr(default, error = InBody<of::InvalidSearchMedia>)]
    media: Option<Value>,
    #[deserr(default, error = InBody<of::InvalidSearchHybridQuery>)]
    hybrid: Option<HybridShape>,
    #[deserr(default, error = InBody<of::InvalidSearchFilter>)]
    filter: Option<Value>,
    #[deserr(default, error = InBody<of::InvalidSearchMatchingStrategy>)]
    matching_strategy: MatchingStrategy,
    #[deserr(default, error = InBody<of::InvalidSearchAttributesToSearchOn>)]
    attributes_to_search_on: Option<Vec<String>>,
    #[deserr(default, error = InBody<of::InvalidSearchRankingScoreThreshold>)]
    ranking_score_threshold: Option<Threshold>,
    #[deserr(default, error = InBody<of::InvalidSearchLocales>)]
    locales: Option<Vec<Locale>>,
    #[deserr(default, error = InBody<of::InvalidFacetSearchExhaustiveFacetCount>)]
    exhaustive_facet_count: Option<bool>,
}

impl FacetSearchBody {
    fn into_query(self) -> ApiResult<FacetQuery> {
        if self.media.is_some() {
            return Err(ApiError::not_implemented("multimodal search (`media`)"));
        }
        let query = Query {
            q: self.q,
            offset: None,
            limit: Some(0),
            page: None,
            hits_per_page: None,
            attributes_to_retrieve: None,
            attributes_to_crop: None,
            crop_length: 0,
            crop_marker: String::new(),
            attributes_to_highlight: None,
            highlight_pre_tag: String::new(),
            highlight_post_tag: String::new(),
            show_matches_position: false,
            filter: self.filter,
            sort: None,
            distinct: None,
            facets: None,
            matching_strategy: self.matching_strategy.into(),
            attributes_to_search_on: self.attributes_to_search_on,
            ranking_score_threshold: self.ranking_score_threshold.map(|threshold| threshold.0),
            locales: self.locales,
            hybrid: self.hybrid.map(Hybrid::from),
            vector: self.vector,
            retrieve_vectors: false,
            show_ranking_score: false,
            show_ranking_score_details: false,
            show_performance_details: false,
        };
        Ok(FacetQuery {
            facet: self.facet_name,
            text: self.facet_query,
            query,
            exhaustive: self.exhaustive_facet_count.unwrap_or(false),
        })
    }
}

pub(super) async fn facet_search(Path(uid): Path<String>, mut call: Call) -> Answer {
    let grant = call.authorize(Action::Search, Some(&uid))?;
    let body: FacetSearchBody = call.body().await?;
    let uid = IndexUid::from_path(uid)?;
    let mut wanted = body.into_query()?;
    wanted.query.restrict(grant.filter_of(&uid));
    let node = Arc::clone(&call.node);
    let _turn = call.node.turns.take().await?;
    let found = blocking(move || {
        let start = Instant::now();
        let index = node.indexes.get(&uid)?;
        let rtxn = index.read_txn()?;
        let values = run(&uid, &index, &rtxn, &wanted)?;
        let hits: Vec<Value> = values
            .into_iter()
            .map(|hit| json!({ "value": hit.value, "count": hit.count }))
            .collect();
        Ok(json!({
            "facetHits": hits,
            "facetQuery": wanted.text,
            "processingTimeMs": u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        }))
    })
    .await?;
    Ok(Json(found).into_response())
}
