//! `/indexes/{uid}/similar`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::Path;
use axum::response::IntoResponse;
use deserr::Deserr;
use milli_core::{TermsMatchingStrategy, UserError};
use serde_json::{Value, json};

use super::shapes::Threshold;
use super::{Answer, Call, IndexUid, blocking, took};
use crate::auth::{Action, Grant};
use crate::engine::search::{DEFAULT_LIMIT, HitMaker, Query, SimilarQuery, similar};
use crate::errors::{ApiError, ApiResult, Code, of};
use crate::node::Node;
use crate::validate::{InBody, InQuery, List, Param};

#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
struct SimilarBody {
    #[deserr(error = InBody<of::InvalidSimilarId>)]
    id: Value,
    #[deserr(default, error = InBody<of::InvalidSimilarOffset>)]
    offset: usize,
    #[deserr(default = DEFAULT_LIMIT, error = InBody<of::InvalidSimilarLimit>)]
    limit: usize,
    #[deserr(default, error = InBody<of::InvalidSimilarFilter>)]
    filter: Option<Value>,
    #[deserr(error = InBody<of::InvalidSimilarEmbedder>)]
    embedder: String,
    #[deserr(default, error = InBody<of::InvalidSimilarAttributesToRetrieve>)]
    attributes_to_retrieve: Option<BTreeSet<String>>,
    #[deserr(default, error = InBody<of::InvalidSimilarRetrieveVectors>)]
    retrieve_vectors: bool,
    #[deserr(default, error = InBody<of::InvalidSimilarShowRankingScore>)]
    show_ranking_score: bool,
    #[deserr(default, error = InBody<of::InvalidSimilarShowRankingScoreDetails>)]
    show_ranking_score_details: bool,
    #[deserr(default, error = InBody<of::InvalidSimilarShowPerformanceDetails>)]
    show_performance_details: bool,
    #[deserr(default, error = InBody<of::InvalidSimilarRankingScoreThreshold>)]
    ranking_score_threshold: Option<Threshold>,
}

#[derive(Debug, Deserr)]
#[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
struct SimilarParameters {
    #[deserr(error = InQuery<of::InvalidSimilarId>)]
    id: String,
    #[deserr(error = InQuery<of::InvalidSimilarEmbedder>)]
    embedder: String,
    #[deserr(default, error = InQuery<of::InvalidSimilarOffset>)]
    offset: Param<usize>,
    #[deserr(default = Param(DEFAULT_LIMIT), error = InQuery<of::InvalidSimilarLimit>)]
    limit: Param<usize>,
    #[deserr(default, error = InQuery<of::InvalidSimilarAttributesToRetrieve>)]
    attributes_to_retrieve: Option<List<String>>,
    #[deserr(default, error = InQuery<of::InvalidSimilarRetrieveVectors>)]
    retrieve_vectors: Param<bool>,
    #[deserr(default, error = InQuery<of::InvalidSimilarFilter>)]
    filter: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidSimilarShowRankingScore>)]
    show_ranking_score: Param<bool>,
    #[deserr(default, error = InQuery<of::InvalidSimilarShowRankingScoreDetails>)]
    show_ranking_score_details: Param<bool>,
    #[deserr(default, error = InQuery<of::InvalidSimilarShowPerformanceDetails>)]
    show_performance_details: Param<bool>,
    #[deserr(default, error = InQuery<of::InvalidSimilarRankingScoreThreshold>)]
    ranking_score_threshold: Option<Param<Threshold>>,
}

impl From<SimilarParameters> for SimilarBody {
    fn from(parameters: SimilarParameters) -> SimilarBody {
        SimilarBody {
            id: Value::from(parameters.id),
            offset: parameters.offset.0,
            limit: parameters.limit.0,
            filter: parameters
                .filter
                .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
            embedder: parameters.embedder,
            attributes_to_retrieve: parameters
                .attributes_to_retrieve
                .map(|names| names.0.into_iter().collect()),
            retrieve_vectors: parameters.retrieve_vectors.0,
            show_ranking_score: parameters.show_ranking_score.0,
            show_ranking_score_details: parameters.show_ranking_score_details.0,
            show_performance_details: parameters.show_performance_details.0,
            ranking_score_threshold: parameters
                .ranking_score_threshold
                .map(|threshold| threshold.0),
        }
    }
}

pub(super) async fn post(Path(uid): Path<String>, mut call: Call) -> Answer {
    let grant = call.authorize(Action::Search, Some(&uid))?;
    let uid = IndexUid::from_path(uid)?;
    let body: SimilarBody = call.body().await?;
    answer(call, grant, uid, body).await
}

pub(super) async fn get(Path(uid): Path<String>, call: Call) -> Answer {
    let grant = call.authorize(Action::Search, Some(&uid))?;
    let uid = IndexUid::from_path(uid)?;
    let parameters: SimilarParameters = call.parameters()?;
    answer(call, grant, uid, parameters.into()).await
}

async fn answer(call: Call, grant: Grant, uid: String, body: SimilarBody) -> Answer {
    let node = Arc::clone(&call.node);
    let _turn = call.node.turns.take().await?;
    let found = blocking(move || run(&node, &grant, &uid, body)).await?;
    Ok(Json(found).into_response())
}

fn run(node: &Node, grant: &Grant, uid: &str, body: SimilarBody) -> ApiResult<Value> {
    let start = Instant::now();
    // A search without words: it holds what both kinds of search show of a hit, and takes a tenant's filter.
    let mut query = Query {
        q: None,
        offset: None,
        limit: None,
        page: None,
        hits_per_page: None,
        attributes_to_retrieve: body.attributes_to_retrieve,
        attributes_to_crop: None,
        crop_length: 0,
        crop_marker: String::new(),
        attributes_to_highlight: None,
        highlight_pre_tag: String::new(),
        highlight_post_tag: String::new(),
        show_matches_position: false,
        filter: body.filter,
        sort: None,
        distinct: None,
        facets: None,
        matching_strategy: TermsMatchingStrategy::Last,
        attributes_to_search_on: None,
        ranking_score_threshold: None,
        locales: None,
        hybrid: None,
        vector: None,
        retrieve_vectors: body.retrieve_vectors,
        show_ranking_score: body.show_ranking_score,
        show_ranking_score_details: body.show_ranking_score_details,
        show_performance_details: body.show_performance_details,
    };
    query.restrict(grant.filter_of(uid));
    let wanted = SimilarQuery {
        id: id_of(&body.id)?,
        embedder: body.embedder,
        offset: body.offset,
        limit: body.limit,
        filter: query.filter.clone(),
        threshold: body.ranking_score_threshold.map(|threshold| threshold.0),
    };
    let index = node.indexes.get(uid)?;
    let rtxn = index.read_txn()?;
    let mut found = similar(&index, &rtxn, &wanted)?;
    let hits = HitMaker::new(&index, &rtxn, &query)?.make_all(&mut found)?;
    let mut answer = json!({
        "hits": hits,
        "id": wanted.id,
        "processingTimeMs": u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        "limit": body.limit,
        "offset": body.offset,
        "estimatedTotalHits": found.total(),
    });
    if query.show_performance_details
        && let Some(answer) = answer.as_object_mut()
    {
        answer.insert("performanceDetails".to_owned(), took("similar", start));
    }
    Ok(answer)
}

fn id_of(id: &Value) -> ApiResult<String> {
    let text = match id {
        Value::String(id) => id.clone(),
        Value::Number(id) if !id.is_f64() => id.to_string(),
        _ => String::new(),
    };
    let fits = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if text.is_empty() || text.len() > 511 || !fits {
        let error = UserError::InvalidDocumentId {
            document_id: id.clone(),
        };
        let error =
            ApiError::from(milli_core::Error::from(error)).with_code(Code::InvalidSimilarId);
        return Err(error.prefixed("Invalid value at `.id`: "));
    }
    Ok(text)
}
