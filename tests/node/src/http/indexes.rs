//! `/indexes`, `/indexes/{uid}`, `/indexes/{uid}/stats`, `/swap-indexes`.

use std::sync::Arc;

use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use deserr::{DeserializeError, Deserr, ErrorKind, ValuePointerRef, take_cf_content};
use serde_json::{Value, json};

use super::system::StatsParameters;
use super::uid::IndexUid;
use super::{Answer, Call, blocking};
use crate::auth::Action;
use crate::errors::{ApiError, ApiResult, Code, of};
use crate::node::Node;
use crate::queue::{Swap, Work, date};
use crate::validate::{InBody, InQuery, Param, missing};

/// The default number of entries on a page of a list.
pub(super) const PAGE: usize = 20;

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/indexes", get(list).post(create))
        .route("/indexes/{uid}", get(show).patch(update).delete(delete))
        .route("/indexes/{uid}/stats", get(stats))
        .route("/swap-indexes", post(swap))
}

#[derive(Debug, Deserr)]
#[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
struct ListParameters {
    #[deserr(default, error = InQuery<of::InvalidIndexOffset>)]
    offset: Param<usize>,
    #[deserr(default = Param(PAGE), error = InQuery<of::InvalidIndexLimit>)]
    limit: Param<usize>,
}

async fn list(call: Call) -> Answer {
    let grant = call.authorize(Action::IndexesGet, None)?;
    let ListParameters { offset, limit } = call.parameters()?;
    let node = call.node;
    let page = blocking(move || {
        let uids: Vec<String> = node
            .indexes
            .uids()
            .into_iter()
            .filter(|uid| grant.reaches(uid))
            .collect();
        let page = uids.iter().skip(offset.0).take(limit.0);
        let results = page
            .map(|uid| view(&node, uid))
            .collect::<ApiResult<Vec<_>>>()?;
        Ok(json!({ "results": results, "offset": offset.0, "limit": limit.0, "total": uids.len() }))
    })
    .await?;
    Ok(Json(page).into_response())
}

fn view(node: &Node, uid: &str) -> ApiResult<Value> {
    let index = node.indexes.get(uid)?;
    let rtxn = index.read_txn()?;
    Ok(json!({
        "uid": uid,
        "createdAt": date(index.created_at(&rtxn)?),
        "updatedAt": date(index.updated_at(&rtxn)?),
        "primaryKey": index.primary_key(&rtxn)?,
    }))
}

async fn show(Path(uid): Path<String>, call: Call) -> Answer {
    call.authorize(Action::IndexesGet, Some(&uid))?;
    let uid = IndexUid::from_path(uid)?;
    let node = call.node;
    Ok(Json(blocking(move || view(&node, &uid)).await?).into_response())
}

#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
struct CreateIndex {
    #[deserr(error = InBody<of::InvalidIndexUid>, missing_field_error = missing::<of::MissingIndexUid>)]
    uid: IndexUid,
    #[deserr(default, error = InBody<of::InvalidIndexPrimaryKey>)]
    primary_key: Option<String>,
}

async fn create(mut call: Call) -> Answer {
    let grant = call.authorize(Action::IndexesCreate, None)?;
    let CreateIndex {
        uid: IndexUid(index),
        primary_key,
    } = call.body().await?;
    if !grant.reaches(&index) {
        return Err(ApiError::new(
            Code::InvalidApiKey,
            "The provided API key is invalid.",
        ));
    }
    let details = json!({ "primaryKey": primary_key });
    call.accept(Work::CreateIndex { index, primary_key }, details, None)
        .await
}

#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields = refuse_dates)]
struct UpdateIndex {
    #[deserr(default, error = InBody<of::InvalidIndexPrimaryKey>)]
    primary_key: Option<String>,
    #[deserr(default, error = InBody<of::InvalidIndexUid>)]
    uid: Option<IndexUid>,
}

fn refuse_dates(field: &str, accepted: &[&str], location: ValuePointerRef) -> InBody {
    let code = match field {
        "createdAt" => Code::ImmutableIndexCreatedAt,
        "updatedAt" => Code::ImmutableIndexUpdatedAt,
        _ => {
            let error: ErrorKind<std::convert::Infallible> = ErrorKind::UnknownKey {
                key: field,
                accepted,
            };
            return take_cf_content(InBody::error(None, error, location));
        }
    };
    let accepted: Vec<String> = accepted.iter().map(|name| format!("`{name}`")).collect();
    InBody::with(
        format!(
            "Immutable field `{field}`: expected one of {}",
            accepted.join(", ")
        ),
        code,
    )
}

async fn update(Path(uid): Path<String>, mut call: Call) -> Answer {
    call.authorize(Action::IndexesUpdate, Some(&uid))?;
    let index = IndexUid::from_path(uid)?;
    let UpdateIndex { primary_key, uid } = call.body().await?;
    let new_uid = uid.map(|uid| uid.0);
    let details = match &new_uid {
        Some(new_uid) => {
            json!({ "primaryKey": primary_key, "oldIndexUid": index, "newIndexUid": new_uid })
        }
        None => json!({ "primaryKey": primary_key }),
    };
    call.accept(
        Work::UpdateIndex {
            index,
            primary_key,
            new_uid,
        },
        details,
        None,
    )
    .await
}

async fn delete(Path(uid): Path<String>, call: Call) -> Answer {
    call.authorize(Action::IndexesDelete, Some(&uid))?;
    let index = IndexUid::from_path(uid)?;
    call.accept(
        Work::DeleteIndex { index },
        json!({ "deletedDocuments": null }),
        None,
    )
    .await
}

async fn stats(Path(uid): Path<String>, call: Call) -> Answer {
    call.authorize(Action::StatsGet, Some(&uid))?;
    let uid = IndexUid::from_path(uid)?;
    call.parameters::<StatsParameters>()?;
    let node = call.node;
    Ok(Json(blocking(move || stats_of(&node, &uid)).await?).into_response())
}

/// The stats of one index.
pub(super) fn stats_of(node: &Node, uid: &str) -> ApiResult<Value> {
    let index = node.indexes.get(uid)?;
    let rtxn = index.read_txn()?;
    let documents = index.number_of_documents(&rtxn)?;
    let sizes = index
        .documents_stats(&rtxn)?
        .filter(|_| documents > 0)
        .unwrap_or_default();
    let embeddings = index.arroy_stats(&rtxn)?;
    Ok(json!({
        "numberOfDocuments": documents,
        "rawDocumentDbSize": sizes.total_size(),
        "avgDocumentSize": sizes.average_value_size(),
        "isIndexing": node.queue.is_indexing(uid),
        "numberOfEmbeddings": embeddings.number_of_embeddings,
        "numberOfEmbeddedDocuments": embeddings.documents.len(),
        "fieldDistribution": index.field_distribution(&rtxn)?,
    }))
}

#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
struct SwapPair {
    #[deserr(error = InBody<of::InvalidSwapIndexes>, missing_field_error = missing::<of::MissingSwapIndexes>)]
    indexes: Vec<IndexUid>,
    #[deserr(default, error = InBody<of::InvalidSwapRename>)]
    rename: bool,
}

async fn swap(mut call: Call) -> Answer {
    let grant = call.authorize(Action::IndexesSwap, None)?;
    let pairs: Vec<SwapPair> = call.body().await?;
    let mut swaps: Vec<Swap> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for SwapPair { indexes, rename } in pairs {
        let names: Vec<String> = indexes.into_iter().map(|uid| uid.0).collect();
        let [left, right] = <[String; 2]>::try_from(names).map_err(|names| {
            let listed: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            ApiError::new(
                Code::InvalidSwapIndexes,
                format!(
                    "Two indexes must be given for each swap. The list `[{}]` contains {} indexes.",
                    listed.join(", "),
                    names.len()
                ),
            )
        })?;
        if !grant.reaches(&left) || !grant.reaches(&right) {
            return Err(ApiError::new(
                Code::InvalidApiKey,
                "The provided API key is invalid.",
            ));
        }
        seen.extend([left.clone(), right.clone()]);
        swaps.push(Swap {
            indexes: (left, right),
            rename,
        });
    }
    refuse_duplicates(&mut seen)?;
    let views: Vec<Value> = swaps
        .iter()
        .map(|swap| json!({ "indexes": [swap.indexes.0, swap.indexes.1], "rename": swap.rename }))
        .collect();
    call.accept(Work::SwapIndexes { swaps }, json!({ "swaps": views }), None)
        .await
}

fn refuse_duplicates(names: &mut [String]) -> ApiResult<()> {
    names.sort_unstable();
    let mut repeated: Vec<&String> = names
        .windows(2)
        .filter_map(|pair| {
            if let [a, b] = pair
                && a == b
            {
                Some(a)
            } else {
                None
            }
        })
        .collect();
    repeated.dedup();
    let message = match repeated.as_slice() {
        [] => return Ok(()),
        [name] => format!(
            "Indexes must be declared only once during a swap. `{name}` was specified several times."
        ),
        names => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "Indexes must be declared only once during a swap. {} were specified several times.",
                names.join(", ")
            )
        }
    };
    Err(ApiError::new(Code::InvalidSwapDuplicateIndexFound, message))
}
