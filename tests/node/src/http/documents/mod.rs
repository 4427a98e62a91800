//! `/indexes/{uid}/documents` and all routes below it.

mod add;
mod change;
mod read;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::{Answer, Call, blocking};
use crate::node::Node;

pub(super) fn routes() -> Router<Arc<Node>> {
    let all = get(read::list)
        .post(add::replace)
        .put(add::update)
        .delete(change::clear);
    Router::new()
        .route("/indexes/{uid}/documents", all)
        .route(
            "/indexes/{uid}/documents/{id}",
            get(read::show).delete(change::delete_one),
        )
        .route("/indexes/{uid}/documents/fetch", post(read::fetch))
        .route(
            "/indexes/{uid}/documents/delete-batch",
            post(change::delete_batch),
        )
        .route(
            "/indexes/{uid}/documents/delete",
            post(change::delete_by_filter),
        )
        .route("/indexes/{uid}/documents/edit", post(change::edit))
}
