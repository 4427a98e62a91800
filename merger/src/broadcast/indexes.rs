//! Indexes: made, changed, deleted on each of their shards.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::BroadcastError;
use super::gather::{Gathered, from_all};
use super::spread::{Change, Reach, Spread, spread};
use crate::answer::Answer;
use crate::app::App;
use crate::call::Call;
use crate::cluster::Placement;
use crate::tasks::NewTask;

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

pub(super) fn is_uid(uid: &str) -> bool {
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
pub(super) async fn spread_as_task(
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
pub(super) async fn unplaced(
    app: &Arc<App>,
    call: Call,
    kind: &str,
) -> Result<Answer, BroadcastError> {
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
