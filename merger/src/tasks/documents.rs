//! `GET /tasks/{uid}/documents`: the documents that a task adds, as nodes keep them until they are indexed.

use std::sync::Arc;

use futures_util::future::join_all;
use http::{HeaderValue, Method, StatusCode};

use super::handle::{uid, visible};
use super::{Share, TaskError};
use crate::answer::Answer;
use crate::call::{Call, ForwardedHeaders};
use crate::cluster::{ClusterError, NodeId};
use crate::tasks::Context;
use crate::upstream::{NodeAnswer, NodeRequest, Target};

/// The documents of all shards, one shard after the other.
pub(super) async fn documents(ctx: &Arc<Context>, call: &Call) -> Result<Answer, TaskError> {
    let forwarded = call.forwarded.with_key(ctx.master_key.as_deref());
    // A node checks first whether the feature is enabled, and words the refusal.
    if let Some(refusal) = not_enabled(ctx, &forwarded).await? {
        return Ok(refusal);
    }
    let uid = uid(call)?;
    let view = ctx.tasks.get(uid).await?;
    if !visible(call, &view) {
        return Err(TaskError::NotFound { uid });
    }
    let Some(record) = ctx.tasks.open_record(uid) else {
        return Err(TaskError::FileNotFound { uid });
    };
    let answers = join_all(
        record
            .parts
            .iter()
            .filter(|part| !part.is_removal)
            .filter_map(|part| part.copies.first())
            .map(|copy| ask(ctx, &forwarded, &copy.node, copy.local_uid)),
    );
    let mut lines = Vec::new();
    for answer in answers.await {
        let answer = answer?;
        match answer.status {
            StatusCode::OK => lines.extend_from_slice(&answer.body),
            StatusCode::NOT_FOUND => return Err(TaskError::FileNotFound { uid }),
            _ => return Ok(answer.pass_on()),
        }
    }
    let lines = match record.share {
        Some(share) => own_lines(share, &lines),
        None => lines,
    };
    if lines.is_empty() {
        return Err(TaskError::FileNotFound { uid });
    }
    let mut answer = Answer::json_bytes(StatusCode::OK, lines);
    answer.content_type = Some(HeaderValue::from_static("application/x-ndjson"));
    Ok(answer)
}

/// A node's refusal, if it would refuse for any task.
async fn not_enabled(
    ctx: &Context,
    forwarded: &ForwardedHeaders,
) -> Result<Option<Answer>, TaskError> {
    let shard = ctx.cluster.shards().into_iter().next();
    let shard = shard.ok_or(TaskError::Cluster(ClusterError::NoShards))?;
    let request = NodeRequest::new(
        Target::Shard(shard),
        Method::GET,
        format!("/tasks/{}/documents", u32::MAX),
        forwarded,
        ctx.search_timeout,
    );
    let answer = ctx.upstream.send(request).await?;
    let refused = !answer.status.is_success() && answer.status != StatusCode::NOT_FOUND;
    Ok(refused.then(|| answer.pass_on()))
}

async fn ask(
    ctx: &Context,
    forwarded: &ForwardedHeaders,
    node: &NodeId,
    local_uid: u32,
) -> Result<NodeAnswer, TaskError> {
    let address = ctx.cluster.address(node);
    let address = address.ok_or_else(|| TaskError::UnknownNode(node.clone()))?;
    let path = format!("/tasks/{local_uid}/documents");
    let timeout = ctx.search_timeout;
    let request = NodeRequest::new(Target::Node(address), Method::GET, path, forwarded, timeout);
    Ok(ctx.upstream.send(request).await?)
}

/// From the documents of a merged write, takes those of one client's write: a client must not see the others' documents.
fn own_lines(share: Share, lines: &[u8]) -> Vec<u8> {
    let Some(sent) = share.sent else {
        return Vec::new();
    };
    let (skip, take) = (
        usize::try_from(sent.before).unwrap_or(usize::MAX),
        usize::try_from(sent.count).unwrap_or(usize::MAX),
    );
    let own: Vec<&[u8]> = lines
        .split_inclusive(|byte| *byte == b'\n')
        .skip(skip)
        .take(take)
        .collect();
    own.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Sent;

    #[test]
    fn a_write_is_shown_its_own_lines_and_no_neighbours() {
        let lines = b"{\"id\":1}\n{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n";
        let own = |before, count| {
            let share = Share {
                sent: Some(Sent { before, count }),
                ..Share::default()
            };
            String::from_utf8(own_lines(share, lines)).unwrap()
        };
        // The first write named the same document twice.
        assert_eq!(own(0, 2), "{\"id\":1}\n{\"id\":1}\n");
        assert_eq!(own(2, 1), "{\"id\":2}\n");
        assert_eq!(own(3, 1), "{\"id\":3}\n");
        assert!(own_lines(Share::default(), lines).is_empty());
    }
}
