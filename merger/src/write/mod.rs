//! Writes of documents: decode → split → sequence → deliver.

use std::sync::Arc;

use crate::answer::Answer;
use crate::app::App;
use crate::call::Call;
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// Why a write came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A shard gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// Answers a write.
///
/// # Errors
/// [`WriteError`].
pub async fn handle(app: &Arc<App>, call: Call) -> Result<Answer, WriteError> {
    let shard = app
        .cluster
        .shards()
        .into_iter()
        .next()
        .unwrap_or(weft_routing::placement::ShardId(0));
    let timeout = app.options.write_timeout();
    let request = NodeRequest::new(
        Target::Shard(shard),
        call.method,
        call.path_and_query,
        &call.along,
        timeout,
    );
    Ok(app.upstream.send(request.body(call.body)).await?.pass_on())
}
