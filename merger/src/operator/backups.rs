//! What `weft backup` asks for: `/_cluster/backups…`.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use weft_routing::placement::ShardId;

use super::ok;
use crate::answer::Answer;
use crate::call::{Call, empty, read_whole};
use crate::cluster::{BACKUP_LEASE, ClusterError};
use crate::repair::Context;
use crate::repair::backup::{self, Cursor, Round, State, Waiting};
use crate::webhooks::Webhooks;

/// The largest body of a request, in bytes: as many ids as it may name, each as long as it may be.
const MAX_BODY_BYTES: u64 = 1 << 20;
/// The most ids that a request may name.
const MAX_IDS: usize = 1_000;
/// The longest that a client may let writers wait.
const MAX_HOLD: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PageWish {
    index: String,
    shard: ShardId,
    #[serde(default)]
    cursor: Option<Cursor>,
    #[serde(default)]
    prints: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DocumentsWish {
    index: String,
    ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RoundWish {
    hold_ms: u64,
}

/// Answers a call on backups; `None` if it isn't one.
pub(super) async fn handle(
    ctx: &Arc<Context>,
    hooks: &Webhooks,
    call: &mut Call,
    parts: &[&str],
) -> Option<Result<Answer, ClusterError>> {
    Some(match (call.method.clone(), parts) {
        (Method::POST, []) => begin(ctx).await,
        (Method::DELETE, [id]) => {
            backup::end(ctx, id).map(|()| Answer::empty(StatusCode::NO_CONTENT))
        }
        (Method::GET, [id, "indexes"]) => indexes(ctx, id).await,
        (Method::GET, [id, "state"]) => state(ctx, hooks, id).await,
        (Method::POST, [id, "pages"]) => page(ctx, call, id).await,
        (Method::POST, [id, "documents"]) => documents(ctx, call, id).await,
        (Method::POST, [id, "rounds"]) => round(ctx, hooks, call, id).await,
        _ => return None,
    })
}

async fn begin(ctx: &Arc<Context>) -> Result<Answer, ClusterError> {
    let id = backup::begin(ctx).await?;
    let told = json!({"id": id, "leaseSeconds": BACKUP_LEASE.as_secs()});
    Ok(Answer::json(StatusCode::CREATED, &told))
}

async fn wish<T: DeserializeOwned>(ctx: &Context, call: &mut Call) -> Result<T, ClusterError> {
    let body = std::mem::replace(&mut call.body, empty());
    let body = read_whole(body, MAX_BODY_BYTES, ctx.pace.idle).await?;
    serde_json::from_slice(&body).map_err(|error| ClusterError::InvalidBody(error.to_string()))
}

/// 202 means: ask again.
fn answer<T: Serialize>(waiting: Waiting<T>) -> Answer {
    match waiting {
        Waiting::Ready(value) => Answer::json(StatusCode::OK, &value),
        Waiting::Busy => Answer::json(StatusCode::ACCEPTED, &json!({"busy": true})),
    }
}

#[derive(Serialize)]
struct Results<T> {
    results: Vec<T>,
}

fn results<T>(waiting: Waiting<Vec<T>>) -> Waiting<Results<T>> {
    match waiting {
        Waiting::Ready(results) => Waiting::Ready(Results { results }),
        Waiting::Busy => Waiting::Busy,
    }
}

async fn indexes(ctx: &Arc<Context>, id: &str) -> Result<Answer, ClusterError> {
    let used = backup::used(ctx, id)?;
    Ok(answer(results(backup::indexes(ctx, &used).await?)))
}

async fn page(ctx: &Arc<Context>, call: &mut Call, id: &str) -> Result<Answer, ClusterError> {
    let used = backup::used(ctx, id)?;
    let wish: PageWish = wish(ctx, call).await?;
    let part = (wish.index.as_str(), wish.shard);
    let page = backup::page(ctx, &used, part, wish.cursor, wish.prints).await?;
    Ok(answer(page))
}

async fn documents(ctx: &Arc<Context>, call: &mut Call, id: &str) -> Result<Answer, ClusterError> {
    let used = backup::used(ctx, id)?;
    let wish: DocumentsWish = wish(ctx, call).await?;
    if wish.ids.len() > MAX_IDS {
        let why = format!("no more than {MAX_IDS} ids may be named at once");
        return Err(ClusterError::InvalidBody(why));
    }
    let found = backup::documents(ctx, &used, &wish.index, &wish.ids).await?;
    Ok(answer(results(found)))
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    state: State,
    webhooks: Value,
}

async fn state(ctx: &Arc<Context>, hooks: &Webhooks, id: &str) -> Result<Answer, ClusterError> {
    let used = backup::used(ctx, id)?;
    let state = backup::state(ctx, &used).await?;
    Ok(answer(match state {
        Waiting::Busy => Waiting::Busy,
        Waiting::Ready(state) => Waiting::Ready(Whole {
            state,
            webhooks: hooks.unmasked(),
        }),
    }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    ids: Vec<String>,
    documents: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    outcome: &'static str,
    last_task: Option<u32>,
    pause_ms: u128,
    indexes: std::collections::BTreeMap<String, Read>,
    state: Whole,
}

async fn round(
    ctx: &Arc<Context>,
    hooks: &Webhooks,
    call: &mut Call,
    id: &str,
) -> Result<Answer, ClusterError> {
    let used = backup::used(ctx, id)?;
    let wish: RoundWish = wish(ctx, call).await?;
    let hold = Duration::from_millis(wish.hold_ms);
    if hold > MAX_HOLD {
        let why = format!("`holdMs` must not be above {}", MAX_HOLD.as_millis());
        return Err(ClusterError::InvalidBody(why));
    }
    let milliseconds = |pause: Duration| pause.as_millis();
    let round = backup::round(ctx, &used, hold).await?;
    let pauses = &ctx.metrics.backup_pause_seconds;
    pauses.observe(round.pause().as_secs_f64());
    Ok(match round {
        Round::Consistent { last_task, pause } => ok(&json!({
            "outcome": "consistent",
            "lastTask": last_task,
            "pauseMs": milliseconds(pause),
        })),
        Round::Again { writes, pause } => ok(&json!({
            "outcome": "again",
            "writes": writes,
            "pauseMs": milliseconds(pause),
        })),
        Round::Held {
            last_task,
            pause,
            documents,
            state,
        } => {
            let indexes = documents
                .into_iter()
                .map(|(uid, (ids, documents))| (uid, Read { ids, documents }));
            let held = Held {
                outcome: "held",
                last_task,
                pause_ms: milliseconds(pause),
                indexes: indexes.collect(),
                state: Whole {
                    state,
                    webhooks: hooks.unmasked(),
                },
            };
            Answer::json(StatusCode::OK, &held)
        }
    })
}
