//! When all faults have ended, the cluster must recover by itself, and hold what clients were told.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use weft_routing::document_id::DocumentId;
use weft_routing::placement::ShardId;
use weft_routing::value::RoutingValue;

use super::api::settings;
use super::nodes::Node;
use super::world::Merger;
use crate::cluster::Placement;

/// How long a client may wait for the answer to a write, whatever fails.
const WRITE_ANSWERED: Duration = Duration::from_secs(90);
/// How long the cluster may take to recover after the last fault.
const WHOLE_AGAIN: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);

/// Waits until the cluster has recovered and is quiet, and compares its contents with the model.
pub(super) async fn compare(merger: &Merger) {
    let world = &merger.world;
    while world.mesh.lock().is_troubled() {
        tokio::time::sleep(LOOK).await;
    }
    for node in world.mesh.lock().nodes.values_mut() {
        node.mishaps.clear();
    }
    let begun = Instant::now();
    while merger.clients() > 0 {
        if begun.elapsed() > WRITE_ANSWERED {
            let waiting = merger.clients();
            let said = format!(
                "{waiting} clients have waited for {} s",
                WRITE_ANSWERED.as_secs()
            );
            return world.model().violations.push(said);
        }
        tokio::time::sleep(LOOK).await;
    }
    if until_whole(merger).await {
        compare_replicas(merger);
        compare_contents(merger).await;
    }
}

/// Waits until the cluster has recovered, and compares replicas only: for tests whose writes the model doesn't know.
pub(super) async fn compare_nodes(merger: &Merger) {
    if until_whole(merger).await {
        compare_replicas(merger);
    }
}

/// Waits until nothing is left to repair. False if that took too long.
async fn until_whole(merger: &Merger) -> bool {
    let begun = Instant::now();
    let mut why = String::new();
    while begun.elapsed() < WHOLE_AGAIN {
        match unsettled(merger).await {
            Some(reason) => why = reason,
            None => return true,
        }
        tokio::time::sleep(LOOK).await;
    }
    let said = format!(
        "not whole {} s after the last trouble: {why}",
        WHOLE_AGAIN.as_secs()
    );
    merger.world.model().violations.push(said);
    false
}

/// What isn't as it should be in a quiet cluster; `None` if everything is.
async fn unsettled(merger: &Merger) -> Option<String> {
    let (_, nodes) = merger.ask(Method::GET, "/_cluster/nodes", None).await;
    for node in nodes["nodes"].as_array().into_iter().flatten() {
        let path = format!(
            "/_cluster/nodes/{}/resume",
            node["id"].as_str().unwrap_or_default()
        );
        if node["status"] == "drained" {
            merger.ask(Method::POST, &path, None).await;
        }
        // With few documents, a resync soon deletes more than a tenth of them. The comparison afterwards shows whether it was right.
        if node["needsConfirmation"] == true {
            let body = json!({"acceptDeletions": true});
            merger.ask(Method::POST, &path, Some(&body)).await;
            merger.world.model().confirmed += 1;
        }
    }
    let (_, health) = merger.ask(Method::GET, "/_cluster/health", None).await;
    if health["status"] != "green" {
        return Some(format!("health {}, {}", health["status"], nodes["nodes"]));
    }
    let (_, tasks) = merger
        .ask(
            Method::GET,
            "/tasks?statuses=enqueued,processing&limit=3",
            None,
        )
        .await;
    if tasks["total"] != 0 {
        return Some(format!("open tasks {tasks}"));
    }
    if !merger.world.model().open().is_empty() {
        return Some("a client doesn't know of its task's end".to_owned());
    }
    if let Some(reason) = moving(merger).await {
        return Some(reason);
    }
    let intents = merger.world.store.keys("intent/");
    if !intents.is_empty() {
        return Some(format!("unfinished {intents:?}"));
    }
    // The merger repairs differing settings by itself.
    if let Some((one, other)) = differing_settings(merger) {
        return Some(format!("settings of {one} and {other} differ"));
    }
    let state = merger.world.mesh.lock();
    let busy = state.nodes.iter().find(|(_, node)| !node.disk.is_idle());
    busy.map(|(name, _)| format!("{name} is busy"))
}

/// What is still moving, if anything; `None` if all moves are over. Moves that were stopped for a while go on.
async fn moving(merger: &Merger) -> Option<String> {
    let path = "/_cluster/moves";
    let (_, moves) = merger.ask(Method::GET, path, None).await;
    if moves["paused"] == true {
        let body = json!({"paused": false});
        merger.ask(Method::PATCH, path, Some(&body)).await;
    }
    let live = |one: &&Value| !["done", "cancelled"].contains(&one["state"].as_str().unwrap_or(""));
    let mut listed = moves["moves"].as_array().into_iter().flatten();
    if let Some(one) = listed.find(live) {
        return Some(format!("a move is under way: {one}"));
    }
    let placements = merger.ctx.cluster.placements.all();
    let changing = placements.iter().find(|index| index.change().is_some());
    if let Some(index) = changing {
        let why = &index.change_error;
        return Some(format!("{} still changes its strategy: {why:?}", index.uid));
    }
    let unsettled = placements.iter().find(|index| !index.unsettled.is_empty());
    unsettled.map(|index| format!("{} is unsettled: {:?}", index.uid, index.unsettled))
}

fn differing_settings(merger: &Merger) -> Option<(String, String)> {
    let state = merger.world.mesh.lock();
    let of_all = |node: &Node| -> Vec<(String, Value)> {
        let indexes = node.disk.indexes.iter();
        indexes
            .map(|(uid, index)| (uid.clone(), settings(index)))
            .collect()
    };
    let mut first: BTreeMap<u16, (&String, &Node)> = BTreeMap::new();
    for (name, node) in &state.nodes {
        let (other, theirs) = *first.entry(node.shard.0).or_insert((name, node));
        if of_all(theirs) != of_all(node) {
            return Some((other.clone(), name.clone()));
        }
    }
    None
}

async fn compare_contents(merger: &Merger) {
    let world = &merger.world;
    for number in 0..world.indexes {
        let index = format!("i{number}");
        let mut union: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        // Versions of documents that were being replaced under another value when a merger died.
        let mut doubles: BTreeMap<String, Vec<Map<String, Value>>> = BTreeMap::new();
        let placement = merger.ctx.cluster.placement(&index);
        let owns = |shard: ShardId| {
            let placement = placement.as_ref();
            placement.is_none_or(|index| index.slots.shards().contains(&shard))
        };
        for (name, node) in &world.mesh.lock().nodes {
            if let Some(said) = misplaced(placement.as_deref(), name, node, &index) {
                world.model().violations.push(said);
            }
            for (id, document) in node
                .disk
                .indexes
                .get(&index)
                .into_iter()
                .flat_map(|index| index.contents())
            {
                if let Some(other) = union.insert(id.to_owned(), document.clone())
                    && other != *document
                {
                    doubles.entry(id.to_owned()).or_default().push(other);
                }
            }
        }
        let by_field = placement
            .as_ref()
            .is_some_and(|index| index.slots.field().is_some());
        if by_field {
            world.model().allow_doubles(&index, &doubles);
        }
        let held = union
            .iter()
            .map(|(id, document)| (id.as_str(), document))
            .collect();
        world.model().compare(&index, &held);
        let (status, mut read) = read_all(merger, &index).await;
        if by_field {
            world.model().stay_double(&index, &doubles);
            // Either version is read.
            for id in doubles.keys() {
                read.remove(id);
                union.remove(id);
            }
        }
        // An index that only some of its shards have, because its first write failed on the others, isn't found.
        let is_whole = world
            .mesh
            .lock()
            .nodes
            .values()
            .all(|node| !owns(node.shard) || node.disk.indexes.contains_key(&index));
        if read != union && (is_whole || status != 404) {
            let count = (read.len(), union.len());
            let said = format!(
                "{index}: through the merger {} documents are read ({status}), nodes hold {}",
                count.0, count.1
            );
            world.model().violations.push(said);
        }
    }
    for node in world.mesh.lock().nodes.values_mut() {
        node.has_lost = false;
    }
}

/// Says so if a node holds a document of which its shard isn't the owner.
fn misplaced(
    placement: Option<&Placement>,
    name: &str,
    node: &Node,
    index: &str,
) -> Option<String> {
    let slots = &placement?.slots;
    let contents = node.disk.indexes.get(index)?.contents();
    let owner = |id: &str, document: &Map<String, Value>| {
        let id = DocumentId::from_text(id).ok()?;
        let value = slots.field().and_then(|field| document.get(field.as_str()));
        let value = value.and_then(|value| RoutingValue::from_json(&value.to_string()).ok());
        let slot = slots.strategy().slot_of_document(&id, value.as_ref())?;
        Some(slots.shard_of_slot(slot))
    };
    let mut documents = contents.iter();
    let (id, document) = documents.find(|(id, one)| owner(id, one) != Some(node.shard))?;
    Some(format!(
        "document {index}/{id} is on {name}, and belongs to {:?}",
        owner(id, document)
    ))
}

/// Checks that replicas of a shard hold the same documents and settings.
fn compare_replicas(merger: &Merger) {
    let world = &merger.world;
    let mut first: BTreeMap<u16, (String, BTreeMap<String, Value>)> = BTreeMap::new();
    let mut violations = Vec::new();
    for (name, node) in &world.mesh.lock().nodes {
        let indexes = node.disk.indexes.iter();
        let held: BTreeMap<String, Value> = indexes
            .map(|(uid, index)| {
                let whole = json!({"key": index.primary_key, "settings": settings(index), "documents": index.contents()});
                (uid.clone(), whole)
            })
            .collect();
        match first.get(&node.shard.0) {
            None => drop(first.insert(node.shard.0, (name.clone(), held))),
            Some((other, theirs)) if *theirs != held => {
                violations.push(format!(
                    "{other} and {name} differ: {} / {}",
                    counts(theirs),
                    counts(&held)
                ));
            }
            Some(_) => {}
        }
    }
    world.model().violations.extend(violations);
}

fn counts(held: &BTreeMap<String, Value>) -> String {
    let count = |(uid, whole): (&String, &Value)| {
        let documents = whole["documents"].as_object().map_or(0, Map::len);
        format!(
            "{uid}: {documents} documents, key {}, {}",
            whole["key"], whole["settings"]
        )
    };
    held.iter().map(count).collect::<Vec<_>>().join("; ")
}

async fn read_all(merger: &Merger, index: &str) -> (u16, BTreeMap<String, Map<String, Value>>) {
    let path = format!("/indexes/{index}/documents/fetch");
    let body = json!({"limit": 100_000});
    let (status, said) = merger.ask(Method::POST, &path, Some(&body)).await;
    let results = said["results"].as_array().cloned().unwrap_or_default();
    let by_id = |document: Value| {
        let id = document["id"].as_str().unwrap_or_default().to_owned();
        document.as_object().cloned().map(|document| (id, document))
    };
    (status, results.into_iter().filter_map(by_id).collect())
}
