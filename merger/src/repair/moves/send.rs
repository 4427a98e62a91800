//! Writes of a move's own: the same to every replica of a shard, in the shard's order of writes.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde_json::Value;
use weft_routing::operation::{NamedOperation, Operation};
use weft_routing::placement::ShardId;

use super::{MoveError, remote};
use crate::cluster::{NodeRef, WriteMode};
use crate::ids::Ids;
use crate::repair::Context;
use crate::replication::{Command, Order, WriteGuard, replicate, settle_doubt};

/// One write.
pub(super) struct Write {
    named: NamedOperation,
    method: Method,
    path_and_query: String,
    content_type: &'static str,
    body: Bytes,
    /// The ids of its documents; `None` if it writes no documents.
    ids: Option<Ids>,
}

impl Write {
    /// Adds or replaces documents, one in each line.
    pub(super) fn documents(index: &str, primary_key: &str, lines: Vec<u8>, ids: Ids) -> Self {
        let key: String = form_urlencoded::byte_serialize(primary_key.as_bytes()).collect();
        Self {
            named: NamedOperation::of_index(Operation::ReplaceDocuments, index),
            method: Method::POST,
            path_and_query: marked(&format!("/indexes/{index}/documents?primaryKey={key}&")),
            content_type: "application/x-ndjson",
            body: lines.into(),
            ids: Some(ids),
        }
    }

    /// Deletes documents.
    pub(super) fn deletion(index: &str, ids: &[String]) -> Self {
        Self {
            named: NamedOperation::of_index(Operation::DeleteDocumentsBatch, index),
            method: Method::POST,
            path_and_query: marked(&format!("/indexes/{index}/documents/delete-batch?")),
            content_type: "application/json",
            body: serde_json::to_vec(ids).unwrap_or_default().into(),
            ids: Some(ids.iter().collect()),
        }
    }

    /// Creates an index, changes its settings, or deletes it.
    pub(super) fn change(
        named: NamedOperation,
        method: Method,
        path: String,
        body: &Value,
    ) -> Self {
        let body = match body {
            Value::Null => Bytes::new(),
            body => body.to_string().into(),
        };
        Self {
            named,
            method,
            path_and_query: path,
            content_type: "application/json",
            body,
            ids: None,
        }
    }
}

/// The path with a mark of its own: two replicas have the same write if and only if their tasks have the same mark.
fn marked(path: &str) -> String {
    format!("{path}customMetadata={}", uuid::Uuid::new_v4().simple())
}

/// The tasks that a write has made on the replicas that took it.
#[derive(Default)]
pub(super) struct Tasks(Vec<(NodeRef, u32)>);

/// Sends a write to all replicas in sync. The caller has the shard's lock. A merger that stops in order waits for it: otherwise some
/// replicas might have the write and others not, and nobody would compare them.
pub(super) async fn send(
    ctx: &Arc<Context>,
    guard: &WriteGuard,
    shard: ShardId,
    write: Write,
) -> Result<Tasks, MoveError> {
    let _begun = ctx.begun.token();
    if ctx.begun.is_closed() {
        return Err(MoveError::Stopping);
    }
    settle_doubt(ctx, shard).await?;
    let replicas = ctx.cluster.replicas_or_none(shard)?;
    ctx.cluster
        .note_move(shard, &write.named, write.ids.as_ref());
    let content_type = HeaderValue::from_static(write.content_type);
    let command = Command {
        method: write.method,
        path_and_query: write.path_and_query,
        headers: vec![(CONTENT_TYPE, content_type)],
        forwarded: ctx.own_authority(),
        body: Box::new(write.body),
        is_task: true,
    };
    let order = Order {
        shard,
        replicas: replicas.clone(),
        mode: WriteMode::Sync,
        command: Arc::new(command),
        taken: Vec::new(),
    };
    let receipt = replicate(&ctx.replication, guard, order).await;
    let receipt = receipt.map_err(|source| MoveError::NotTaken {
        shard,
        source: Box::new(source),
    })?;
    let mut tasks = Vec::new();
    for copy in receipt.part.copies {
        // No task record names this local task, but a later comparison of replicas must know of it.
        ctx.cluster.marks.made(&copy.node, copy.local_uid).await;
        let node = replicas.iter().find(|node| node.id == copy.node);
        tasks.extend(node.map(|node| (node.clone(), copy.local_uid)));
    }
    Ok(Tasks(tasks))
}

impl Tasks {
    /// Waits until the replicas have done them. A replica that left the in-sync set meanwhile isn't waited for.
    pub(super) async fn done(&self, ctx: &Context) -> Result<(), MoveError> {
        for (node, uid) in &self.0 {
            match remote(ctx, node).done(*uid).await {
                Ok(()) => {}
                Err(_) if !ctx.cluster.in_sync.holds(&node.id) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
