//! Rewrites the filters of writes so that they mean the same on every shard: see [`crate::filters`].
//!
//! A node applies a filter when it comes to the write, after all writes accepted before. One of those may bring a field that no
//! shard knows yet, so it must be done before the filter can be judged: only writes with such a filter wait. So a write never
//! deletes more documents than a single node would.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use hashbrown::HashSet;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use weft_routing::placement::ShardId;

use super::WriteError;
use crate::call::Call;
use crate::cluster::ClusterError;
use crate::filters::requests::Request;
use crate::filters::{MOST_FIELDS, unequal};
use crate::tasks::{Unknown, ask_primary, ask_until};
use crate::upstream::{NodeRequest, Target};
use crate::write::Context;

/// How long a write waits for the writes before it.
const WITHIN: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(25);
/// How many requests to shards a write has in flight at once.
const AT_ONCE: usize = 32;

/// Tasks after which an index may have lost fields.
const FORGET: [&str; 1] = ["indexDeletion"];
/// Tasks after which the name may belong to another index.
const RENAME: [&str; 2] = ["indexSwap", "indexUpdate"];
/// Tasks that may add a field to an index, or make it filterable.
const BRING: [&str; 4] = [
    "documentAdditionOrUpdate",
    "documentEdition",
    "settingsUpdate",
    "indexCreation",
];

/// The body of a deletion or edition as it is sent to all shards.
///
/// # Errors
/// A shard doesn't tell which fields it knows, or is busy for too long.
pub(super) async fn body(ctx: &Context, call: &Call, body: Bytes) -> Result<Bytes, WriteError> {
    let request = Request {
        method: call.method.clone(),
        path_and_query: call.path_and_query.clone(),
        body: Some(body.clone()),
    };
    if !request.may_compare() {
        return Ok(body);
    }
    let mut compared = Vec::new();
    request.with_filters(&mut |_, filter| {
        compared = filter.map(unequal::fields).unwrap_or_default();
        None
    });
    let uid = call.index.as_deref().unwrap_or_default();
    let placement = ctx.cluster.placement(uid);
    let shards = placement.as_ref().map(|placement| placement.shards());
    let shards = shards.unwrap_or_default();
    if compared.is_empty() || shards.len() < 2 {
        return Ok(body);
    }
    compared.truncate(MOST_FIELDS);
    let known = known_at_last(ctx, uid, shards, &compared).await?;
    let new = request
        .with_filters(&mut |_, filter| unequal::reworded(filter?, &|field| known.contains(field)));
    Ok(new.and_then(|new| new.body).unwrap_or(body))
}

/// Which of the fields any shard knows, once no task is under way that may change that.
async fn known_at_last(
    ctx: &Context,
    uid: &str,
    shards: &[ShardId],
    compared: &[String],
) -> Result<HashSet<String>, WriteError> {
    let known = || async {
        let forgets = are_under_way(ctx, shards, &FORGET, Some(uid)).await?
            || are_under_way(ctx, shards, &RENAME, None).await?;
        let brings = are_under_way(ctx, shards, &BRING, Some(uid)).await?;
        let known = known_now(ctx, uid, shards, compared).await?;
        let is_settled = !forgets && (!brings || known.len() == compared.len());
        Ok::<_, WriteError>(is_settled.then_some(known))
    };
    let known = ask_until(WITHIN, AGAIN, known).await?;
    known.ok_or_else(|| WriteError::Busy(uid.to_owned()))
}

/// Whether tasks of these kinds are under way: open in the registry, or on a node and not registered yet.
async fn are_under_way(
    ctx: &Context,
    shards: &[ShardId],
    kinds: &[&str],
    index_uid: Option<&str>,
) -> Result<bool, WriteError> {
    if ctx.tasks.are_open(kinds, index_uid) {
        return Ok(true);
    }
    let of_index = index_uid.map(|uid| format!("&indexUids={uid}"));
    let path = format!(
        "/tasks?statuses=enqueued,processing&limit=1&types={}{}",
        kinds.join(","),
        of_index.unwrap_or_default()
    );
    let looks = shards
        .iter()
        .map(|shard| ask_primary::<Value>(ctx, *shard, path.clone()));
    let looks = try_join_all(looks).await?;
    let idle = |look: &Option<Value>| {
        let total = look.as_ref().and_then(|list| list.get("total")?.as_u64());
        total == Some(0)
    };
    Ok(!looks.iter().all(idle))
}

/// Which of the fields any shard's primary knows now.
async fn known_now(
    ctx: &Context,
    uid: &str,
    shards: &[ShardId],
    compared: &[String],
) -> Result<HashSet<String>, WriteError> {
    let mut known = HashSet::new();
    let questions: Vec<(ShardId, &String)> = shards
        .iter()
        .flat_map(|shard| compared.iter().map(|field| (*shard, field)))
        .collect();
    for some in questions.chunks(AT_ONCE) {
        let answers = some
            .iter()
            .map(|(shard, field)| knows(ctx, *shard, uid, field));
        for ((_, field), answer) in some.iter().zip(join_all(answers).await) {
            if answer? {
                known.insert((*field).clone());
            }
        }
    }
    Ok(known)
}

async fn knows(ctx: &Context, shard: ShardId, uid: &str, field: &str) -> Result<bool, WriteError> {
    let primary = ctx.cluster.primary(shard);
    let primary = primary.ok_or(ClusterError::ShardLost(shard))?;
    let asked = json!({"filter": unequal::is_known(field), "limit": 0, "fields": ["_"]});
    let request = NodeRequest::new(
        Target::Node(primary.address),
        Method::POST,
        format!("/indexes/{uid}/documents/fetch"),
        &ctx.own_authority(),
        ctx.search_timeout,
    );
    let answer = ctx
        .upstream
        .send(request.json(Bytes::from(asked.to_string())))
        .await?;
    if answer.status != StatusCode::OK {
        return Ok(false);
    }
    let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Ok(list
        .get("total")
        .and_then(Value::as_u64)
        .is_some_and(|total| total > 0))
}

impl From<Unknown> for WriteError {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Cluster(error) => error.into(),
            Unknown::Upstream(error) => error.into(),
        }
    }
}
