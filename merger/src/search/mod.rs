//! Reads that return documents or counts: plan → scatter → gather → rank → merge → respond.

use std::sync::Arc;

use crate::answer::Answer;
use crate::app::App;
use crate::call::Call;
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// Why a read came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A shard gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// Answers a read.
///
/// # Errors
/// [`SearchError`].
pub async fn handle(app: &Arc<App>, call: Call) -> Result<Answer, SearchError> {
    let shard = app
        .cluster
        .shards()
        .into_iter()
        .next()
        .unwrap_or(weft_routing::placement::ShardId(0));
    let timeout = app.options.search_timeout();
    let request = NodeRequest::new(
        Target::Shard(shard),
        call.method,
        call.path_and_query,
        &call.along,
        timeout,
    );
    Ok(app.upstream.send(request.body(call.body)).await?.pass_on())
}
