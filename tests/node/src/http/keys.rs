//! `/keys`.

use std::sync::Arc;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use deserr::Deserr;
use serde_json::{Value, json};

use super::indexes::PAGE;
use super::{Answer, Call, blocking};
use crate::auth::{Action, CreateKey, Key, PatchKey};
use crate::errors::of;
use crate::node::Node;
use crate::queue::date;
use crate::validate::{InQuery, Param};

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/keys", get(list).post(create))
        .route("/keys/{key}", get(show).patch(update).delete(delete))
}

#[derive(Debug, Deserr)]
#[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
struct ListParameters {
    #[deserr(default, error = InQuery<of::InvalidApiKeyOffset>)]
    offset: Param<usize>,
    #[deserr(default = Param(PAGE), error = InQuery<of::InvalidApiKeyLimit>)]
    limit: Param<usize>,
}

fn view(node: &Node, key: &Key) -> Value {
    json!({
        "name": key.name,
        "description": key.description,
        "key": node.keys.value_of(key.uid).unwrap_or_default(),
        "uid": key.uid,
        "actions": key.actions,
        "indexes": key.indexes,
        "expiresAt": key.expires_at.map(date),
        "createdAt": date(key.created_at),
        "updatedAt": date(key.updated_at),
    })
}

async fn list(call: Call) -> Answer {
    call.authorize(Action::KeysGet, None)?;
    let ListParameters { offset, limit } = call.parameters()?;
    let keys = call.node.keys.list();
    let results: Vec<Value> = keys
        .iter()
        .skip(offset.0)
        .take(limit.0)
        .map(|key| view(&call.node, key))
        .collect();
    let page =
        json!({ "results": results, "offset": offset.0, "limit": limit.0, "total": keys.len() });
    Ok(Json(page).into_response())
}

async fn create(mut call: Call) -> Answer {
    call.authorize(Action::KeysCreate, None)?;
    let request: CreateKey = call.body().await?;
    let node = Arc::clone(&call.node);
    let key = blocking(move || node.keys.create(request)).await?;
    Ok((StatusCode::CREATED, Json(view(&call.node, &key))).into_response())
}

async fn show(Path(key): Path<String>, call: Call) -> Answer {
    call.authorize(Action::KeysGet, None)?;
    let key = call.node.keys.get(call.node.keys.resolve(&key)?)?;
    Ok(Json(view(&call.node, &key)).into_response())
}

async fn update(Path(key): Path<String>, mut call: Call) -> Answer {
    call.authorize(Action::KeysUpdate, None)?;
    let patch: PatchKey = call.body().await?;
    let node = Arc::clone(&call.node);
    let key = blocking(move || node.keys.patch(node.keys.resolve(&key)?, patch)).await?;
    Ok(Json(view(&call.node, &key)).into_response())
}

async fn delete(Path(key): Path<String>, call: Call) -> Answer {
    call.authorize(Action::KeysDelete, None)?;
    let node = call.node;
    blocking(move || node.keys.delete(node.keys.resolve(&key)?)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
