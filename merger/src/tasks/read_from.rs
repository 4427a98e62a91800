//! Which replicas may answer a read that must see a task's effect.

use std::time::Duration;

use http::HeaderMap;
use weft_routing::headers;

use super::{Applied, Context};
use crate::cluster::{ClusterError, ReadFrom, until};
use crate::upstream::Target;

/// What the client asks for with `x-weft-read` and `x-weft-after-task`. Waits, at most for `within`, until one replica of each
/// shard that the task concerns has applied it.
///
/// # Errors
/// A header can't be parsed, there is no such task, or it isn't applied in time.
pub async fn read_from(
    ctx: &Context,
    wishes: &HeaderMap,
    within: Duration,
) -> Result<ReadFrom, ClusterError> {
    let text = |name: &str| {
        wishes
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let invalid = |name: &str, value: &str| {
        ClusterError::InvalidWish(format!("Invalid value in header `{name}`: `{value}`"))
    };
    let primary = match text(headers::READ).map(str::trim) {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("any") => false,
        Some(word) if word.eq_ignore_ascii_case("primary") => true,
        Some(other) => return Err(invalid(headers::READ, other)),
    };
    let applied = match text(headers::AFTER_TASK).map(str::trim) {
        None => ReadFrom::Any,
        Some(uid) => {
            let parsed = uid.parse().map_err(|_| invalid(headers::AFTER_TASK, uid))?;
            after_task(ctx, parsed, within).await?
        }
    };
    Ok(match applied {
        ReadFrom::Any if primary => ReadFrom::Primary,
        applied => applied,
    })
}

async fn after_task(ctx: &Context, uid: u32, within: Duration) -> Result<ReadFrom, ClusterError> {
    let look = || match ctx.tasks.applied(uid) {
        Some(Applied::Everywhere) => Some(Ok(ReadFrom::Any)),
        Some(Applied::By(replicas)) => {
            let address = |node| ctx.cluster.address(node).map(Target::Node);
            let targets = replicas
                .iter()
                .filter_map(|(shard, node)| Some((*shard, address(node)?)))
                .collect();
            Some(Ok(ReadFrom::Applied(targets)))
        }
        Some(Applied::NotYet) => None,
        None => Some(Err(ClusterError::UnknownTask(uid))),
    };
    let applied = tokio::time::timeout(within, until([&ctx.tasks.changes], look));
    let late = |_| ClusterError::NotApplied { uid, within };
    applied.await.map_err(late)?
}
