//! Keeps the API keys, with their values, the same on every node.
//!
//! A key's value follows from its uid and the master key, so equal uids are equal keys. Each node creates default keys with its
//! own uids when it first starts. The model's keys are kept: the first node, by shard, that is up and in sync. The others' are
//! deleted.
//!
//! Nodes list keys by creation time, which differs between nodes. So only whole lists are compared. They are read page by page,
//! and a list that changed while it was read proves nothing. A key is deleted only after the model was asked for this key alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Keys;
use crate::cluster::{ClusterError, Context, NodeRef, NodeStatus};
use crate::upstream::{NodeAnswer, NodeRequest, Target, UpstreamError};

/// The pause after a comparison in which all keys were equal, and after one in which they weren't.
const COMPARE_EVERY: Duration = Duration::from_secs(30);
const COMPARE_SOON: Duration = Duration::from_millis(200);
/// The pause is at least this many times as long as the comparison took, since many keys take long to compare.
const COMPARE_SHARE: u32 = 20;
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many keys are listed with one request.
const PAGE: usize = 1_000;
/// More keys than this are not compared, because whole lists are held in memory.
const MOST_KEYS: usize = 1_000_000;

/// Why nodes' keys could not be made equal.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A node didn't answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// No node can be the model.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Keys were added or removed while nodes' lists were read.
    #[error("keys changed while they were compared")]
    KeysChange,
    /// There are more keys than `MOST_KEYS`.
    #[error("{0} keys are more than are compared between nodes")]
    TooManyKeys(usize),
}

/// A page of a node's list of keys.
#[derive(Deserialize)]
struct Page {
    results: Vec<Map<String, Value>>,
    total: usize,
}

/// Keeps every node's keys equal to the model's; never ends. Does nothing without a master key.
pub async fn equalise_keys(ctx: Arc<Context>, keys: Arc<Keys>) {
    if ctx.master_key.is_none() {
        return;
    }
    let mut complained = false;
    loop {
        let begun = Instant::now();
        let pause = match equalise(&ctx, &keys).await {
            Ok(0) => {
                complained = false;
                COMPARE_EVERY.max(begun.elapsed() * COMPARE_SHARE)
            }
            Ok(changed) => {
                tracing::info!(changed, "API keys made equal on all nodes");
                keys.forget();
                ctx.cluster.announced.keys.note();
                COMPARE_SOON
            }
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::info!(%error, "API keys can't be compared yet");
                }
                COMPARE_SOON * 5
            }
        };
        let mut topology = ctx.cluster.watch_topology();
        topology.mark_unchanged();
        let _ = tokio::time::timeout(pause, topology.changed()).await;
    }
}

/// Makes every node's keys equal at once.
///
/// # Errors
/// A node didn't answer, or refused a change.
pub async fn equalise_keys_now(ctx: &Context, keys: &Keys) -> Result<(), KeysError> {
    if ctx.master_key.is_some() && equalise(ctx, keys).await? > 0 {
        keys.forget();
        ctx.cluster.announced.keys.note();
    }
    Ok(())
}

/// Returns how many changes were made. A client may be changing keys during the first look, so its differences must show again
/// before anything is changed.
async fn equalise(ctx: &Context, keys: &Keys) -> Result<usize, KeysError> {
    if look(ctx).await?.is_empty() {
        return Ok(0);
    }
    let _changing = keys.changing().await;
    let differences = look(ctx).await?;
    let count = differences.len();
    for Difference {
        node,
        model,
        request: Request { method, path, body },
    } in differences
    {
        if method == Method::DELETE && has(ctx, &model, &path).await? {
            return Err(KeysError::KeysChange);
        }
        send(ctx, &node, method, path, body).await?;
    }
    Ok(count)
}

/// A change to a node that makes it equal to the model.
struct Difference {
    node: NodeRef,
    model: NodeRef,
    request: Request,
}

/// The changes to make, and on which node. If there are none, all nodes were compared.
async fn look(ctx: &Context) -> Result<Vec<Difference>, KeysError> {
    let topology = ctx.cluster.topology();
    let mut nodes: Vec<NodeRef> = topology.all_nodes().map(|(_, node)| node.clone()).collect();
    // The model must be a replica that is in sync and up: the keys of an empty disk don't count.
    let holds = |node: &NodeRef| {
        ctx.cluster.in_sync.holds(&node.id) && ctx.cluster.health.status(&node.id) == NodeStatus::Up
    };
    nodes.sort_by_key(|node| !holds(node));
    let mut nodes = nodes.into_iter();
    let model = nodes.next().filter(holds).ok_or(ClusterError::NoShards)?;
    let wanted = list(ctx, &model).await?;
    let (mut found, mut unreachable) = (Vec::new(), None);
    for node in nodes {
        match list(ctx, &node).await {
            Ok(held) => {
                let requests = differences(&wanted, &held).into_iter();
                found.extend(requests.map(|request| Difference {
                    node: node.clone(),
                    model: model.clone(),
                    request,
                }));
            }
            Err(error) => unreachable = Some(error),
        }
    }
    match unreachable {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Uids with their keys, in the order in which a node lists them.
type Listed = Vec<(String, Map<String, Value>)>;

async fn list(ctx: &Context, node: &NodeRef) -> Result<Listed, KeysError> {
    let (mut listed, mut total) = (Listed::new(), None);
    loop {
        let path = format!("/keys?offset={}&limit={PAGE}", listed.len());
        let answer = send(ctx, node, Method::GET, path, None).await?;
        let unreadable = || UpstreamError::Unreachable {
            target: Target::Node(node.address),
            detail: format!("its list of keys can't be read (status {})", answer.status),
        };
        if answer.status != StatusCode::OK {
            return Err(unreadable().into());
        }
        let page: Page = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
        if page.total > MOST_KEYS {
            return Err(KeysError::TooManyKeys(page.total));
        }
        if add_page(&mut listed, &mut total, page)? {
            return Ok(listed);
        }
    }
}

/// Adds a page to those before it. Returns whether the list is complete, with each key once.
fn add_page(listed: &mut Listed, total: &mut Option<usize>, page: Page) -> Result<bool, KeysError> {
    // A key was added or removed meanwhile, and all keys after it have moved.
    if *total.get_or_insert(page.total) != page.total {
        return Err(KeysError::KeysChange);
    }
    let nothing = page.results.is_empty();
    for key in page.results {
        let uid = key.get("uid").and_then(Value::as_str).map(str::to_owned);
        listed.push((uid.ok_or(KeysError::KeysChange)?, key));
    }
    if listed.len() < page.total && !nothing {
        return Ok(false);
    }
    let uids: HashSet<&str> = listed.iter().map(|(uid, _)| uid.as_str()).collect();
    if listed.len() == page.total && uids.len() == page.total {
        return Ok(true);
    }
    Err(KeysError::KeysChange)
}

/// Whether the model has the key at `path`.
async fn has(ctx: &Context, model: &NodeRef, path: &str) -> Result<bool, KeysError> {
    let answer = send(ctx, model, Method::GET, path.to_owned(), None).await?;
    match answer.status {
        StatusCode::NOT_FOUND => Ok(false),
        status if status.is_success() => Ok(true),
        status => Err(UpstreamError::Unreachable {
            target: Target::Node(model.address),
            detail: format!("it doesn't say whether it has a key (status {status})"),
        }
        .into()),
    }
}

/// A request that makes one key of a node equal to the model's.
#[derive(Debug, PartialEq)]
struct Request {
    method: Method,
    path: String,
    body: Option<Value>,
}

/// The requests that turn the keys that a node holds into the wanted ones. Missing keys are created in the order in which the
/// model created them, so that both list them alike.
fn differences(wanted: &Listed, held: &Listed) -> Vec<Request> {
    let wanted_by_uid: HashSet<&str> = wanted.iter().map(|(uid, _)| uid.as_str()).collect();
    let held_by_uid: HashMap<&str, &Map<String, Value>> =
        held.iter().map(|(uid, key)| (uid.as_str(), key)).collect();
    let surplus = held.iter().map(|(uid, _)| uid);
    let surplus = surplus.filter(|uid| !wanted_by_uid.contains(uid.as_str()));
    let mut found: Vec<Request> = surplus
        .map(|uid| Request {
            method: Method::DELETE,
            path: format!("/keys/{uid}"),
            body: None,
        })
        .collect();
    // Nodes list the newest key first, so the order is reversed.
    for (uid, key) in wanted.iter().rev() {
        let field = |name: &str| key.get(name).cloned().unwrap_or(Value::Null);
        let (name, description) = (field("name"), field("description"));
        let request = match held_by_uid.get(uid.as_str()) {
            None => Request {
                method: Method::POST,
                path: "/keys".to_owned(),
                body: Some(json!({
                    "uid": uid, "name": name, "description": description,
                    "actions": field("actions"), "indexes": field("indexes"), "expiresAt": field("expiresAt"),
                })),
            },
            // Only a key's name and description can change.
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
    ctx: &Context,
    node: &NodeRef,
    method: Method,
    path: String,
    body: Option<Value>,
) -> Result<NodeAnswer, UpstreamError> {
    let target = Target::Node(node.address);
    let mut request = NodeRequest::new(target, method, path, &ctx.own_authority(), TIMEOUT);
    if let Some(body) = body {
        request = request
            .json(body.to_string())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    ctx.upstream.send(request).await
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

    /// A node with these keys, which lists the newest first.
    struct Node {
        uids: Vec<String>,
    }

    impl Node {
        fn with(count: usize) -> Self {
            Self {
                uids: (0..count).map(|number| format!("key-{number}")).collect(),
            }
        }

        fn page(&self, offset: usize) -> Page {
            let shown = self.uids.iter().rev().skip(offset).take(PAGE);
            let key = |uid: &String| {
                json!({"uid": uid, "name": null})
                    .as_object()
                    .unwrap()
                    .clone()
            };
            Page {
                results: shown.map(key).collect(),
                total: self.uids.len(),
            }
        }

        /// The node's whole list; `meanwhile` runs after each page.
        fn list(&mut self, meanwhile: impl Fn(&mut Self)) -> Result<Listed, KeysError> {
            let (mut listed, mut total) = (Listed::new(), None);
            loop {
                let page = self.page(listed.len());
                if add_page(&mut listed, &mut total, page)? {
                    return Ok(listed);
                }
                meanwhile(self);
            }
        }
    }

    #[test]
    fn nodes_with_the_same_keys_in_another_order_are_equal_however_many_they_are() {
        for count in [0, 1, PAGE - 1, PAGE, PAGE + 1, 1_200, 3 * PAGE + 7] {
            let (mut one, mut other) = (Node::with(count), Node::with(count));
            other.uids.reverse();
            let (one, other) = (one.list(|_| {}).unwrap(), other.list(|_| {}).unwrap());
            assert_eq!(one.len(), count);
            assert!(differences(&one, &other).is_empty(), "{count}");
            assert!(differences(&other, &one).is_empty(), "{count}");
        }
    }

    #[test]
    fn a_list_that_changed_while_it_was_read_proves_nothing() {
        let came = |node: &mut Node| node.uids.push(format!("new-{}", node.uids.len()));
        let went = |node: &mut Node| {
            node.uids.pop();
        };
        let oldest_went = |node: &mut Node| {
            node.uids.remove(0);
        };
        assert!(Node::with(2_500).list(came).is_err());
        assert!(Node::with(2_500).list(went).is_err());
        assert!(Node::with(2_500).list(oldest_went).is_err());
        let oldest_for_new = |node: &mut Node| {
            oldest_went(node);
            came(node);
        };
        assert!(Node::with(2_500).list(oldest_for_new).is_err());
    }

    #[test]
    fn missing_keys_are_made_in_the_order_of_the_models() {
        let wanted = Node::with(5).list(|_| {}).unwrap();
        let made: Vec<String> = differences(&wanted, &Listed::new())
            .into_iter()
            .map(|request| request.body.unwrap()["uid"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(made, ["key-0", "key-1", "key-2", "key-3", "key-4"]);
    }
}
