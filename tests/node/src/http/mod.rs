//! Meilisearch's HTTP interface: one file per resource.

mod browsers;
mod call;
mod documents;
mod formats;
mod indexes;
mod keys;
mod search;
mod settings;
mod system;
mod tasks;
mod uid;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::response::Response;
use tower::ServiceBuilder;
use tower::util::MapRequest;

use crate::errors::ApiError;
use crate::node::Node;

pub(crate) use call::{Call, blocking};

/// All routes of the interface.
pub(crate) fn service(node: Arc<Node>) -> MapRequest<Router, fn(Request) -> Request> {
    let router = Router::new()
        .merge(system::routes())
        .merge(indexes::routes())
        .merge(documents::routes())
        .merge(search::routes())
        .merge(settings::routes())
        .merge(tasks::routes())
        .merge(keys::routes())
        .merge(missing())
        .with_state(node)
        .layer(axum::middleware::from_fn(browsers::serve));
    ServiceBuilder::new()
        .map_request(tidy_path as fn(Request) -> Request)
        .service(router)
}

type Answer = Result<Response, ApiError>;

/// Operations of Meilisearch that this node lacks. Each answers with an error that says so.
fn missing() -> Router<Arc<Node>> {
    const PATHS: [(&str, &str); 24] = [
        ("/dumps", "dumps"),
        ("/snapshots", "snapshots"),
        ("/export", "export"),
        ("/network", "network"),
        ("/network/{*rest}", "network"),
        ("/metrics", "metrics"),
        ("/logs/stream", "logs"),
        ("/logs/stderr", "logs"),
        ("/webhooks", "webhooks"),
        ("/webhooks/{uuid}", "webhooks"),
        ("/chats", "chats"),
        ("/chats/{workspace}", "chats"),
        ("/chats/{workspace}/chat/completions", "chat completions"),
        ("/chats/{workspace}/settings", "chat settings"),
        ("/render-template", "template rendering"),
        ("/dynamic-search-rules", "dynamic search rules"),
        ("/dynamic-search-rules/{uid}", "dynamic search rules"),
        ("/indexes/{uid}/fields", "the list of fields"),
        ("/indexes/{uid}/compact", "compaction of indexes"),
        ("/indexes/{uid}/chat", "chat"),
        ("/tasks/{uid}/documents", "the documents of a task"),
        ("/tasks/compact", "compaction of the task queue"),
        ("/indexes/{uid}/render-template", "template rendering"),
        (
            "/experimental-features/reset",
            "reset of experimental features",
        ),
    ];
    PATHS
        .into_iter()
        .fold(Router::new(), |router, (path, operation)| {
            router.route(
                path,
                axum::routing::any(move || async move { ApiError::not_implemented(operation) }),
            )
        })
}

/// Doubled and trailing slashes in a path are ignored.
fn tidy_path(mut request: Request) -> Request {
    let path = request.uri().path();
    if path == "/" || !(path.contains("//") || path.ends_with('/')) {
        return request;
    }
    let segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let tidy = format!("/{}", segments.join("/"));
    let tidy = match request.uri().query() {
        Some(query) => format!("{tidy}?{query}"),
        None => tidy,
    };
    if let Ok(uri) = tidy.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}
