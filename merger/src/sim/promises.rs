//! Promises that no random sequence would test, each with nodes that give wrong answers, or none.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::disk::Disk;
use super::rules::What;
use super::world::{Merger, World};

const MASTER: (&str, &str) = ("authorization", "Bearer master");
const NOBODY: (&str, &str) = ("authorization", "Bearer nobody");
const EVER: usize = usize::MAX;

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

impl Merger {
    async fn with_documents(&self, count: usize) {
        pass(2).await;
        let body: Value = (0..count).map(|n| json!({"id": n, "first": n})).collect();
        let (status, said) = self
            .ask(Method::POST, "/indexes/i0/documents", Some(&body))
            .await;
        assert_eq!(status, 202, "{said}");
        pass(5).await;
        assert_eq!(self.task_of(&said).await["status"], "succeeded");
    }

    async fn task_of(&self, said: &Value) -> Value {
        let path = format!("/tasks/{}", said["taskUid"]);
        self.ask(Method::GET, &path, None).await.1
    }

    fn rules_end(&self) {
        self.world.mesh.lock().rules.end();
    }

    fn setting(&self, node: &str, name: &str) -> Value {
        let state = self.world.mesh.lock();
        let settings = &state.nodes[node].disk.indexes["i0"].settings;
        settings.get(name).cloned().unwrap_or_else(|| json!([]))
    }
}

#[test]
fn a_change_of_settings_is_no_success_before_every_node_has_said_what_it_has() {
    World::of(1, 2).life(async |merger| {
        merger.with_documents(10).await;
        // A node's settings were changed by hand. It doesn't answer requests for its settings, but works otherwise.
        merger.rule("b0", "GET /indexes/i0/settings", EVER, What::Unreachable);
        if let Some(node) = merger.world.mesh.lock().nodes.get_mut("b0") {
            let index = node.disk.indexes.get_mut("i0").unwrap();
            index
                .settings
                .insert("stopWords".to_owned(), json!(["by-hand"]));
        }
        let body = json!({"filterableAttributes": ["first"]});
        let (status, said) = merger
            .ask(Method::PATCH, "/indexes/i0/settings", Some(&body))
            .await;
        assert_eq!(status, 202, "{said}");
        for _ in 0..30 {
            pass(1).await;
            let task = merger.task_of(&said).await;
            assert_eq!(task["status"], "processing", "{task}");
        }
        // Both nodes did it long ago.
        for node in ["a0", "b0"] {
            assert_eq!(
                merger.setting(node, "filterableAttributes"),
                json!(["first"])
            );
        }
        assert_eq!(merger.setting("b0", "stopWords"), json!(["by-hand"]));
        merger.rules_end();
        pass(3).await;
        let task = merger.task_of(&said).await;
        assert_eq!(task["status"], "succeeded", "{task}");
        assert_eq!(
            merger.setting("b0", "stopWords"),
            merger.setting("a0", "stopWords")
        );
    });
}

/// A node's answer to a search that finds one document.
fn found() -> Value {
    json!({
        "hits": [{"id": 1, "_rankingScore": 1.0, "_rankingScoreDetails": {}}],
        "query": "", "processingTimeMs": 1, "limit": 20, "offset": 0, "estimatedTotalHits": 1,
    })
}

#[test]
fn a_search_is_refused_while_settings_can_t_be_read_and_never_merged_by_default_ones() {
    let unreadable = [
        What::Unreachable,
        What::Says(500, json!({"message": "no"})),
        What::Says(200, json!("no settings")),
        What::Says(200, json!({"rankingRules": 7})),
        What::Says(200, json!({"pagination": {"maxTotalHits": "many"}})),
    ];
    World::of(2, 2).life(async |merger| {
        merger.with_documents(10).await;
        let number = std::cell::Cell::new(20);
        let search = async || {
            // Another one each time, so that no answer is a remembered one.
            number.set(number.get() + 1);
            let body = json!({"q": "", "limit": number.get()});
            let path = "/indexes/i0/search";
            merger.ask(Method::POST, path, Some(&body)).await
        };
        for what in unreadable {
            // By now the cached values are forgotten.
            pass(60).await;
            merger.rule(
                "",
                "POST /indexes/i0/search",
                EVER,
                What::Says(200, found()),
            );
            merger.rule("", "GET /indexes/i0/settings", EVER, what.clone());
            let (status, said) = search().await;
            assert!(status >= 500, "{what:?}: {status} {said}");
            assert!(said["hits"].is_null(), "{what:?}: {said}");
            // A failed read isn't cached either.
            merger.rules_end();
            merger.rule(
                "",
                "POST /indexes/i0/search",
                EVER,
                What::Says(200, found()),
            );
            let (status, said) = search().await;
            assert_eq!(status, 200, "{what:?}: {said}");
            merger.rules_end();
        }
    });
}

#[test]
fn nothing_is_done_for_a_stranger_before_the_key_is_judged() {
    World::of(2, 2).life(async |merger| {
        merger.with_documents(10).await;
        // A task that stays open, because the merger can't learn that it ended.
        merger.rule("", "GET /tasks?limit=20&", EVER, What::Unreachable);
        let no = json!({"message": "The provided API key is invalid.", "code": "invalid_api_key", "type": "auth", "link": ""});
        let refused = What::Says(403, no);
        let (_, said) = merger.ask(Method::DELETE, "/indexes/i0/documents/3", None).await;
        let uid = said["taskUid"].to_string();
        let body = json!({"q": "two words", "matchingStrategy": "frequency"});
        let search = async |key| {
            merger.world.mesh.lock().rules.heard();
            let headers = [key, ("x-weft-after-task", uid.as_str())];
            let begun = Instant::now();
            let path = "/indexes/i0/search";
            let (status, said) = merger.ask_with(Method::POST, path, &headers, Some(&body)).await;
            let heard = merger.world.mesh.lock().rules.heard();
            let asked = |what: &str| heard.iter().filter(|request| request.contains(what)).count();
            let counts = (asked("/keys/nobody"), asked("/search"), asked("/settings"));
            (status, said["code"].clone(), begun.elapsed(), counts)
        };
        // A client whose key may search has to wait.
        let (status, _, waited, _) = search(MASTER).await;
        assert_ne!(status, 200);
        assert!(waited >= Duration::from_secs(2), "{waited:?}");
        merger.rule("", "POST /indexes/i0/search", EVER, refused);
        let (status, code, waited, counts) = search(NOBODY).await;
        assert_eq!((status, code), (403, json!("invalid_api_key")));
        assert!(waited < Duration::from_millis(100), "{waited:?}");
        // One node was asked for the key, and one to check it; none was asked for words or settings.
        assert_eq!(counts, (1, 1, 0));
    });
}

/// What distinguishes a task from all others of the test, here and on its node.
fn mark_of(task: &Value) -> Option<String> {
    let details = &task["details"];
    let marks = ["receivedDocuments", "originalFilter", "providedIds"];
    let name = marks.iter().find(|name| match &details[**name] {
        Value::Null => false,
        // A deletion by filter has no ids.
        value => *value != json!(0),
    })?;
    Some(format!("{name} {}", details[*name]))
}

#[test]
fn tasks_are_numbered_in_the_order_in_which_nodes_do_them() {
    World::of(1, 2).life(async |merger| {
        merger.with_documents(300).await;
        let mut asking = Vec::new();
        for n in 0..25_u64 {
            let ids: Vec<u64> = (0..100 + n).collect();
            let added: Value = (0..200 + n)
                .map(|id| json!({"id": id, "first": n}))
                .collect();
            let requests = [
                ("/documents", added),
                (
                    "/documents/delete",
                    json!({"filter": format!("first = {n}")}),
                ),
                ("/documents/delete-batch", json!(ids)),
            ];
            for (path, body) in requests {
                let (merger, path) = (merger.clone(), format!("/indexes/i0{path}"));
                asking.push(tokio::spawn(async move {
                    let (status, said) = merger.ask(Method::POST, &path, Some(&body)).await;
                    assert_eq!(status, 202, "{said}");
                }));
                // Writes come faster than they are done, and of all kinds in turn.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        for asked in asking {
            asked.await.unwrap();
        }
        pass(30).await;
        let (_, said) = merger.ask(Method::GET, "/tasks?limit=1000", None).await;
        let tasks = said["results"].as_array().unwrap();
        let numbered: Vec<String> = tasks.iter().rev().filter_map(mark_of).collect();
        assert_eq!(numbered.len(), 76, "one more made the index");
        for (name, node) in &merger.world.mesh.lock().nodes {
            let views = node.disk.tasks.iter().map(|(uid, task)| task.view(*uid));
            let done: Vec<String> = views.filter_map(|task| mark_of(&task)).collect();
            assert_eq!(done, numbered, "{name}");
        }
    });
}

impl Merger {
    /// Puts this disk into a node, and gives the one that it had.
    fn exchange_disk(&self, node: &str, disk: Disk) -> Disk {
        let mut mesh = self.world.mesh.lock();
        std::mem::replace(&mut mesh.nodes.get_mut(node).unwrap().disk, disk)
    }

    async fn health(&self) -> Value {
        let (_, said) = self.ask(Method::GET, "/_cluster/health", None).await;
        said["status"].clone()
    }

    async fn write_one(&self) -> u16 {
        let body = json!([{"id": 11}]);
        let path = "/indexes/i0/documents";
        self.ask(Method::POST, path, Some(&body)).await.0
    }
}

#[test]
fn a_shard_whose_right_disk_returns_is_there_again() {
    World::of(1, 1).life(async |merger| {
        merger.with_documents(10).await;
        let right = merger.exchange_disk("a0", Disk::default());
        pass(5).await;
        assert_eq!(merger.health().await, "red");
        assert_eq!(merger.write_one().await, 503);
        merger.exchange_disk("a0", right);
        pass(5).await;
        assert_eq!(merger.health().await, "green");
        assert_eq!(merger.write_one().await, 202);
    });
}

#[test]
fn a_shard_is_not_there_again_with_a_disk_that_only_has_as_many_tasks() {
    World::of(1, 1).life(async |merger| {
        merger.with_documents(10).await;
        let right = merger.exchange_disk("a0", Disk::default());
        pass(5).await;
        assert_eq!(merger.health().await, "red");
        // As many tasks of the same kind, at other times; and the same once their list was cleaned up.
        let other = right.another();
        let mut cleaned = other.clone();
        let (newest, task) = cleaned.tasks.pop_last().unwrap();
        cleaned.tasks = [(newest + 1, task)].into();
        for disk in [other, cleaned] {
            merger.exchange_disk("a0", disk);
            pass(5).await;
            assert_eq!(merger.health().await, "red");
            assert_eq!(merger.write_one().await, 503);
        }
    });
}

#[test]
fn a_replica_that_returns_with_as_many_tasks_of_another_disk_is_copied_anew() {
    World::of(1, 2).life(async |merger| {
        merger.with_documents(10).await;
        // Away for a moment: not long enough to be down.
        merger.rule("b0", "GET /tasks", EVER, What::Unreachable);
        pass(1).await;
        let right = merger.exchange_disk("b0", Disk::default());
        let mut other = right.another();
        other.indexes.clear();
        merger.exchange_disk("b0", other);
        merger.rules_end();
        pass(20).await;
        assert_eq!(merger.ctx.metrics.taken_out.get(), 1);
        assert_eq!(merger.health().await, "green");
        let mesh = merger.world.mesh.lock();
        let documents = |node: &str| mesh.nodes[node].disk.indexes["i0"].documents.len();
        assert_eq!((documents("a0"), documents("b0")), (10, 10));
    });
}
