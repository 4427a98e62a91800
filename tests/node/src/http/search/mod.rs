//! Searches of one index: `search`, `similar`, `facet-search`; and `multi-search`.

mod facet;
mod federated;
mod multi;
mod parameters;
mod shapes;
mod similar;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::uid::IndexUid;
use super::{Answer, Call, blocking};
use crate::auth::{Action, Grant};
use crate::engine::search::{DEFAULT_LIMIT, Found, HitMaker, Prepared, Query, facets_of};
use crate::errors::{ApiError, ApiResult, Code};
use crate::node::Node;
use parameters::SearchParameters;
use shapes::SearchBody;

pub(super) use parameters::split_sort;

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/indexes/{uid}/search", get(search_get).post(search_post))
        .route(
            "/indexes/{uid}/similar",
            get(similar::get).post(similar::post),
        )
        .route("/indexes/{uid}/facet-search", post(facet::facet_search))
        .route("/multi-search", post(multi::multi_search))
}

async fn search_post(Path(uid): Path<String>, mut call: Call) -> Answer {
    let grant = call.authorize(Action::Search, Some(&uid))?;
    let body: SearchBody = call.body().await?;
    let uid = IndexUid::from_path(uid)?;
    answer(call, grant, uid, body.into_query()?).await
}

async fn search_get(Path(uid): Path<String>, call: Call) -> Answer {
    let grant = call.authorize(Action::Search, Some(&uid))?;
    let parameters: SearchParameters = call.parameters()?;
    let uid = IndexUid::from_path(uid)?;
    answer(call, grant, uid, parameters.into_query()?).await
}

async fn answer(call: Call, grant: Grant, uid: String, mut query: Query) -> Answer {
    query.restrict(grant.filter_of(&uid));
    let node = Arc::clone(&call.node);
    let _turn = call.node.turns.take().await?;
    let found = blocking(move || search(&node, &uid, &query, Uuid::now_v7())).await?;
    Ok(Json(found).into_response())
}

/// Runs one search and returns the whole answer.
fn search(node: &Node, uid: &str, query: &Query, request: Uuid) -> ApiResult<Value> {
    let start = Instant::now();
    let index = node.indexes.get(uid)?;
    let rtxn = index.read_txn()?;
    check_features(node, query)?;
    let prepared = Prepared::new(uid, &index, &rtxn, query, None, false)?;
    let mut found = prepared.run()?;
    let hits = HitMaker::new(&index, &rtxn, query)?.make_all(&mut found)?;
    let mut answer = Map::new();
    answer.insert("hits".to_owned(), json!(hits));
    answer.insert(
        "query".to_owned(),
        json!(query.q.as_deref().unwrap_or_default()),
    );
    if query.retrieve_vectors
        && let Some(vector) = &query.vector
    {
        answer.insert("queryVector".to_owned(), json!(vector));
    }
    answer.insert(
        "processingTimeMs".to_owned(),
        json!(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)),
    );
    show_page(&mut answer, query, &found);
    if let Some(names) = query.facets.as_ref().filter(|names| !names.is_empty()) {
        let facets = facets_of(&index, &rtxn, names, found.result.candidates.clone(), None)?;
        answer.insert("facetDistribution".to_owned(), facets.distribution_view());
        answer.insert("facetStats".to_owned(), facets.stats_view());
    }
    answer.insert("requestUid".to_owned(), json!(request));
    if query.show_performance_details {
        answer.insert("performanceDetails".to_owned(), took("search", start));
    }
    if found.result.degraded {
        answer.insert("degraded".to_owned(), json!(true));
    }
    if let Some(hits) = found.semantic_hits {
        answer.insert("semanticHitCount".to_owned(), json!(hits));
    }
    Ok(Value::Object(answer))
}

/// How long each step took, in the server's format. This node measures only one step.
fn took(step: &str, start: Instant) -> Value {
    json!({ step: format!("{:.2?}", start.elapsed()) })
}

fn show_page(answer: &mut Map<String, Value>, query: &Query, found: &Found) {
    let total = found.total();
    if query.is_paged() {
        let hits_per_page = query.hits_per_page.unwrap_or(DEFAULT_LIMIT);
        let pages = if hits_per_page == 0 {
            0
        } else {
            total.div_ceil(hits_per_page)
        };
        answer.insert("hitsPerPage".to_owned(), json!(hits_per_page));
        answer.insert("page".to_owned(), json!(query.page.unwrap_or(1)));
        answer.insert("totalPages".to_owned(), json!(pages));
        answer.insert("totalHits".to_owned(), json!(total));
    } else {
        answer.insert(
            "limit".to_owned(),
            json!(query.limit.unwrap_or(DEFAULT_LIMIT)),
        );
        answer.insert("offset".to_owned(), json!(query.offset.unwrap_or(0)));
        answer.insert("estimatedTotalHits".to_owned(), json!(total));
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "Using `CONTAINS` in a filter requires enabling the `contains filter` experimental feature. See \
     https://github.com/orgs/meilisearch/discussions/763"
)]
struct ContainsIsOff;

/// Refuses filters that need an experimental feature that is off.
fn check_features(node: &Node, query: &Query) -> ApiResult<()> {
    let Some(filter) = &query.filter else {
        return Ok(());
    };
    let Some(filter) = crate::engine::search::parse_filter(filter, Code::InvalidSearchFilter)?
    else {
        return Ok(());
    };
    // `STARTS WITH`, which the engine also reports here, has become a normal operator.
    let contains = filter
        .use_contains_operator()
        .filter(|operator| operator.value().starts_with("CONTAINS"));
    match contains {
        Some(operator) if !node.has_feature("containsFilter") => Err(ApiError::new(
            Code::FeatureNotEnabled,
            operator.as_external_error(ContainsIsOff).to_string(),
        )),
        _ => Ok(()),
    }
}
