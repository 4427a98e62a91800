//! Cancels tasks, in the registry and on the nodes.

use std::sync::Arc;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::TaskError;
use super::handle::filter;
use super::record::{NewTask, ReplicaTask, ShardTask};
use super::registry::CANCELATION;
use crate::answer::Answer;
use crate::call::Call;
use crate::cluster::NodeId;
use crate::tasks::Context;
use crate::upstream::{NodeRequest, Target};

/// How many uids one request names: they are in its path, and a node reads no more than 64 KiB of it.
const UIDS_A_REQUEST: usize = 1_000;

pub(super) async fn cancel(ctx: &Arc<Context>, call: &Call) -> Result<Answer, TaskError> {
    let filter = filter(ctx, call)?;
    if !filter.narrows {
        return Err(TaskError::MissingFilters { verb: "cancel" });
    }
    let matched = ctx.tasks.matching(&filter);
    let local = ctx.tasks.local_uids(&matched);
    let copies = join_all(
        local
            .into_iter()
            .map(|(node, uids)| cancel_on(ctx, call, node, uids)),
    )
    .await;
    let mut parts = Vec::new();
    let copies = copies.into_iter().collect::<Result<Vec<_>, _>>()?;
    for copy in copies.into_iter().flatten() {
        let shard = ctx
            .cluster
            .topology()
            .shard_of(&copy.node)
            .ok_or_else(|| TaskError::UnknownNode(copy.node.clone()))?;
        parts.push(ShardTask::taken(shard, vec![copy]));
    }
    let details = json!({"matchedTasks": matched.len(), "canceledTasks": null, "originalFilter": format!("?{}", call.query())});
    let nothing_open = parts.is_empty();
    let mut details = details.as_object().cloned().unwrap_or_default();
    if nothing_open {
        details.insert("canceledTasks".to_owned(), Value::from(0));
    }
    let new = NewTask {
        kind: CANCELATION.to_owned(),
        details,
        parts,
        ..NewTask::default()
    };
    let enqueued = ctx.tasks.create(new).await?;
    ctx.tasks.cancel(&matched, enqueued.task_uid);
    Ok(Answer::json(StatusCode::OK, &enqueued))
}

/// Cancels tasks of one node, in batches; returns the uids of the node's own cancelation tasks.
async fn cancel_on(
    ctx: &Context,
    call: &Call,
    node: NodeId,
    uids: Vec<u32>,
) -> Result<Vec<ReplicaTask>, TaskError> {
    let mut copies = Vec::new();
    for path in paths("/tasks/cancel?uids=", &uids) {
        copies.push(cancel_some(ctx, call, node.clone(), path).await?);
    }
    Ok(copies)
}

async fn cancel_some(
    ctx: &Context,
    call: &Call,
    node: NodeId,
    path: String,
) -> Result<ReplicaTask, TaskError> {
    let address = ctx
        .cluster
        .address(&node)
        .ok_or_else(|| TaskError::UnknownNode(node.clone()))?;
    let forwarded = call.forwarded.with_key(ctx.master_key.as_deref());
    let request = NodeRequest::new(
        Target::Node(address),
        Method::POST,
        path,
        &forwarded,
        ctx.write_timeout,
    );
    let answer = ctx.upstream.send(request).await?;
    let local_uid = answer
        .task_uid()
        .ok_or_else(|| TaskError::UnknownNode(node.clone()))?;
    Ok(ctx
        .cluster
        .marks
        .acknowledged_beside(&node, local_uid)
        .into())
}

/// Paths that together name all of `uids`.
pub(super) fn paths<'a>(begin: &'a str, uids: &'a [u32]) -> impl Iterator<Item = String> + use<'a> {
    uids.chunks(UIDS_A_REQUEST).map(move |some| {
        let words: Vec<String> = some.iter().map(u32::to_string).collect();
        format!("{begin}{}", words.join(","))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_tasks_are_named_no_path_is_longer_than_a_node_reads() {
        const LONGEST: usize = 16 << 10;
        for count in [0, 1, 999, 1_000, 1_001, 50_000] {
            let uids: Vec<u32> = (0..count).map(|number| u32::MAX - number).collect();
            let all: Vec<String> = paths("/tasks/cancel?uids=", &uids).collect();
            assert!(all.iter().all(|path| path.len() < LONGEST), "{count}");
            let named: Vec<u32> = all
                .iter()
                .flat_map(|path| path.split_once('=').unwrap().1.split(','))
                .map(|uid| uid.parse().unwrap())
                .collect();
            assert_eq!(named, uids);
        }
    }
}
