//! `/indexes/{uid}/settings`, and a route for each setting.

use std::sync::Arc;

use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::{get, patch, put};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::uid::IndexUid;
use super::{Answer, Call, blocking};
use crate::auth::{Action, Grant};
use crate::engine::settings::{FIELDS, Field, Verb, check_all, check_one, read, reset_all};
use crate::errors::{ApiError, ApiResult, Code};
use crate::node::Node;
use crate::queue::Work;

pub(super) fn routes() -> Router<Arc<Node>> {
    let all = Router::new().route(
        "/indexes/{uid}/settings",
        get(show).patch(update).delete(reset),
    );
    FIELDS.iter().fold(all, |router, field| {
        let change = match field.verb {
            Verb::Put => put(move |path, call| update_one(field, path, call)),
            Verb::Patch => patch(move |path, call| update_one(field, path, call)),
        };
        let routes = change
            .get(move |path, call| show_one(field, path, call))
            .delete(move |path, call| reset_one(field, path, call));
        router.route(&format!("/indexes/{{uid}}/settings/{}", field.path), routes)
    })
}

async fn read_all(uid: String, call: Call) -> ApiResult<Map<String, Value>> {
    call.authorize(Action::SettingsGet, Some(&uid))?;
    let uid = IndexUid::from_path(uid)?;
    let node = call.node;
    blocking(move || {
        let record = node.indexes.record(&uid)?;
        let index = node.indexes.get(&uid)?;
        let rtxn = index.read_txn()?;
        read::all(&index, &rtxn, &record)
    })
    .await
}

async fn show(Path(uid): Path<String>, call: Call) -> Answer {
    Ok(Json(read_all(uid, call).await?).into_response())
}

async fn show_one(field: &'static Field, Path(uid): Path<String>, call: Call) -> Answer {
    let mut settings = read_all(uid, call).await?;
    match settings.remove(field.name) {
        Some(value) => Ok(Json(value).into_response()),
        None if field.name == "foreignKeys" => Ok(Json(json!([])).into_response()),
        None => Err(ApiError::not_implemented(&format!(
            "the setting `{}`",
            field.name
        ))),
    }
}

async fn accept(
    call: Call,
    grant: Grant,
    index: String,
    settings: Map<String, Value>,
    may_create: bool,
) -> Answer {
    let mut details = settings.clone();
    for name in ["displayedAttributes", "searchableAttributes"] {
        if let Some(value) = details.get_mut(name).filter(|value| value.is_null()) {
            *value = Value::from(vec!["*"]);
        }
    }
    let may_create = may_create && grant.creates_indexes && grant.reaches(&index);
    call.accept(
        Work::UpdateSettings {
            index,
            settings,
            may_create,
        },
        Value::Object(details),
        None,
    )
    .await
}

async fn update(Path(uid): Path<String>, mut call: Call) -> Answer {
    let grant = call.authorize(Action::SettingsUpdate, Some(&uid))?;
    let uid = IndexUid::from_path(uid)?;
    let body = call.json().await?;
    for (name, value) in body.as_object().into_iter().flatten() {
        check_feature(&call.node, name, value)?;
    }
    let settings = check_all(body)?;
    accept(call, grant, uid, settings, true).await
}

async fn update_one(field: &'static Field, Path(uid): Path<String>, mut call: Call) -> Answer {
    let grant = call.authorize(Action::SettingsUpdate, Some(&uid))?;
    let uid = IndexUid::from_path(uid)?;
    let body = call.json().await?;
    check_feature(&call.node, field.name, &body)?;
    let settings = check_one(field, body)?;
    accept(call, grant, uid, settings, true).await
}

/// Refuses settings that need an experimental feature that is off.
fn check_feature(node: &Node, setting: &str, value: &Value) -> ApiResult<()> {
    let (feature, name, discussion) = match setting {
        "chat" => ("chatCompletions", "chat completions", 835),
        "foreignKeys" => ("foreignKeys", "foreign_keys", 873),
        _ => return Ok(()),
    };
    if value.is_null() || node.has_feature(feature) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::FeatureNotEnabled,
        format!(
            "setting `{setting}` in the index settings requires enabling the `{name}` experimental feature. See \
             https://github.com/orgs/meilisearch/discussions/{discussion}"
        ),
    ))
}

async fn reset(Path(uid): Path<String>, call: Call) -> Answer {
    let grant = call.authorize(Action::SettingsUpdate, Some(&uid))?;
    let uid = IndexUid::from_path(uid)?;
    accept(call, grant, uid, reset_all(), false).await
}

async fn reset_one(field: &'static Field, Path(uid): Path<String>, call: Call) -> Answer {
    let grant = call.authorize(Action::SettingsUpdate, Some(&uid))?;
    let uid = IndexUid::from_path(uid)?;
    accept(
        call,
        grant,
        uid,
        Map::from_iter([(field.name.to_owned(), Value::Null)]),
        false,
    )
    .await
}
