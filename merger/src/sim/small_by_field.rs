//! Small writes of an index that lies by a field, many at a time: they go to nodes together, and each ends for itself.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use super::world::{Merger, World};

const PATH: &str = "/indexes/i0/documents";
const WRITERS: u64 = 30;

/// Which values of the field stand in a document, by shard and id.
type Held = BTreeMap<(u16, String), Value>;

impl Merger {
    /// Writes these documents, each by a client of its own and all at once; returns the tasks when all have ended.
    async fn all_at_once(&self, documents: impl Iterator<Item = Value>) -> Vec<Value> {
        let writes = documents.map(async |document: Value| {
            let (status, said) = self.ask(Method::POST, PATH, Some(&document)).await;
            assert_eq!(status, 202, "{said}");
            let path = format!("/tasks/{}", said["taskUid"]);
            loop {
                let task = self.ask(Method::GET, &path, None).await.1;
                if !task["finishedAt"].is_null() {
                    return task;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let ended = tokio::time::timeout(Duration::from_secs(100), join_all(writes)).await;
        ended.unwrap()
    }

    /// What the nodes hold; both replicas of a shard hold the same.
    fn held(&self) -> Held {
        let state = self.world.mesh.lock();
        let mut held = BTreeMap::<(u16, String), Vec<Value>>::new();
        for node in state.nodes.values() {
            for (id, document) in node.disk.indexes["i0"].contents() {
                let copies = held.entry((node.shard.0, id.to_owned())).or_default();
                copies.push(document["first"].clone());
            }
        }
        let one = |copies: Vec<Value>| match copies.as_slice() {
            [one, other] if one == other => one.clone(),
            other => panic!("{other:?}"),
        };
        held.into_iter()
            .map(|(at, copies)| (at, one(copies)))
            .collect()
    }

    /// How many small writes went to nodes so far, and in how many groups.
    fn sent(&self) -> (u64, u64) {
        let metrics = &self.ctx.metrics;
        (metrics.small_writes.get(), metrics.small_write_groups.get())
    }
}

fn document(id: u64, first: u64) -> Value {
    json!({"id": format!("d{id}"), "first": first})
}

/// The value of each document's field; each is held by one shard, the one that owns it.
fn values(merger: &Merger, held: &Held) -> BTreeMap<String, Value> {
    let placement = merger.ctx.cluster.placement("i0").unwrap();
    let mut values = BTreeMap::new();
    for ((shard, id), value) in held {
        let owner = weft_routing::value::RoutingValue::from_json(&value.to_string()).unwrap();
        assert_eq!(placement.slots.shard_of_value(&owner).0, *shard, "{id}");
        assert!(
            values.insert(id.clone(), value.clone()).is_none(),
            "{id} is held twice"
        );
    }
    values
}

#[test]
fn small_writes_by_field_go_together_and_leave_no_old_version() {
    World::by_field(3, 2).life(async |merger| {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let first = merger.all_at_once([document(0, 0)].into_iter()).await;
        assert_eq!(first[0]["status"], "succeeded", "{first:?}");
        for round in 0..8 {
            // Most documents get another value, and so many of them another shard.
            let before = merger.sent();
            let now = |id: u64| document(id, id * 7 + round);
            let tasks = merger.all_at_once((0..WRITERS).map(now)).await;
            for task in &tasks {
                assert_eq!(task["status"], "succeeded", "{task}");
                let details = json!({"receivedDocuments": 1, "indexedDocuments": 1});
                assert_eq!(task["details"], details);
            }
            let (writes, groups) = merger.sent();
            assert_eq!(writes - before.0, WRITERS);
            assert!(groups - before.1 <= WRITERS / 2, "{groups} groups");
            let wanted = (0..WRITERS).map(|id| (format!("d{id}"), json!(id * 7 + round)));
            assert_eq!(values(&merger, &merger.held()), wanted.collect());
        }
    });
}

#[test]
fn a_small_write_by_field_that_fails_fails_alone() {
    World::by_field(3, 2).life(async |merger| {
        tokio::time::sleep(Duration::from_secs(2)).await;
        merger
            .all_at_once((0..WRITERS).map(|id| document(id, id)))
            .await;
        let before = merger.sent();
        let now = |id: u64| match id {
            // Refused by the merger, and by the engine when it indexes it.
            3 => json!({"id": "d3"}),
            7 => json!({"id": "d7", "first": 107, "refused": true}),
            _ => document(id, id + 100),
        };
        let tasks = merger.all_at_once((0..WRITERS).map(now)).await;
        for (id, task) in tasks.iter().enumerate() {
            let (status, code) = match id {
                3 => ("failed", json!("missing_sharding_field")),
                7 => ("failed", json!("refused_document")),
                _ => ("succeeded", Value::Null),
            };
            let said = (&task["status"], &task["error"]["code"]);
            assert_eq!(said, (&json!(status), &code), "d{id}: {task}");
        }
        let (writes, groups) = merger.sent();
        assert_eq!(writes - before.0, WRITERS - 1);
        assert!(groups - before.1 <= WRITERS / 2, "{groups} groups");
        let values = values(&merger, &merger.held());
        for id in (0..WRITERS).filter(|id| *id != 7) {
            let wanted = if id == 3 { 3 } else { id + 100 };
            assert_eq!(values[&format!("d{id}")], wanted, "d{id}");
        }
    });
}
