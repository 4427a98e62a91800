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
    let changing = app.keys.changing().await;
    let outcome = spread(app, &change, &app.cluster.shards(), Reach::Replicas).await;
    app.keys.forget();
    drop(changing);
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

/// Gives how much was changed. The first look is at nodes that a client may be changing: what it finds is found again before anything
/// is done about it.
async fn equalise(app: &App) -> Result<usize, BroadcastError> {
    if look(app).await?.is_empty() {
        return Ok(0);
    }
    let _changing = app.keys.changing().await;
    let differences = look(app).await?;
    let count = differences.len();
    for (node, Request { method, path, body }) in differences {
        send(app, &node, method, path, body).await?;
    }
    Ok(count)
}

/// What is to be changed on which node. If that is nothing, all nodes were looked at.
async fn look(app: &App) -> Result<Vec<(NodeRef, Request)>, BroadcastError> {
    let topology = app.cluster.topology();
    let mut nodes: Vec<NodeRef> = topology.all_nodes().map(|(_, node)| node.clone()).collect();
    // The model is a replica that is what it was: an empty disk's keys are nobody's.
    let holds = |node: &NodeRef| {
        app.cluster.in_sync.holds(&node.id) && app.cluster.pulse.life(&node.id) == Life::Up
    };
    nodes.sort_by_key(|node| !holds(node));
    let mut nodes = nodes.into_iter();
    let model = nodes.next().filter(holds).ok_or(ClusterError::NoShards)?;
    let wanted = list(app, &model).await?;
    let (mut found, mut unreachable) = (Vec::new(), None);
    for node in nodes {
        match list(app, &node).await {
            Ok(held) => {
                let differences = differences(&wanted, &held).into_iter();
                found.extend(differences.map(|request| (node.clone(), request)));
            }
            Err(error) => unreachable = Some(error),
        }
    }
    match unreachable {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Keys by their uids.
type Listed = HashMap<String, Map<String, Value>>;

async fn list(app: &App, node: &NodeRef) -> Result<Listed, BroadcastError> {
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

/// A request that makes a key of one node what it is on another.
#[derive(Debug, PartialEq)]
struct Request {
    method: Method,
    path: String,
    body: Option<Value>,
}

/// What makes the keys that a node holds those that are wanted.
fn differences(wanted: &Listed, held: &Listed) -> Vec<Request> {
    let surplus = held.keys().filter(|uid| !wanted.contains_key(*uid));
    let mut found: Vec<Request> = surplus
        .map(|uid| Request {
            method: Method::DELETE,
            path: format!("/keys/{uid}"),
            body: None,
        })
        .collect();
    for (uid, key) in wanted {
        let field = |name: &str| key.get(name).cloned().unwrap_or(Value::Null);
        let (name, description) = (field("name"), field("description"));
        let request = match held.get(uid) {
            None => Request {
                method: Method::POST,
                path: "/keys".to_owned(),
                body: Some(json!({
                    "uid": uid, "name": name, "description": description,
                    "actions": field("actions"), "indexes": field("indexes"), "expiresAt": field("expiresAt"),
                })),
            },
            // The rest of a key never changes.
            Some(held)
                if ["name", "description"]
                    .iter()
                    .any(|name| held.get(*name) != key.get(*name)) =>
            {
                Request {
                    method: Method::PATCH,
                    path: format!("/keys/{uid}"),
                    body: Some(json!({"name": name, "description": description})),
                }
            }
            Some(_) => continue,
        };
        found.push(request);
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(keys: &[(&str, Value)]) -> Listed {
        let key =
            |(uid, key): &(&str, Value)| ((*uid).to_owned(), key.as_object().unwrap().clone());
        keys.iter().map(key).collect()
    }

    #[test]
    fn a_node_is_asked_for_what_differs_and_for_nothing_else() {
        let same = json!({"name": "same", "description": null, "actions": ["search"]});
        let wanted = listed(&[
            ("same", same.clone()),
            ("renamed", json!({"name": "new", "description": null})),
            (
                "missing",
                json!({"name": null, "actions": ["*"], "indexes": ["*"], "expiresAt": null}),
            ),
        ]);
        let held = listed(&[
            ("same", same),
            ("renamed", json!({"name": "old", "description": null})),
            ("surplus", json!({"name": null})),
        ]);
        let mut found = differences(&wanted, &held);
        found.sort_by_key(|request| request.method.to_string());
        let request = |method: Method, path: &str, body: Option<Value>| Request {
            method,
            path: path.to_owned(),
            body,
        };
        let missing = json!({
            "uid": "missing", "name": null, "description": null, "actions": ["*"], "indexes": ["*"], "expiresAt": null,
        });
        assert_eq!(
            found,
            [
                request(Method::DELETE, "/keys/surplus", None),
                request(
                    Method::PATCH,
                    "/keys/renamed",
                    Some(json!({"name": "new", "description": null}))
                ),
                request(Method::POST, "/keys", Some(missing)),
            ]
        );
        assert!(differences(&wanted, &wanted).is_empty());
    }
}
