//! Operations on the instance as a whole: statistics, features, dumps and snapshots.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};
use weft_routing::operation::Operation;

use super::BroadcastError;
use super::gather::{Gathered, from_all};
use super::listing::{add_stats, from_any_of};
use super::sizes::SizeFormat;
use super::spread::{NodeChange, Reach, Spread, spread};
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;
use crate::tasks::NewTask;

/// `GET /stats`: summed over the shards.
pub(super) async fn stats(ctx: &Arc<Context>, call: &Call) -> Result<Answer, BroadcastError> {
    let Some(format) = SizeFormat::of(call) else {
        // A node words the refusal.
        return from_any_of(ctx, call).await;
    };
    let request = NodeChange {
        path_and_query: SizeFormat::asked(call),
        ..NodeChange::read(call)
    };
    let all = match from_all(ctx, &request, &ctx.cluster.shards()).await? {
        Gathered::Refused(answer) => return Ok(answer),
        Gathered::All(all) => all,
    };
    let mut values = all.into_iter().map(|(_, value)| value);
    let mut sum = values.next().unwrap_or_default();
    for value in values {
        add_instance(&mut sum, &value);
    }
    format.tell(&mut sum);
    Ok(Answer::json(StatusCode::OK, &sum))
}

fn add_instance(sum: &mut Value, other: &Value) {
    for name in ["databaseSize", "usedDatabaseSize"] {
        if let (Some(mine), Some(theirs)) = (sum[name].as_u64(), other[name].as_u64()) {
            sum[name] = Value::from(mine + theirs);
        }
    }
    let latest = [&sum["lastUpdate"], &other["lastUpdate"]]
        .into_iter()
        .filter_map(Value::as_str)
        .max();
    if let Some(latest) = latest.map(str::to_owned) {
        sum["lastUpdate"] = Value::from(latest);
    }
    let mut indexes: Map<String, Value> = sum["indexes"].as_object().cloned().unwrap_or_default();
    for (uid, theirs) in other["indexes"].as_object().into_iter().flatten() {
        match indexes.get_mut(uid) {
            Some(mine) => add_stats(mine, theirs),
            None => {
                indexes.insert(uid.clone(), theirs.clone());
            }
        }
    }
    indexes.sort_keys();
    sum["indexes"] = Value::Object(indexes);
}

/// `PATCH /experimental-features`: the same on every node.
pub(super) async fn change_features(
    ctx: &Arc<Context>,
    call: Call,
) -> Result<Answer, BroadcastError> {
    let change = NodeChange::of(ctx, call).await?;
    let announced = &ctx.cluster.announced.features;
    let announcing = announced.begin();
    let outcome = spread(ctx, &change, &ctx.cluster.shards(), Reach::Replicas).await;
    drop(announcing);
    super::keys::heard_by_others(ctx, announced, &outcome).await;
    match outcome? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { first, parts } => super::keys::whole(first, &parts),
    }
}

/// Changes of chats' settings: the same on every node. No search depends on them.
pub(super) async fn change_chats(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    let change = NodeChange::of(ctx, call).await?;
    match spread(ctx, &change, &ctx.cluster.shards(), Reach::Replicas).await? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { first, parts } => super::keys::whole(first, &parts),
    }
}

/// `POST /dumps` and `POST /snapshots` (one for each shard) and `POST /export` (each shard exports its own documents), as one
/// task.
pub(super) async fn back_up(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    let kind = match call.operation {
        Operation::CreateDump => "dumpCreation",
        Operation::CreateSnapshot => "snapshotCreation",
        _ => "export",
    };
    let change = NodeChange::of(ctx, call).await?;
    match spread(ctx, &change, &ctx.cluster.shards(), Reach::Primaries).await? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { parts, .. } => {
            let mut details = Map::new();
            if kind == "snapshotCreation" {
                let written: Vec<Value> = parts
                .iter()
                .map(|part| json!({"shard": part.shard, "node": part.copies.first().map(|copy| &copy.node)}))
                .collect();
                details.insert("shards".to_owned(), Value::from(written));
            }
            let task = NewTask {
                kind: kind.to_owned(),
                details,
                parts,
                ..NewTask::default()
            };
            Ok(Answer::json(
                StatusCode::ACCEPTED,
                &ctx.tasks.create(task).await?,
            ))
        }
    }
}
