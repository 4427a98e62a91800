//! A panic anywhere leaves no lock, queued write, task or half-made change behind: the interrupted work is resumed, or ends.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::check;
use super::nodes::{Event, Mishap};
use super::rules::What;
use super::world::{Merger, World};

/// How long a state may take to be reached.
const SOON: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
const MASTER: (&str, &str) = ("authorization", "Bearer master");

fn documents(count: usize) -> Value {
    (0..count).map(|n| json!({"id": n, "first": n})).collect()
}

/// Waits until `holds` is true.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    let within = tokio::time::timeout(SOON, waiting).await;
    assert!(within.is_ok(), "not within {} s: {what}", SOON.as_secs());
}

impl Merger {
    async fn done(&self, method: Method, path: &str, body: &Value) -> Value {
        let (status, said) = self.ask(method, path, Some(body)).await;
        assert!(status < 300, "{path}: {status} {said}");
        self.ended(&said).await
    }

    /// The task of an answer, when it has ended.
    async fn ended(&self, said: &Value) -> Value {
        let path = format!("/tasks/{}", said["taskUid"]);
        let look = async || self.ask(Method::GET, &path, None).await.1;
        until(&path, async || !look().await["finishedAt"].is_null()).await;
        look().await
    }

    async fn is_green(&self) -> bool {
        let (_, health) = self.ask(Method::GET, "/_cluster/health", None).await;
        health["status"] == "green"
    }

    /// How often work of this name has panicked.
    fn panics(&self, name: &str) -> u64 {
        self.ctx.metrics.panics.with_label_values(&[name]).get()
    }

    /// Waits until the cluster has recovered and its replicas are equal, and checks that every rule was used.
    async fn all_is_well(&self) {
        assert_eq!(self.world.mesh.lock().rules.left(), 0);
        until("green", async || self.is_green().await).await;
        check::compare_nodes(self).await;
        let violations = self.world.model().violations.clone();
        assert_eq!(violations, Vec::<String>::new());
    }

    /// A cluster with two indexes: `i0` with ten documents, `i1` with five.
    async fn with_indexes(&self) {
        until("green", async || self.is_green().await).await;
        for (index, count) in [("i0", 10), ("i1", 5)] {
            let path = format!("/indexes/{index}/documents");
            let task = self.done(Method::POST, &path, &documents(count)).await;
            assert_eq!(task["status"], "succeeded", "{task}");
        }
    }

    async fn count(&self, index: &str) -> u64 {
        let path = format!("/indexes/{index}/documents?limit=0");
        let (_, said) = self.ask(Method::GET, &path, None).await;
        said["total"].as_u64().unwrap_or_default()
    }

    async fn count_of_both(&self) -> (u64, u64) {
        (self.count("i0").await, self.count("i1").await)
    }
}

const SWAP: &str = "/swap-indexes";

fn swap() -> Value {
    json!([{"indexes": ["i0", "i1"]}])
}

#[test]
fn a_swap_that_only_one_shard_has_goes_on_after_a_panic() {
    World::of(2, 2).life(async |merger| {
        merger.with_indexes().await;
        // The second shard doesn't get it, and the work that asks which shards have it panics, twice.
        merger.rule("a1", "POST /swap-indexes", 1, What::Unreachable);
        merger.rule("b1", "POST /swap-indexes", 1, What::Unreachable);
        merger.rule("", "GET /tasks?types=indexSwap", 2, What::Panics);
        let (status, said) = merger.ask(Method::POST, SWAP, Some(&swap())).await;
        assert_eq!(status, 503, "{said}");
        until("swapped", async || merger.count_of_both().await == (5, 10)).await;
        assert_eq!(merger.panics("finish-intents"), 2);
        // And the shards take writes again.
        let path = "/indexes/i0/documents";
        let task = merger.done(Method::POST, path, &documents(7)).await;
        assert_eq!(task["status"], "succeeded", "{task}");
        merger.all_is_well().await;
    });
}

#[test]
fn a_swap_whose_sender_panics_is_made_whole() {
    for node in ["a0", "b0", "a1", "b1"] {
        World::of(2, 2).life(async |merger| {
            merger.with_indexes().await;
            merger.rule(node, "POST /swap-indexes", 1, What::Panics);
            let (status, said) = merger.ask(Method::POST, SWAP, Some(&swap())).await;
            assert_eq!(status, 503, "{said}");
            assert_eq!(merger.panics("change-indexes"), 1);
            let intents = || merger.world.store.keys("intent/");
            until("ended", async || intents().is_empty()).await;
            let path = "/indexes/i0/documents";
            let task = merger.done(Method::POST, path, &documents(3)).await;
            assert_eq!(task["status"], "succeeded", "{task}");
            let counts = merger.count_of_both().await;
            assert!(matches!(counts, (5, 10) | (10, 5)), "{counts:?}");
            merger.all_is_well().await;
        });
    }
}

#[test]
fn a_write_whose_sender_panics_leaves_replicas_that_are_compared() {
    World::of(1, 2).life(async |merger| {
        merger.with_indexes().await;
        // Not a small write, since small writes have their own queue.
        merger.rule("b0", "POST /indexes/i0/documents", 1, What::Panics);
        let body = documents(60);
        let (status, said) = merger
            .ask(Method::POST, "/indexes/i0/documents", Some(&body))
            .await;
        assert_eq!(status, 503, "{said}");
        assert_eq!(merger.panics("run-to-completion"), 1);
        // Must be seen before anything else is written there.
        let (_, said) = merger.ask(Method::GET, "/_cluster/shards", None).await;
        assert_eq!(said["shards"][0]["inDoubt"], true, "{said}");
        let path = "/indexes/i0/documents";
        let task = merger.done(Method::POST, path, &documents(2)).await;
        assert_eq!(task["status"], "succeeded", "{task}");
        merger.all_is_well().await;
    });
}

#[test]
fn small_writes_go_on_after_a_panic() {
    World::of(1, 2).life(async |merger| {
        merger.with_indexes().await;
        merger.rule("b0", "POST /indexes/i0/documents", 1, What::Panics);
        let path = "/indexes/i0/documents";
        let (status, said) = merger.ask(Method::POST, path, Some(&documents(2))).await;
        assert_eq!(status, 503, "{said}");
        let task = merger.done(Method::POST, path, &documents(3)).await;
        assert_eq!(task["status"], "succeeded", "{task}");
        assert_eq!(merger.panics("send-small-writes"), 1);
        merger.all_is_well().await;
    });
}

#[test]
fn a_late_write_that_panics_takes_its_replica_out_and_its_task_ends() {
    World::of(1, 2).life(async |merger| {
        merger.with_indexes().await;
        let slow = |ms| {
            merger
                .world
                .mesh
                .lock()
                .nodes
                .get_mut("b0")
                .unwrap()
                .slow_ms = ms
        };
        slow(300);
        merger.rule("b0", "POST /indexes/i0/documents", 1, What::Panics);
        let headers = [MASTER, ("x-weft-write", "async")];
        let body = documents(60);
        let asking = merger.ask_with(Method::POST, "/indexes/i0/documents", &headers, Some(&body));
        let (status, said) = asking.await;
        assert_eq!(status, 202, "{said}");
        assert_eq!(merger.panics("send-late"), 0);
        let task = merger.ended(&said).await;
        assert_eq!(task["status"], "succeeded", "{task}");
        assert_eq!(merger.panics("send-late"), 1);
        slow(0);
        let node = super::mesh::id("b0");
        until("nothing is kept for it", async || {
            merger.ctx.cluster.queues.caught_up(&node)
        })
        .await;
        assert_eq!(merger.ctx.metrics.taken_out.get(), 1);
        merger.all_is_well().await;
    });
}

#[test]
fn a_resync_that_panics_is_not_shown_as_running_and_begins_anew() {
    World::of(1, 2).life(async |merger| {
        merger.with_indexes().await;
        merger.world.mesh.lock().kill("b0");
        let path = "/indexes/i0/documents";
        let task = merger.done(Method::POST, path, &documents(60)).await;
        assert_eq!(task["status"], "succeeded", "{task}");
        merger.rule("b0", "POST /indexes/i0/documents?", 3, What::Panics);
        merger.world.mesh.lock().plan(0, "b0", Event::Starts);
        until("three panics", async || merger.panics("resync") == 3).await;
        let (_, said) = merger.ask(Method::GET, "/_cluster/nodes", None).await;
        let nodes = said["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["id"] == "b0").unwrap();
        assert!(node["resync"].is_null(), "{node}");
        assert!(node.to_string().contains("it panicked"), "{node}");
        merger.all_is_well().await;
        assert_eq!(merger.count("i0").await, 60);
    });
}

#[test]
fn whoever_follows_a_node_follows_it_again_after_a_panic() {
    World::of(1, 2).life(async |merger| {
        merger.with_indexes().await;
        merger.rule("a0", "GET /tasks?limit=20&", 2, What::Panics);
        let path = "/indexes/i0/documents";
        let task = merger.done(Method::POST, path, &documents(3)).await;
        assert_eq!(task["status"], "succeeded", "{task}");
        assert_eq!(merger.panics("follow-node"), 2);
        merger.all_is_well().await;
    });
}

#[test]
fn a_change_of_settings_is_looked_into_again_after_a_panic_and_not_for_ever() {
    for (panics, status) in [(1, "succeeded"), (3, "failed")] {
        World::of(1, 2).life(async |merger| {
            merger.with_indexes().await;
            let set = async |word: &str| {
                let body = json!({"stopWords": [word]});
                let path = "/indexes/i0/settings";
                merger.done(Method::PATCH, path, &body).await
            };
            merger.rule("b0", "GET /indexes/i0/settings", panics, What::Panics);
            let task = set("one").await;
            assert_eq!(task["status"], status, "{task}");
            let counted = merger.panics("read-settings-back") + merger.panics("watch-settings");
            assert_eq!(counted, panics as u64);
            // The index's next change isn't blocked.
            assert_eq!(set("two").await["status"], "succeeded");
            merger.all_is_well().await;
        });
    }
}

#[test]
fn a_deletion_of_tasks_that_panics_ends() {
    World::of(1, 2).life(async |merger| {
        merger.with_indexes().await;
        merger.rule("", "DELETE /tasks", 1, What::Panics);
        let path = "/indexes/i0/documents";
        let (_, written) = merger.ask(Method::POST, path, Some(&documents(3))).await;
        let all = "/tasks?statuses=enqueued,processing,succeeded";
        let (status, said) = merger.ask(Method::DELETE, all, None).await;
        assert_eq!(status, 200, "{said}");
        let task = merger.ended(&said).await;
        assert_eq!(
            (&task["status"], &task["type"]),
            (&json!("failed"), &json!("taskDeletion"))
        );
        assert_eq!(merger.panics("delete-tasks"), 1);
        assert!(written["taskUid"].is_u64());
        merger.all_is_well().await;
    });
}

#[test]
fn replicas_that_are_to_be_compared_are_compared_after_a_panic() {
    World::of(1, 2).life(async |merger| {
        merger.with_indexes().await;
        for node in merger.world.mesh.lock().nodes.values_mut() {
            node.mishaps.push(Mishap::AnswerLost);
        }
        let body = documents(60);
        let path = "/indexes/i0/documents";
        let (status, said) = merger.ask(Method::POST, path, Some(&body)).await;
        assert_eq!(status, 503, "{said}");
        merger.rule("", "GET /tasks?uids=", 2, What::Panics);
        // No more writes are sent.
        until("two panics", async || {
            merger.world.mesh.lock().rules.left() == 0
        })
        .await;
        assert!(merger.panics("settle-doubts") > 0);
        merger.all_is_well().await;
    });
}
