//! Remembered answers under random writes, settings, swaps, deletions and failures: whenever a client could know of a change, an
//! answer that may be remembered equals one for which nodes are asked.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use weft_routing::headers;

use super::nodes::Event;
use super::steps::Plan;
use super::world::{Merger, World};

const MASTER: (&str, &str) = ("authorization", "Bearer master");
/// With this header, an answer is for its own request only, so it is neither remembered nor shared.
const OWN: (&str, &str) = ("meili-include-metadata", "true");
const INDEXES: [&str; 2] = ["i0", "i1"];
/// How many sequences are played, and how many changes each has.
const SEQUENCES: u64 = 8;
const CHANGES: usize = 25;
/// How long a task may take.
const SOON: Duration = Duration::from_secs(200);

/// What an answer says, without the order of equals.
type Said = (u16, BTreeMap<String, Value>, Value, Value);

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

impl Merger {
    async fn search(&self, index: &str, headers: &[(&str, &str)]) -> Said {
        let path = format!("/indexes/{index}/search");
        let body = json!({"limit": 1_000});
        let (status, said) = self
            .ask_with(Method::POST, &path, headers, Some(&body))
            .await;
        let hits = said["hits"].as_array().cloned().unwrap_or_default();
        let by_id = |hit: Value| (hit["id"].to_string(), hit);
        let (total, settings) = (said["estimatedTotalHits"].clone(), said["settings"].clone());
        (
            status,
            hits.into_iter().map(by_id).collect(),
            total,
            settings,
        )
    }

    pub(super) async fn read_by_id(&self, index: &str, id: &str) -> (u16, Value) {
        let path = format!("/indexes/{index}/documents/{id}");
        self.ask(Method::GET, &path, None).await
    }

    /// Reads a document by a search that finds all of them, whose answer may be a remembered one.
    pub(super) async fn read_by_search(&self, index: &str, id: &str) -> (u16, Value) {
        let path = format!("/indexes/{index}/search");
        let (status, said) = self
            .ask(Method::POST, &path, Some(&json!({"limit": 1_000})))
            .await;
        if status != 200 {
            return (status, said);
        }
        let hits = said["hits"].as_array().cloned().unwrap_or_default();
        let mut of_it = hits.into_iter().filter(|hit| hit["id"] == id);
        let found = of_it.next();
        assert!(of_it.next().is_none(), "{id} was shown twice");
        match found {
            Some(document) => (200, document),
            None => (404, json!({"code": "document_not_found"})),
        }
    }

    /// How many answers had this outcome.
    fn remembered(&self, outcome: &str) -> u64 {
        let count = &self.ctx.metrics.remembered;
        count.with_label_values(&[outcome]).get()
    }

    /// Makes a change, and waits until its client knows that it is done. True if it was done everywhere.
    async fn change(&self, method: Method, path: &str, body: Option<&Value>) -> bool {
        let (status, said) = self.ask(method, path, body).await;
        if status != 202 {
            return false;
        }
        self.has_ended(&said["taskUid"].to_string()).await
    }

    /// Waits until a client sees that a task has ended. True if it has succeeded.
    async fn has_ended(&self, uid: &str) -> bool {
        let path = format!("/tasks/{uid}");
        let ended = async {
            loop {
                let task = self.ask(Method::GET, &path, None).await.1;
                if !task["finishedAt"].is_null() {
                    return task["status"] == "succeeded";
                }
                pause(3).await;
            }
        };
        let ended = tokio::time::timeout(SOON, ended).await;
        ended.unwrap_or_else(|_| panic!("{path} has not ended"))
    }

    /// Compares answers that may be remembered with those of the nodes. A node that fails meanwhile is no difference.
    async fn compare(&self, why: &str) -> usize {
        let mut compared = 0;
        for index in INDEXES {
            let remembered = self.search(index, &[MASTER]).await;
            let asked = self.search(index, &[MASTER, OWN]).await;
            if remembered.0 < 500 && asked.0 < 500 {
                assert_eq!(remembered, asked, "{index} after {why}");
                compared += 1;
            }
        }
        compared
    }
}

fn documents(random: &mut fastrand::Rng, number: usize) -> Value {
    let ids = (0..random.usize(1..30)).map(|_| random.u8(0..60));
    let ids: Vec<u8> = ids.collect();
    ids.into_iter()
        .map(|id| json!({"id": format!("d{id}"), "last": number}))
        .collect()
}

/// Makes a random change, and says which and whether it is done.
async fn change(merger: &Merger, random: &mut fastrand::Rng, number: usize) -> (String, bool) {
    let index = INDEXES[random.usize(..INDEXES.len())];
    let at = |rest: &str| format!("/indexes/{index}{rest}");
    let documents = documents(random, number);
    let (method, path, body) = match random.u8(0..20) {
        0..10 => (Method::POST, at("/documents"), Some(documents)),
        10..12 => (Method::PUT, at("/documents"), Some(documents)),
        12..14 => {
            let id = random.u8(0..60);
            (Method::DELETE, at(&format!("/documents/d{id}")), None)
        }
        14..16 => {
            let words = json!({"stopWords": [format!("word-{}", random.u8(0..5))]});
            (Method::PATCH, at("/settings"), Some(words))
        }
        16 => (Method::DELETE, at(""), None),
        17 => (Method::DELETE, at("/documents"), None),
        _ => {
            let swap = json!([{"indexes": INDEXES}]);
            (Method::POST, "/swap-indexes".to_owned(), Some(swap))
        }
    };
    let done = merger.change(method.clone(), &path, body.as_ref()).await;
    (format!("{number}: {method} {path}"), done)
}

/// Something happens to a node that other replicas can do without.
fn trouble(merger: &Merger, random: &mut fastrand::Rng) {
    let node = if random.bool() { "b0" } else { "a0" };
    let ms = random.u64(50..9_000);
    let mut state = merger.world.mesh.lock();
    if state.is_troubled() {
        return;
    }
    match random.bool() {
        true => {
            state.kill(node);
            state.plan(ms, node, Event::Starts);
        }
        false => {
            if let Some(node) = state.nodes.get_mut(node) {
                node.slow_ms = random.u64(5..100);
            }
            state.plan(ms, node, Event::IsQuick);
        }
    }
}

/// Plays a sequence; returns how often answers were compared, remembered and shared.
fn play(seed: u64) -> (usize, u64, u64) {
    let world = World::new(&Plan {
        seed,
        shards: if seed.is_multiple_of(2) { 1 } else { 2 },
        replicas: 2,
        by_field: false,
        steps: Vec::new(),
    });
    world.life(async |merger| {
        let mut random = fastrand::Rng::with_seed(seed);
        pause(2_000).await;
        let compared = Cell::new(0);
        let changes = async {
            for number in 0..CHANGES {
                if random.u8(0..6) == 0 {
                    trouble(&merger, &mut random);
                }
                let (what, done) = change(&merger, &mut random, number).await;
                let why = format!("{what}, seed {seed}");
                if done {
                    compared.set(compared.get() + merger.compare(&why).await);
                }
                for _ in 0..random.u8(0..4) {
                    pause(random.u64(1..400)).await;
                    if done {
                        compared.set(compared.get() + merger.compare(&why).await);
                    }
                }
            }
        };
        // Others search all the time, so that answers are remembered whenever that is possible.
        let others = (0..3).map(|number| {
            let merger = merger.clone();
            let mut random = fastrand::Rng::with_seed(seed * 100 + number);
            async move {
                loop {
                    let index = INDEXES[random.usize(..INDEXES.len())];
                    merger.search(index, &[MASTER]).await;
                    pause(random.u64(0..40)).await;
                }
            }
        });
        let others: Vec<_> = others.map(tokio::spawn).collect();
        changes.await;
        others.into_iter().for_each(|other| other.abort());
        (
            compared.get(),
            merger.remembered("hit"),
            merger.remembered("joined"),
        )
    })
}

#[test]
fn an_answer_that_may_be_remembered_is_what_nodes_would_answer_whatever_has_changed() {
    let mut sum = (0, 0, 0);
    for seed in 1..=SEQUENCES {
        let (compared, hits, joined) = play(seed);
        sum = (sum.0 + compared, sum.1 + hits, sum.2 + joined);
    }
    println!("{} compared, {} remembered, {} joined", sum.0, sum.1, sum.2);
    assert!(sum.0 > 200 && sum.1 > 500 && sum.2 > 10, "{sum:?}");
}

#[test]
fn a_write_is_in_the_next_answer_after_its_task_and_the_one_after_that_is_remembered() {
    World::of(2, 2).life(async |merger| {
        pause(2_000).await;
        for number in 0..20 {
            let body = json!([{"id": format!("d{number}"), "last": number}]);
            let path = "/indexes/i0/documents";
            assert!(merger.change(Method::POST, path, Some(&body)).await);
            let (status, hits, total, _) = merger.search("i0", &[MASTER]).await;
            assert_eq!(
                (status, hits.len(), total),
                (200, number + 1, json!(number + 1))
            );
            let hits = merger.remembered("hit");
            for _ in 0..3 {
                pause(100).await;
                merger.search("i0", &[MASTER]).await;
            }
            assert!(merger.remembered("hit") > hits, "after write {number}");
        }
    });
}

#[test]
fn a_search_that_may_know_of_a_change_of_settings_goes_by_the_new_ones() {
    const DOCUMENTS: u64 = 9;
    World::of(2, 2).life(async |merger| {
        pause(2_000).await;
        let documents = (0..DOCUMENTS).map(|id| json!({"id": format!("d{id}"), "last": id}));
        let documents: Value = documents.collect();
        let path = "/indexes/i0/documents";
        assert!(merger.change(Method::POST, path, Some(&documents)).await);
        // With them, the old settings are known until the last moment.
        let others = merger.clone();
        let others = tokio::spawn(async move {
            loop {
                others.search("i0", &[MASTER, OWN]).await;
                pause(1).await;
            }
        });
        for round in 0..100 {
            let most = 1 + round % DOCUMENTS;
            let shown = |said: Said| said.1.len() as u64;
            // One replica is late, so that a read which names the task may only go to the other one.
            let slow = if round % 2 == 0 { "a0" } else { "b1" };
            for (name, node) in &mut merger.world.mesh.lock().nodes {
                node.slow_ms = if name == slow { 30 } else { 0 };
            }
            let path = "/indexes/i0/settings";
            let body = json!({"pagination": {"maxTotalHits": most}});
            let (_, task) = merger.ask(Method::PATCH, path, Some(&body)).await;
            let uid = task["taskUid"].to_string();
            let naming = [MASTER, OWN, (headers::AFTER_TASK, uid.as_str())];
            let named = merger.search("i0", &naming).await;
            assert_eq!(shown(named), most, "round {round}, naming the task");
            assert!(merger.has_ended(&uid).await);
            let plain = merger.search("i0", &[MASTER, OWN]).await;
            assert_eq!(shown(plain), most, "round {round}");
        }
        others.abort();
    });
}

#[test]
fn a_write_past_weft_is_seen_with_the_next_probes() {
    World::of(1, 2).life(async |merger| {
        pause(2_000).await;
        let body = json!([{"id": "a", "last": 1}]);
        let path = "/indexes/i0/documents";
        assert!(merger.change(Method::POST, path, Some(&body)).await);
        for _ in 0..5 {
            pause(100).await;
            merger.search("i0", &[MASTER]).await;
        }
        assert!(merger.remembered("hit") > 0);
        let asked = super::api::Asked {
            method: Method::POST,
            path_and_query: path.to_owned(),
            body: json!([{"id": "b", "last": 2}]).to_string().into(),
        };
        for node in ["a0", "b0"] {
            drop(merger.world.mesh.lock().deliver(node, &asked));
        }
        pause(500).await;
        assert_eq!(merger.search("i0", &[MASTER]).await.1.len(), 2);
    });
}
