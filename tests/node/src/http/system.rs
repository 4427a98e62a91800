//! `/health`, `/version`, `/stats`, `/experimental-features`.

use std::sync::Arc;

use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use deserr::Deserr;
use serde_json::{Map, Value, json};

use super::{Answer, Call, blocking};
use crate::auth::Action;
use crate::errors::ApiResult;
use crate::node::Node;
use crate::validate::{InBody, InQuery, Param};

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route(
            "/",
            get(async || Json(json!({ "status": "Meilisearch is running" }))),
        )
        .route(
            "/health",
            get(async || Json(json!({ "status": "available" }))),
        )
        .route("/version", get(version))
        .route("/stats", get(stats))
        .route("/experimental-features", get(features).patch(set_features))
}

async fn version(call: Call) -> Answer {
    call.authorize(Action::Version, None)?;
    Ok(Json(json!({
        "commitSha": concat!("weft-node-", env!("CARGO_PKG_VERSION")),
        "commitDate": "unknown",
        "pkgVersion": crate::node::ENGINE_VERSION,
    }))
    .into_response())
}

/// `GET /stats` and `GET /indexes/{uid}/stats`.
#[derive(Debug, Default, Deserr)]
#[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
pub(super) struct StatsParameters {
    #[deserr(default, error = InQuery<crate::errors::of::InvalidStatsShowInternalDatabaseSizes>)]
    #[allow(dead_code, reason = "accepted, but the sizes are not shown")]
    show_internal_database_sizes: Option<Param<bool>>,
    #[deserr(default, error = InQuery<crate::errors::of::InvalidStatsSizeFormat>)]
    #[allow(dead_code, reason = "accepted, but sizes are numbers")]
    size_format: Option<SizeFormat>,
}

#[derive(Debug, Deserr)]
#[deserr(rename_all = camelCase)]
enum SizeFormat {
    Human,
    Raw,
}

async fn stats(call: Call) -> Answer {
    let grant = call.authorize(Action::StatsGet, None)?;
    call.parameters::<StatsParameters>()?;
    let node = call.node;
    let stats = blocking(move || {
        let mut indexes = Map::new();
        let mut sizes = (0, 0);
        let mut last_update = None;
        for uid in node
            .indexes
            .uids()
            .into_iter()
            .filter(|uid| grant.reaches(uid))
        {
            let index = node.indexes.get(&uid)?;
            sizes.0 += index.on_disk_size()?;
            sizes.1 += index.used_size()?;
            let rtxn = index.read_txn()?;
            last_update = last_update.max(Some(index.updated_at(&rtxn)?));
            let stats = super::indexes::stats_of(&node, &uid)?;
            indexes.insert(uid, stats);
        }
        Ok(json!({
            "databaseSize": sizes.0,
            "usedDatabaseSize": sizes.1,
            "lastUpdate": last_update.map(crate::queue::date),
            "indexes": indexes,
        }))
    })
    .await?;
    Ok(Json(stats).into_response())
}

macro_rules! features {
    ($($field:ident $name:literal,)+) => {
        /// `PATCH /experimental-features`.
        #[derive(Debug, Deserr)]
        #[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
        struct FeaturesPatch {
            $(#[deserr(default)] $field: Option<bool>,)+
        }

        impl FeaturesPatch {
            fn into_map(self) -> Map<String, Value> {
                let mut map = Map::new();
                $(if let Some(value) = self.$field { map.insert($name.to_owned(), Value::from(value)); })+
                map
            }
        }

        const FEATURES: &[&str] = &[$($name),+];
    };
}

features! {
    metrics "metrics",
    logs_route "logsRoute",
    edit_documents_by_function "editDocumentsByFunction",
    contains_filter "containsFilter",
    dynamic_search_rules "dynamicSearchRules",
    network "network",
    get_task_documents_route "getTaskDocumentsRoute",
    task_queue_compaction_route "taskQueueCompactionRoute",
    composite_embedders "compositeEmbedders",
    chat_completions "chatCompletions",
    multimodal "multimodal",
    foreign_keys "foreignKeys",
    disable_documents_fetch_queue "disableDocumentsFetchQueue",
    legacy_search "legacySearch",
    render_route "renderRoute",
}

fn features_view(node: &Node) -> ApiResult<Value> {
    let set = node.features();
    let view = FEATURES.iter().map(|name| {
        let value = set.get(*name).cloned().unwrap_or(Value::from(false));
        ((*name).to_owned(), value)
    });
    Ok(Value::Object(view.collect()))
}

async fn features(call: Call) -> Answer {
    call.authorize(Action::ExperimentalGet, None)?;
    Ok(Json(features_view(&call.node)?).into_response())
}

async fn set_features(mut call: Call) -> Answer {
    call.authorize(Action::ExperimentalUpdate, None)?;
    let patch: FeaturesPatch = call.body().await?;
    call.node.set_features(patch.into_map())?;
    Ok(Json(features_view(&call.node)?).into_response())
}
