//! Finds the shards that hold certain documents of an index that lies by a field, where an id alone doesn't tell.
//!
//! Nodes are asked, and their answer holds as long as nothing changes the index: no task of it is under way on any of its shards,
//! and nothing was sent since. The [`Stamp`] tells the latter, since everything that changes such an index passes this merger. A
//! writer compares it again under the locks of all of the index's shards.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::try_join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use weft_routing::document_id::DocumentId;
use weft_routing::placement::ShardId;
use weft_routing::value::RoutingValue;

use super::split::{Home, Owners};
use crate::call::full;
use crate::cluster::{ClusterError, Placement};
use crate::tasks::{Unknown, are_pending};
use crate::upstream::{NodeRequest, Stamp, Target};
use crate::write::Context;

/// How many documents a node is asked for at once.
const AT_ONCE: usize = 1_000;

/// Where documents lie, and the state of the index for which this is so.
pub(super) struct Located {
    owners: Arc<Owners>,
    stamp: Stamp,
}

impl Located {
    /// Where the documents lie.
    pub(super) fn owners(&self) -> &Arc<Owners> {
        &self.owners
    }

    /// Whether nothing was sent since that may change the index. The caller holds the locks of all of its shards.
    pub(super) fn holds(&self, ctx: &Context, uid: &str) -> bool {
        ctx.upstream.changing().stamp([uid]) == self.stamp && !ctx.tasks.is_late(uid)
    }
}

/// Looks for the documents with these ids on all shards of an index. `None` while anything changes the index.
///
/// # Errors
/// A shard gives no answer.
pub(super) async fn locate(
    ctx: &Context,
    placement: &Placement,
    key: &str,
    ids: &[&str],
) -> Result<Option<Located>, Unknown> {
    let uid = placement.uid.as_str();
    let stamp = ctx.upstream.changing().stamp([uid]);
    let shards = placement.shards();
    if is_open(ctx, uid, shards) {
        return Ok(None);
    }
    let pending = shards.iter().map(|shard| are_pending(ctx, *shard, uid));
    if try_join_all(pending).await?.contains(&true) {
        return Ok(None);
    }
    let mut owners = Owners::default();
    let field = placement.slots.field().map_or("", |field| field.as_str());
    let fields = [key, field];
    for ids in ids.chunks(AT_ONCE) {
        let found = shards.iter();
        let found = found.map(|shard| fetch(ctx, *shard, uid, &fields, ids));
        let found = try_join_all(found).await?;
        for (shard, documents) in shards.iter().zip(&found) {
            let Some(documents) = documents else {
                return Ok(None);
            };
            for document in documents {
                let value = document.get(field).map(Value::to_string);
                let value = value.and_then(|json| RoutingValue::from_json(&json).ok());
                let Some(id) = id_of(document, key) else {
                    continue;
                };
                // One without a value lies where it was written, and its strategy is about to change.
                let owner = DocumentId::from_text(&id).ok();
                let owner = value.as_ref().and(owner);
                let owner =
                    owner.and_then(|id| placement.slots.shard_of_document(&id, value.as_ref()));
                if owner.is_some_and(|owner| owner != *shard) {
                    // A copy that a move has brought there too soon, or has left there.
                    continue;
                }
                let home = Home {
                    shard: *shard,
                    value,
                };
                owners.put(&id, home);
            }
        }
    }
    let located = Located {
        owners: Arc::new(owners),
        stamp,
    };
    Ok(located.holds(ctx, uid).then_some(located))
}

/// Whether a request that may change the index is on its way, or may still arrive.
fn is_open(ctx: &Context, uid: &str, shards: &[ShardId]) -> bool {
    let primaries = shards
        .iter()
        .filter_map(|shard| ctx.cluster.primary(*shard));
    let primaries: Vec<SocketAddr> = primaries.map(|node| node.address).collect();
    let unknown = ctx.upstream.changing().unknown(&[(uid, &primaries)]);
    unknown.under_way || ctx.tasks.is_late(uid)
}

/// Those of the documents with these ids that a shard holds, with these fields. `None` if it refuses to say.
pub(super) async fn fetch(
    ctx: &Context,
    shard: ShardId,
    uid: &str,
    fields: &[&str],
    ids: &[&str],
) -> Result<Option<Vec<Value>>, Unknown> {
    let primary = ctx.cluster.primary(shard);
    let primary = primary.ok_or(ClusterError::ShardLost(shard))?;
    let body = json!({"ids": ids, "fields": fields, "limit": ids.len()});
    let request = NodeRequest::new(
        Target::Node(primary.address),
        Method::POST,
        format!("/indexes/{uid}/documents/fetch"),
        &ctx.own_authority(),
        ctx.search_timeout,
    )
    .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
    .body(full(body.to_string()));
    let answer = ctx.upstream.send(request).await?;
    if answer.status == StatusCode::NOT_FOUND {
        // The index isn't there yet, or any more.
        return Ok(Some(Vec::new()));
    }
    let mut told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Ok(match told.get_mut("results").map(Value::take) {
        Some(Value::Array(documents)) if answer.status.is_success() => Some(documents),
        _ => None,
    })
}

/// The id of a document.
pub(super) fn id_of(document: &Value, key: &str) -> Option<String> {
    Some(match member(document, key)? {
        Value::String(id) => id.clone(),
        id => id.to_string(),
    })
}

/// A field by its name, or by its path.
fn member<'a>(document: &'a Value, key: &str) -> Option<&'a Value> {
    document.get(key).or_else(|| {
        let mut steps = key.match_indices('.');
        steps.find_map(|(at, _)| {
            let (first, rest) = key.split_at(at);
            member(document.get(first)?, rest.get(1..)?)
        })
    })
}
