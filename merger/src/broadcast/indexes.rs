//! Indexes and their settings.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::BroadcastError;
use super::gather::{Gathered, from_all, shards_of};
use super::spread::{Change, Reach, Spread, spread};
use crate::answer::Answer;
use crate::app::App;
use crate::call::Call;
use crate::cluster::Placement;
use crate::tasks::NewTask;

/// More than any node holds: the merged list is paged here.
const ALL_INDEXES: &str = "/indexes?limit=1000000";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sharding {
    shard_count: Option<u16>,
    #[serde(default = "one")]
    replication_factor: u16,
    strategy: Option<String>,
}

fn one() -> u16 {
    1
}

/// `POST /indexes`: places the index, then creates it on each of its shards.
pub(super) async fn create(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    let mut change = Change::of(app, call).await?;
    let mut body: Map<String, Value> = serde_json::from_slice(&change.body).unwrap_or_default();
    let sharding = match body.remove("sharding") {
        None | Some(Value::Null) => Sharding {
            replication_factor: 1,
            ..Sharding::default()
        },
        Some(value) => {
            change.body = serde_json::to_vec(&body).unwrap_or_default().into();
            read_sharding(value)?
        }
    };
    let uid = body
        .get("uid")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if !is_uid(&uid) {
        // A node words the refusal; it can't take what has no valid uid.
        return refuse(app, &change).await;
    }
    let known = app.cluster.placement(&uid).is_some();
    let placement = app
        .cluster
        .create_placement(&uid, sharding.shard_count, sharding.replication_factor)
        .await?;
    let key = body
        .get("primaryKey")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let details = json!({"primaryKey": key})
        .as_object()
        .cloned()
        .unwrap_or_default();
    let task = NewTask {
        kind: "indexCreation".to_owned(),
        details,
        ..NewTask::default()
    };
    let reborn = placement.deleted_by.is_some();
    if reborn {
        app.cluster.placements.revive(&uid).await?;
    }
    let answer = spread_as_task(app, &change, &placement, task).await;
    let taken = answer
        .as_ref()
        .is_ok_and(|answer| answer.status.is_success());
    if !taken && !known {
        app.cluster.placements.remove(&uid).await?;
    }
    if taken && (!known || reborn) && key.is_some() {
        app.cluster
            .placements
            .set_primary_key(&uid, key.as_deref())
            .await?;
    }
    answer
}

fn read_sharding(value: Value) -> Result<Sharding, BroadcastError> {
    let invalid = |detail: String| BroadcastError::InvalidSharding { detail };
    let sharding: Sharding =
        serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
    match sharding.strategy.as_deref() {
        None | Some("hash") => {}
        Some(other) => {
            return Err(invalid(format!(
                "unknown strategy `{other}`: expected `hash`"
            )));
        }
    }
    if sharding.shard_count == Some(0) || sharding.replication_factor == 0 {
        return Err(invalid("counts start from 1".to_owned()));
    }
    Ok(sharding)
}

fn is_uid(uid: &str) -> bool {
    (1..=400).contains(&uid.len())
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

async fn refuse(app: &App, change: &Change) -> Result<Answer, BroadcastError> {
    let Some(shard) = app.cluster.shards().into_iter().next() else {
        return Err(crate::cluster::ClusterError::NoShards.into());
    };
    match from_all(app, change, &[shard]).await? {
        Gathered::Refused(answer) => Ok(answer),
        Gathered::All(_) => Err(BroadcastError::Unreadable { shard }),
    }
}

/// Sends a change to all replicas of an index and registers the task.
async fn spread_as_task(
    app: &App,
    change: &Change,
    placement: &Placement,
    task: NewTask,
) -> Result<Answer, BroadcastError> {
    match spread(app, change, placement.shards(), Reach::Replicas).await? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { parts, .. } => {
            let index_uid = Some(placement.uid.clone());
            let enqueued = app
                .tasks
                .create(NewTask {
                    parts,
                    index_uid,
                    ..task
                })
                .await?;
            Ok(Answer::json(StatusCode::ACCEPTED, &enqueued))
        }
    }
}

/// A change to an index that no shard holds: a node knows what to say.
async fn spread_or_ask(app: &Arc<App>, call: Call, kind: &str) -> Result<Answer, BroadcastError> {
    let placement = call
        .index
        .as_deref()
        .and_then(|uid| app.cluster.placement(uid));
    let Some(placement) = placement else {
        return unplaced(app, call, kind).await;
    };
    let change = Change::of(app, call).await?;
    spread_as_task(
        app,
        &change,
        &placement,
        NewTask {
            kind: kind.to_owned(),
            ..NewTask::default()
        },
    )
    .await
}

/// The index is not placed: one shard gets the change, so that the task fails, or the request is refused, in a node's words.
async fn unplaced(app: &Arc<App>, call: Call, kind: &str) -> Result<Answer, BroadcastError> {
    let index_uid = call.index.clone();
    let change = Change::of(app, call).await?;
    let first: Vec<_> = app.cluster.shards().into_iter().take(1).collect();
    match spread(app, &change, &first, Reach::Primaries).await? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { parts, .. } => {
            let task = NewTask {
                kind: kind.to_owned(),
                parts,
                index_uid,
                ..NewTask::default()
            };
            Ok(Answer::json(
                StatusCode::ACCEPTED,
                &app.tasks.create(task).await?,
            ))
        }
    }
}

/// `PATCH /indexes/{uid}` and `POST /indexes/{uid}/compact`.
pub(super) async fn change(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    let kind = if call.method == Method::PATCH {
        "indexUpdate"
    } else {
        "indexCompaction"
    };
    spread_or_ask(app, call, kind).await
}

/// `DELETE /indexes/{uid}`. The placement goes when the task has succeeded.
pub(super) async fn delete(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    let placement = call
        .index
        .as_deref()
        .and_then(|uid| app.cluster.placement(uid));
    let Some(placement) = placement else {
        return unplaced(app, call, "indexDeletion").await;
    };
    let change = Change::of(app, call).await?;
    match spread(app, &change, placement.shards(), Reach::Replicas).await? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { parts, .. } => {
            let index_uid = Some(placement.uid.clone());
            let task = NewTask {
                kind: "indexDeletion".to_owned(),
                parts,
                index_uid,
                ..NewTask::default()
            };
            let enqueued = app.tasks.create(task).await?;
            app.cluster
                .placements
                .mark_deleted(&placement.uid, enqueued.task_uid)
                .await?;
            // The task may have settled before the mark was there.
            if let Ok(view) = app.tasks.get(enqueued.task_uid).await {
                super::on_settled(app, &view).await?;
            }
            Ok(Answer::json(StatusCode::ACCEPTED, &enqueued))
        }
    }
}

/// All settings routes that change something. On a node they create the index if it isn't there, so they place it here.
pub(super) async fn change_settings(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    let kind = "settingsUpdate";
    let Some(uid) = call.index.clone().filter(|uid| is_uid(uid)) else {
        return unplaced(app, call, kind).await;
    };
    let resets = call.method == Method::DELETE;
    let known = app.cluster.placement(&uid);
    if resets && known.is_none() {
        return unplaced(app, call, kind).await;
    }
    let change = Change::of(app, call).await?;
    let placement = match &known {
        Some(placement) => Arc::clone(placement),
        None => app.cluster.create_placement(&uid, None, 1).await?,
    };
    app.cluster.placements.revive(&uid).await?;
    let task = NewTask {
        kind: kind.to_owned(),
        ..NewTask::default()
    };
    let answer = spread_as_task(app, &change, &placement, task).await;
    if known.is_none()
        && !answer
            .as_ref()
            .is_ok_and(|answer| answer.status.is_success())
    {
        app.cluster.placements.remove(&uid).await?;
    }
    answer
}

#[derive(Deserialize)]
struct SwapPair {
    indexes: Vec<String>,
}

/// `POST /swap-indexes`: each node swaps; the placements follow when the task has succeeded.
pub(super) async fn swap(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    let change = Change::of(app, call).await?;
    let pairs: Vec<SwapPair> = serde_json::from_slice(&change.body).unwrap_or_default();
    for pair in &pairs {
        if let [one, two] = pair.indexes.as_slice()
            && let (Some(first), Some(second)) =
                (app.cluster.placement(one), app.cluster.placement(two))
            && first.slots != second.slots
        {
            return Err(BroadcastError::DifferentPlacements {
                one: one.clone(),
                two: two.clone(),
            });
        }
    }
    let placed = pairs
        .iter()
        .flat_map(|pair| &pair.indexes)
        .find_map(|uid| app.cluster.placement(uid));
    let shards = placed.map_or_else(
        || app.cluster.shards(),
        |placement| placement.shards().to_vec(),
    );
    match spread(app, &change, &shards, Reach::Replicas).await? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { parts, .. } => {
            let task = NewTask {
                kind: "indexSwap".to_owned(),
                parts,
                ..NewTask::default()
            };
            Ok(Answer::json(
                StatusCode::ACCEPTED,
                &app.tasks.create(task).await?,
            ))
        }
    }
}

/// An index was written to past the broadcast: it is alive again if it was being deleted, and placed if it wasn't.
///
/// # Errors
/// The placement can't be stored.
pub async fn written_to(app: &Arc<App>, uid: &str) -> Result<(), BroadcastError> {
    match app.cluster.placement(uid) {
        Some(placement) if placement.deleted_by.is_none() => Ok(()),
        _ => {
            let placement = app.cluster.create_placement(uid, None, 1).await?;
            app.cluster.placements.revive(uid).await?;
            let change = Change {
                method: Method::POST,
                path_and_query: "/indexes".to_owned(),
                along: app.own_authority(),
                headers: vec![(
                    http::header::CONTENT_TYPE,
                    http::HeaderValue::from_static("application/json"),
                )],
                body: json!({"uid": uid}).to_string().into(),
            };
            spread(app, &change, placement.shards(), Reach::Replicas)
                .await
                .map(drop)
        }
    }
}

/// `GET /indexes`: the shards' lists as one, paged here.
pub(super) async fn list(app: &Arc<App>, call: &Call) -> Result<Answer, BroadcastError> {
    let mut page = (0_usize, 20_usize);
    for (name, value) in call.query_pairs() {
        match (name.as_ref(), value.parse()) {
            ("offset", Ok(offset)) => page.0 = offset,
            ("limit", Ok(limit)) => page.1 = limit,
            // A node words the refusal.
            _ => return from_any_of(app, call).await,
        }
    }
    let request = Change {
        path_and_query: ALL_INDEXES.to_owned(),
        ..read(call)
    };
    let shards = shards_of(app, call)?;
    let lists = match from_all(app, &request, &shards).await? {
        Gathered::Refused(answer) => return Ok(answer),
        Gathered::All(lists) => lists,
    };
    let mut indexes: std::collections::BTreeMap<String, Value> = std::collections::BTreeMap::new();
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
pub(super) async fn get(app: &Arc<App>, call: &Call) -> Result<Answer, BroadcastError> {
    merged(app, call, merge_index).await
}

/// `GET /indexes/{uid}/stats`: summed.
pub(super) async fn stats(app: &Arc<App>, call: &Call) -> Result<Answer, BroadcastError> {
    merged(app, call, add_stats).await
}

async fn merged(
    app: &Arc<App>,
    call: &Call,
    merge: fn(&mut Value, &Value),
) -> Result<Answer, BroadcastError> {
    if call
        .index
        .as_deref()
        .and_then(|uid| app.cluster.placement(uid))
        .is_none()
    {
        return from_any_of(app, call).await;
    }
    let shards = shards_of(app, call)?;
    match from_all(app, &read(call), &shards).await? {
        Gathered::Refused(answer) => Ok(answer),
        Gathered::All(all) => {
            let mut values = all.into_iter().map(|(_, value)| value);
            let mut merged = values.next().unwrap_or_default();
            values.for_each(|value| merge(&mut merged, &value));
            Ok(Answer::json(StatusCode::OK, &merged))
        }
    }
}

/// A read without a body.
fn read(call: &Call) -> Change {
    Change {
        method: call.method.clone(),
        path_and_query: call.path_and_query.clone(),
        along: call.along.clone(),
        headers: Vec::new(),
        body: bytes::Bytes::new(),
    }
}

async fn from_any_of(app: &App, call: &Call) -> Result<Answer, BroadcastError> {
    let mut last = BroadcastError::Cluster(crate::cluster::ClusterError::NoShards);
    for shard in shards_of(app, call)? {
        match from_all(app, &read(call), &[shard]).await {
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

/// The earliest creation, the latest change, and the primary key that any shard knows.
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

/// Adds one shard's statistics of an index to another's: counts are summed, the average is weighted.
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
