//! Reads of indexes (the list, one index, its statistics), merged over the shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::BroadcastError;
use super::gather::{Gathered, from_all, shards_of};
use super::sizes::SizeFormat;
use super::spread::NodeChange;
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;

/// More indexes than any node holds: the merger asks for all and pages the merged list itself.
const ALL_INDEXES: &str = "/indexes?limit=1000000";

/// `GET /indexes`: merges the shards' lists and pages the result.
pub(super) async fn list(ctx: &Arc<Context>, call: &Call) -> Result<Answer, BroadcastError> {
    let mut page = (0_usize, 20_usize);
    for (name, value) in call.query_pairs() {
        match (name.as_ref(), value.parse()) {
            ("offset", Ok(offset)) => page.0 = offset,
            ("limit", Ok(limit)) => page.1 = limit,
            // A node words the refusal.
            _ => return from_any_of(ctx, call).await,
        }
    }
    let request = NodeChange {
        path_and_query: ALL_INDEXES.to_owned(),
        ..NodeChange::read(call)
    };
    let shards = shards_of(ctx, call)?;
    let lists = match from_all(ctx, &request, &shards).await? {
        Gathered::Refused(answer) => return Ok(answer),
        Gathered::All(lists) => lists,
    };
    let mut indexes: BTreeMap<String, Value> = BTreeMap::new();
    for index in lists
        .iter()
        .filter_map(|(_, list)| list["results"].as_array())
        .flatten()
    {
        let uid = index["uid"].as_str().unwrap_or_default().to_owned();
        match indexes.get_mut(&uid) {
            Some(merged) => merge_index(merged, index),
            None => {
                indexes.insert(uid, index.clone());
            }
        }
    }
    let total = indexes.len();
    let results: Vec<Value> = indexes.into_values().skip(page.0).take(page.1).collect();
    let body = json!({"results": results, "offset": page.0, "limit": page.1, "total": total});
    Ok(Answer::json(StatusCode::OK, &body))
}

/// `GET /indexes/{uid}`: one index over all its shards.
pub(super) async fn get(ctx: &Arc<Context>, call: &Call) -> Result<Answer, BroadcastError> {
    merged(ctx, call, &NodeChange::read(call), merge_index).await
}

/// `GET /indexes/{uid}/stats`: the sum over the shards.
pub(super) async fn stats(ctx: &Arc<Context>, call: &Call) -> Result<Answer, BroadcastError> {
    let Some(format) = SizeFormat::of(call) else {
        // A node words the refusal.
        return from_any_of(ctx, call).await;
    };
    let request = NodeChange {
        path_and_query: SizeFormat::asked(call),
        ..NodeChange::read(call)
    };
    let mut answer = merged(ctx, call, &request, add_stats).await?;
    if answer.status == StatusCode::OK
        && let Ok(mut sum) = serde_json::from_slice(&answer.body)
    {
        format.tell(&mut sum);
        answer = Answer::json(StatusCode::OK, &sum);
    }
    Ok(answer)
}

async fn merged(
    ctx: &Arc<Context>,
    call: &Call,
    request: &NodeChange,
    merge: fn(&mut Value, &Value),
) -> Result<Answer, BroadcastError> {
    if call
        .index
        .as_deref()
        .and_then(|uid| ctx.cluster.placement(uid))
        .is_none()
    {
        return from_any_of(ctx, call).await;
    }
    let shards = shards_of(ctx, call)?;
    match from_all(ctx, request, &shards).await? {
        Gathered::Refused(answer) => Ok(answer),
        Gathered::All(all) => {
            let mut values = all.into_iter().map(|(_, value)| value);
            let mut merged = values.next().unwrap_or_default();
            values.for_each(|value| merge(&mut merged, &value));
            Ok(Answer::json(StatusCode::OK, &merged))
        }
    }
}

pub(super) async fn from_any_of(ctx: &Context, call: &Call) -> Result<Answer, BroadcastError> {
    let mut last = BroadcastError::Cluster(crate::cluster::ClusterError::NoShards);
    for shard in shards_of(ctx, call)? {
        match from_all(ctx, &NodeChange::read(call), &[shard]).await {
            Ok(Gathered::Refused(answer)) => return Ok(answer),
            Ok(Gathered::All(all)) => {
                let value = all
                    .into_iter()
                    .map(|(_, value)| value)
                    .next()
                    .unwrap_or_default();
                return Ok(Answer::json(StatusCode::OK, &value));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Merges two descriptions of an index: the earliest creation, the latest change, and the primary key if any shard knows it.
fn merge_index(merged: &mut Value, other: &Value) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let (Some(a), Some(b)) = (text(&merged["createdAt"]), text(&other["createdAt"]))
        && b < a
    {
        merged["createdAt"] = Value::from(b);
    }
    if let (Some(a), Some(b)) = (text(&merged["updatedAt"]), text(&other["updatedAt"]))
        && b > a
    {
        merged["updatedAt"] = Value::from(b);
    }
    if merged["primaryKey"].is_null() {
        merged["primaryKey"] = other["primaryKey"].clone();
    }
}

/// Adds one shard's statistics of an index to another's: counts are summed, the average is weighted by documents.
pub(super) fn add_stats(sum: &mut Value, other: &Value) {
    let documents = |value: &Value| value["numberOfDocuments"].as_u64().unwrap_or(0);
    let (mine, theirs) = (documents(sum), documents(other));
    let average = |value: &Value| value["avgDocumentSize"].as_u64().unwrap_or(0);
    let weighted = (average(sum) * mine + average(other) * theirs).checked_div(mine + theirs);
    let (Some(fields), Some(others)) = (sum.as_object_mut(), other.as_object()) else {
        return;
    };
    for (name, theirs) in others {
        match (fields.get_mut(name), theirs) {
            (None, _) => {
                fields.insert(name.clone(), theirs.clone());
            }
            (Some(Value::Number(_)), Value::Number(_)) if name == "avgDocumentSize" => {
                fields.insert(name.clone(), Value::from(weighted.unwrap_or(0)));
            }
            (Some(Value::Bool(mine)), Value::Bool(theirs)) => *mine |= theirs,
            (Some(mine @ Value::Number(_)), Value::Number(_)) => {
                *mine = Value::from(mine.as_u64().unwrap_or(0) + theirs.as_u64().unwrap_or(0));
            }
            (Some(Value::Object(mine)), Value::Object(theirs)) => {
                for (field, count) in theirs {
                    let so_far = mine.get(field).and_then(Value::as_u64).unwrap_or(0);
                    mine.insert(
                        field.clone(),
                        Value::from(so_far + count.as_u64().unwrap_or(0)),
                    );
                }
                mine.sort_keys();
            }
            _ => {}
        }
    }
}
