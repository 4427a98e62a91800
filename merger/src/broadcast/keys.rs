//! API keys: the same, with the same values, on every node.
//!
//! A key's value follows from its uid and the master key, so equal uids are equal keys. Each node makes default keys
//! with uids of its own when it first starts: the first shard's are taken for all, and the others' are deleted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::BroadcastError;
use super::spread::{Change, Reach, Spread, spread};
use crate::answer::Answer;
use crate::app::App;
use crate::call::Call;
use crate::cluster::{ClusterError, Life, NodeRef};
use crate::tasks::Part;
use crate::upstream::{NodeAnswer, NodeRequest, Target, UpstreamError};

/// How often keys are compared when all were equal, and when they weren't.
const COMPARE_EVERY: Duration = Duration::from_secs(30);
const COMPARE_SOON: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(5);

/// `POST /keys`, `PATCH` and `DELETE /keys/{key}`.
pub(super) async fn change(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    let creates = call.method == Method::POST;
    let mut change = Change::of(app, call).await?;
    if creates && let Ok(mut body) = serde_json::from_slice::<Map<String, Value>>(&change.body) {
        let uid = body.entry("uid").or_insert(Value::Null);
        if uid.is_null() {
            *uid = Value::from(uuid::Uuid::new_v4().to_string());
            change.body = serde_json::to_vec(&body).unwrap_or_default().into();
        }
    }
    let outcome = spread(app, &change, &app.cluster.shards(), Reach::Replicas).await;
    app.keys.forget();
    match outcome? {
        Spread::Refused(answer) => Ok(answer),
        Spread::Taken { first, parts } => whole(first, &parts),
    }
}

/// The first node's answer, if every shard took the change.
pub(super) fn whole(first: NodeAnswer, parts: &[Part]) -> Result<Answer, BroadcastError> {
    for part in parts {
        if let Some(detail) = &part.undelivered {
            let (target, detail) = (Target::Shard(part.shard), detail.clone());
            return Err(UpstreamError::Unreachable { target, detail }.into());
        }
    }
    Ok(first.pass_on())
}

#[derive(Deserialize)]
struct KeyList {
    results: Vec<Map<String, Value>>,
}

/// Makes every node's keys equal to the first shard's primary's, and keeps looking; never ends.
pub async fn equalise_keys(app: Arc<App>) {
    if app.options.master_key.is_none() {
        return;
    }
    let mut complained = false;
    loop {
        let pause = match equalise(&app).await {
            Ok(0) => {
                complained = false;
                COMPARE_EVERY
            }
            Ok(changed) => {
                tracing::info!(changed, "API keys made equal on all nodes");
                app.keys.forget();
                COMPARE_SOON
            }
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::info!(%error, "API keys can't be compared yet");
                }
                COMPARE_SOON * 5
            }
        };
        let mut topology = app.cluster.watch_topology();
        topology.mark_unchanged();
        let _ = tokio::time::timeout(pause, topology.changed()).await;
    }
}

/// Makes every node's keys equal at once.
///
/// # Errors
/// A node gave no answer, or refused a change.
pub async fn equalise_keys_now(app: &App) -> Result<(), BroadcastError> {
    if app.options.master_key.is_some() && equalise(app).await? > 0 {
        app.keys.forget();
    }
    Ok(())
}

async fn equalise(app: &App) -> Result<usize, BroadcastError> {
    let topology = app.cluster.topology();
    let mut nodes: Vec<NodeRef> = topology.all_nodes().map(|(_, node)| node.clone()).collect();
    // The model is a replica that is what it was: an empty disk's keys are nobody's.
    let holds = |node: &NodeRef| {
        app.cluster.in_sync.holds(&node.id) && app.cluster.pulse.life(&node.id) == Life::Up
    };
    nodes.sort_by_key(|node| !holds(node));
    if !nodes.first().is_some_and(holds) {
        return Err(ClusterError::NoShards.into());
    }
    let mut reference: Option<HashMap<String, Map<String, Value>>> = None;
    let mut changed = 0;
    let mut unreachable = None;
    for node in nodes {
        let keys = match list(app, &node).await {
            Ok(keys) => keys,
            // Without the reference there is nothing to compare with.
            Err(error) if reference.is_none() => return Err(error),
            Err(error) => {
                unreachable = Some(error);
                continue;
            }
        };
        match &reference {
            None => reference = Some(keys),
            Some(wanted) => changed += make_equal(app, &node, wanted, &keys).await?,
        }
    }
    match (changed, unreachable, reference) {
        (0, Some(error), _) => Err(error),
        (0, None, None) => Err(ClusterError::NoShards.into()),
        _ => Ok(changed),
    }
}

async fn list(
    app: &App,
    node: &NodeRef,
) -> Result<HashMap<String, Map<String, Value>>, BroadcastError> {
    let answer = send(app, node, Method::GET, "/keys?limit=1000".to_owned(), None).await?;
    let unreadable = || UpstreamError::Unreachable {
        target: Target::Node(node.address),
        detail: format!("its list of keys can't be read (status {})", answer.status),
    };
    if answer.status != StatusCode::OK {
        return Err(unreadable().into());
    }
    let list: KeyList = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
    let uid = |key: &Map<String, Value>| key.get("uid").and_then(Value::as_str).map(str::to_owned);
    Ok(list
        .results
        .into_iter()
        .filter_map(|key| Some((uid(&key)?, key)))
        .collect())
}

async fn make_equal(
    app: &App,
    node: &NodeRef,
    wanted: &HashMap<String, Map<String, Value>>,
    held: &HashMap<String, Map<String, Value>>,
) -> Result<usize, BroadcastError> {
    let mut changed = 0;
    for uid in held.keys().filter(|uid| !wanted.contains_key(*uid)) {
        send(app, node, Method::DELETE, format!("/keys/{uid}"), None).await?;
        changed += 1;
    }
    for (uid, key) in wanted {
        let field = |name: &str| key.get(name).cloned().unwrap_or(Value::Null);
        match held.get(uid) {
            None => {
                let body = json!({
                    "uid": uid, "name": field("name"), "description": field("description"),
                    "actions": field("actions"), "indexes": field("indexes"), "expiresAt": field("expiresAt"),
                });
                send(app, node, Method::POST, "/keys".to_owned(), Some(body)).await?;
                changed += 1;
            }
            Some(held)
                if ["name", "description"]
                    .iter()
                    .any(|name| held.get(*name) != key.get(*name)) =>
            {
                let body = json!({"name": field("name"), "description": field("description")});
                send(app, node, Method::PATCH, format!("/keys/{uid}"), Some(body)).await?;
                changed += 1;
            }
            Some(_) => {}
        }
    }
    Ok(changed)
}

async fn send(
    app: &App,
    node: &NodeRef,
    method: Method,
    path: String,
    body: Option<Value>,
) -> Result<NodeAnswer, UpstreamError> {
    let target = Target::Node(node.address);
    let mut request = NodeRequest::new(target, method, path, &app.own_authority(), TIMEOUT);
    if let Some(body) = body {
        request = request
            .json(body.to_string())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    app.upstream.send(request).await
}
