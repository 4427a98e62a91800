//! `/multi-search`: several searches in one request, with one answer each, or with one answer for all.

use std::sync::Arc;

use axum::Json;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use uuid::Uuid;

use super::shapes::MultiSearch;
use super::{Answer, Call, blocking, federated, search};
use crate::auth::{Action, Grant};
use crate::engine::search::Query;
use crate::errors::{ApiError, ApiResult, Code};

pub(super) async fn multi_search(mut call: Call) -> Answer {
    let grant = call.authorize(Action::Search, None)?;
    let MultiSearch {
        queries,
        federation,
    } = call.body().await?;
    if let Some(federation) = federation {
        return federated::answer(call, grant, federation, queries).await;
    }
    let mut searches: Vec<(String, Query)> = Vec::new();
    for (position, query) in queries.into_iter().enumerate() {
        let uid = query.index_uid.0.clone();
        if query.federation_options.is_some() {
            return Err(inside(
                position,
                ApiError::new(
                    Code::InvalidMultiSearchFederationOptions,
                    "Using `federationOptions` is not allowed in a non-federated search.\n - Hint: remove \
                     `federationOptions` from the query or add `federation` to the request.",
                ),
            ));
        }
        let query = restricted(&grant, &uid, query.into_query())
            .map_err(|error| inside(position, error))?;
        searches.push((uid, query));
    }
    let node = Arc::clone(&call.node);
    let _turn = call.node.turns.take().await?;
    let results = blocking(move || {
        let request = Uuid::now_v7();
        let run = |(position, (uid, query)): (usize, &(String, Query))| {
            let answer =
                search(&node, uid, query, request).map_err(|error| inside(position, error))?;
            let mut result = serde_json::Map::new();
            result.insert("indexUid".to_owned(), Value::from(uid.as_str()));
            if let Value::Object(answer) = answer {
                result.extend(answer);
            }
            Ok(Value::Object(result))
        };
        searches
            .iter()
            .enumerate()
            .map(run)
            .collect::<ApiResult<Vec<Value>>>()
    })
    .await?;
    Ok(Json(json!({ "results": results })).into_response())
}

/// A query, if its sender may make it, with the tenant token's filter added.
pub(super) fn restricted(grant: &Grant, uid: &str, query: ApiResult<Query>) -> ApiResult<Query> {
    let mut query = query?;
    if !grant.reaches(uid) {
        return Err(ApiError::new(
            Code::InvalidApiKey,
            "The provided API key is invalid.",
        ));
    }
    query.restrict(grant.filter_of(uid));
    Ok(query)
}

/// An error in one of several queries names the query. Since the route itself exists, a 404 becomes a 400.
pub(super) fn inside(position: usize, mut error: ApiError) -> ApiError {
    if error.status == 404 {
        error.status = 400;
    }
    error.prefixed(&format!("Inside `.queries[{position}]`: "))
}
