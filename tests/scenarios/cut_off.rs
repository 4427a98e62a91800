//! Swaps, renamings and deletions that are cut off in their middle: all shards have them in the end, or none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, ClusterBuilder, Deadline, HarnessError, Line, Reply, until};

use crate::support::{documents, ids, node, start};

const WITHIN: Duration = Duration::from_secs(30);

/// `x` and `y` on every shard.
async fn two_indexes(api: &Api) {
    for (index, range) in [("x", 0..40), ("y", 100..120)] {
        let path = format!("/indexes/{index}/documents?primaryKey=id");
        let accepted = api.post(&path, &documents(range)).await.unwrap();
        api.succeed(&accepted).await.unwrap();
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Swap,
    Rename,
    Delete,
}

impl Change {
    const ALL: [Self; 3] = [Self::Swap, Self::Rename, Self::Delete];

    async fn ask_for(self, api: &Api) -> Result<Reply, HarnessError> {
        match self {
            Self::Swap => {
                api.post("/swap-indexes", &json!([{"indexes": ["x", "y"]}]))
                    .await
            }
            Self::Rename => {
                api.json(Method::PATCH, "/indexes/x", &json!({"uid": "z"}))
                    .await
            }
            Self::Delete => api.delete("/indexes/x").await,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Swap => "indexSwap",
            Self::Rename => "indexUpdate",
            Self::Delete => "indexDeletion",
        }
    }

    /// Waits for its task, and sees that every shard has it.
    async fn is_whole(self, cluster: &Cluster, api: &Api) {
        let path = format!("/tasks?types={}&statuses=succeeded", self.kind());
        until(
            &format!("{self:?} made whole"),
            Deadline::after(WITHIN),
            || async {
                let tasks = api.get(&path).await.map_err(|error| error.to_string())?;
                match tasks.at("/total") == 1 {
                    true => Ok(()),
                    false => Err(api
                        .get("/tasks?limit=3")
                        .await
                        .map_or(tasks.text, |all| all.text)),
                }
            },
        )
        .await
        .unwrap();
        let expected: &[(&str, Option<std::ops::Range<u64>>)] = match self {
            Self::Swap => &[("x", Some(100..120)), ("y", Some(0..40))],
            Self::Rename => &[("x", None), ("y", Some(100..120)), ("z", Some(0..40))],
            Self::Delete => &[("x", None), ("y", Some(100..120))],
        };
        self.holds(cluster, api, expected).await;
        // And everything goes on.
        for (index, range) in expected {
            let path = format!("/indexes/{index}/documents?primaryKey=id");
            let accepted = api.post(&path, &documents(500..520)).await.unwrap();
            api.succeed(&accepted).await.unwrap();
            let range = range.clone().unwrap_or(0..0);
            assert!(
                ids(api, index).await.into_iter().eq(range.chain(500..520)),
                "{self:?}: {index}"
            );
        }
    }

    /// Sees that it has not happened on any shard.
    async fn is_undone(self, cluster: &Cluster, api: &Api) {
        let expected = [("x", Some(0..40)), ("y", Some(100..120)), ("z", None)];
        self.holds(cluster, api, &expected).await;
        let tasks = api
            .get(&format!("/tasks?types={}", self.kind()))
            .await
            .unwrap();
        assert_eq!(tasks.at("/total"), 0, "{}", tasks.text);
    }

    async fn holds(
        self,
        cluster: &Cluster,
        api: &Api,
        expected: &[(&str, Option<std::ops::Range<u64>>)],
    ) {
        // A line that was cut may have kept reads away.
        green(api).await;
        for (index, range) in expected {
            match range {
                Some(range) => {
                    assert!(
                        ids(api, index).await.into_iter().eq(range.clone()),
                        "{self:?}: {index}"
                    );
                    // No shard holds what belongs to the other index.
                    for shard in 0..cluster.layout().shards() {
                        let held = ids(&node(cluster, shard), index).await;
                        assert!(
                            !held.is_empty() && held.iter().all(|id| range.contains(id)),
                            "{self:?}: {index} on shard {shard}: {held:?}"
                        );
                    }
                }
                None => {
                    let reply = api.get(&format!("/indexes/{index}")).await.unwrap();
                    assert_eq!(reply.status, 404, "{self:?}: {index}: {}", reply.text);
                }
            }
        }
    }
}

/// A write to all shards is refused, because some of them have the change and others not.
async fn refused_meanwhile(api: &Api) {
    let path = "/indexes/y/documents?primaryKey=id";
    let refused = api.post(path, &documents(700..740)).await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text);
    let message = refused.at("/message").as_str().unwrap().to_owned();
    assert!(message.contains("interrupted index change"), "{message}");
    assert_eq!(refused.at("/code"), "remote_could_not_send_request");
}

async fn status(api: &Api) -> Value {
    api.get("/_cluster/health")
        .await
        .unwrap()
        .at("/status")
        .clone()
}

/// Two shards behind lines that can be cut, with `x` and `y`.
async fn behind_lines() -> (Cluster, Api) {
    let (cluster, api) = start(lines()).await;
    two_indexes(&api).await;
    (cluster, api)
}

fn lines() -> ClusterBuilder {
    Cluster::builder().shards(2).links(true)
}

/// The same after a change that the first shard took and the second, whose line is cut, did not.
async fn half_done(change: Change, builder: ClusterBuilder) -> (Cluster, Api) {
    let (cluster, api) = start(builder).await;
    two_indexes(&api).await;
    let reply = ask_over(change, &cluster, &api, 1, Line::ServerErrors).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    let message = reply.at("/message").as_str().unwrap().to_owned();
    assert!(message.contains("is being made whole"), "{message}");
    (cluster, api)
}

/// Asks for a change while a shard's line is as given. On a slow machine the merger may notice the line first, and change nothing: then
/// it is tried again.
async fn ask_over(change: Change, cluster: &Cluster, api: &Api, shard: u16, line: Line) -> Reply {
    for _ in 0..5 {
        cluster.link(shard, 0).unwrap().set(line);
        let reply = change.ask_for(api).await.unwrap();
        if !reply.text.contains("nothing was changed") {
            return reply;
        }
        cluster.link(shard, 0).unwrap().set(Line::Open);
        green(api).await;
    }
    panic!("{change:?} never reached a shard");
}

async fn green(api: &Api) {
    until("a green cluster", Deadline::after(WITHIN), || async {
        let status = status(api).await;
        (status == "green").then_some(()).ok_or(status.to_string())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_one_shard_did_not_take_it_gets_when_it_is_back() {
    for change in Change::ALL {
        let (cluster, api) = half_done(change, lines()).await;
        refused_meanwhile(&api).await;
        assert_ne!(status(&api).await, "green");
        cluster.link(1, 0).unwrap().set(Line::Open);
        change.is_whole(&cluster, &api).await;
    }
}

#[tokio::test]
async fn what_a_dead_merger_left_half_done_is_made_whole_when_it_is_back() {
    for change in Change::ALL {
        let (cluster, api) = half_done(change, lines()).await;
        cluster.merger().kill().unwrap();
        cluster.merger().restart().unwrap();
        let what = "a merger that knows both shards";
        until(what, Deadline::after(WITHIN), || async {
            let shards = api.get("/_cluster/shards").await;
            let shards = shards.map_err(|error| error.to_string())?;
            let both = shards.at("/shards").as_array().map_or(0, Vec::len) == 2;
            both.then_some(()).ok_or(shards.text)
        })
        .await
        .unwrap();
        refused_meanwhile(&api).await;
        cluster.link(1, 0).unwrap().set(Line::Open);
        change.is_whole(&cluster, &api).await;
    }
}

/// Waits until documents of `y` that lie on the first shard are written, and others are refused.
async fn first_shard_goes_on(api: &Api, held: std::ops::Range<u64>) {
    until(
        "writes to the first shard",
        Deadline::after(WITHIN),
        || async {
            let mut taken = 0;
            for id in held.clone() {
                // As it is there already: nothing changes.
                let path = "/indexes/y/documents?primaryKey=id";
                let write = api.post(path, &documents(id..id + 1)).await;
                let write = write.map_err(|error| error.to_string())?;
                match write.status {
                    202 => taken += 1,
                    503 => {}
                    _ => return Err(write.text),
                }
            }
            let some = taken > 0 && taken < held.end - held.start;
            some.then_some(()).ok_or(format!("{taken} were taken"))
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_shard_that_is_down_keeps_no_other_waiting_and_serves_nothing_before_it_is_whole() {
    for change in Change::ALL {
        let builder = lines().merger_env("WEFT_NODE_DOWN_AFTER_MS", "1500");
        let (cluster, api) = half_done(change, builder).await;
        let held = match change {
            Change::Swap => 0..40,
            Change::Rename | Change::Delete => 100..120,
        };
        first_shard_goes_on(&api, held.clone()).await;
        cluster.merger().kill().unwrap();
        cluster.merger().restart().unwrap();
        first_shard_goes_on(&api, held).await;
        let what = "no reads from the second shard";
        until(what, Deadline::after(WITHIN), || async {
            let nodes = api.get("/_cluster/nodes").await;
            let nodes = nodes.map_err(|error| error.to_string())?;
            let ready: Vec<&Value> = (0..2)
                .map(|n| nodes.at(["/nodes/0/ready", "/nodes/1/ready"][n]))
                .collect();
            (ready == [&json!(true), &json!(false)])
                .then_some(())
                .ok_or(nodes.text.clone())
        })
        .await
        .unwrap();
        cluster.link(1, 0).unwrap().set(Line::Open);
        change.is_whole(&cluster, &api).await;
    }
}

#[tokio::test]
async fn what_the_first_shard_took_without_a_word_the_others_get_too() {
    for change in Change::ALL {
        let (cluster, api) = behind_lines().await;
        let reply = ask_over(change, &cluster, &api, 0, Line::AnswersLost).await;
        assert!(reply.status >= 500, "{}", reply.text);
        cluster.link(0, 0).unwrap().set(Line::Open);
        change.is_whole(&cluster, &api).await;
    }
}

#[tokio::test]
async fn what_no_shard_took_has_never_been_asked_for() {
    for change in Change::ALL {
        let (cluster, api) = behind_lines().await;
        for line in [Line::Refused, Line::ServerErrors] {
            cluster.link(0, 0).unwrap().set(line);
            let reply = change.ask_for(&api).await.unwrap();
            assert!(reply.status >= 500, "{}", reply.text);
            cluster.link(0, 0).unwrap().set(Line::Open);
            until("a write that is taken", Deadline::after(WITHIN), || async {
                let path = "/indexes/y/documents?primaryKey=id";
                let write = api.post(path, &documents(100..120)).await;
                let write = write.map_err(|error| error.to_string())?;
                match write.status {
                    202 => api
                        .succeed(&write)
                        .await
                        .map(drop)
                        .map_err(|error| error.to_string()),
                    _ => Err(write.text),
                }
            })
            .await
            .unwrap();
            change.is_undone(&cluster, &api).await;
        }
    }
}

#[tokio::test]
async fn what_one_replica_takes_without_a_word_the_other_has_and_the_silent_one_is_mended() {
    let (cluster, api) = start(Cluster::builder().shards(1).replicas(2).links(true)).await;
    two_indexes(&api).await;
    cluster.link(0, 0).unwrap().set(Line::AnswersLost);
    let reply = Change::Swap.ask_for(&api).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text);
    until(
        "the other replica alone",
        Deadline::after(WITHIN),
        || async {
            let shards = api.get("/_cluster/shards").await;
            let shards = shards.map_err(|error| error.to_string())?;
            let alone = shards.at("/shards/0/inSync") == &json!(["shard-0-node-1"]);
            (alone && shards.at("/shards/0/inDoubt") == &json!(false))
                .then_some(())
                .ok_or(shards.text)
        },
    )
    .await
    .unwrap();
    cluster.link(0, 0).unwrap().set(Line::Open);
    Change::Swap.is_whole(&cluster, &api).await;
}

#[tokio::test]
async fn what_was_begun_is_done_though_the_client_be_gone() {
    for change in Change::ALL {
        let (cluster, api) = behind_lines().await;
        let line = cluster.link(1, 0).unwrap();
        line.set(Line::Late(Duration::from_secs(1)));
        let patience = Duration::from_millis(300);
        let left = tokio::time::timeout(patience, change.ask_for(&api)).await;
        assert!(left.is_err(), "it was answered at once: {left:?}");
        line.set(Line::Open);
        change.is_whole(&cluster, &api).await;
    }
}

/// Who holds what on a node: the origin of each index's documents.
async fn origins(node: &Api) -> BTreeMap<String, BTreeSet<String>> {
    let mut held = BTreeMap::new();
    let indexes = node.get("/indexes?limit=100").await.unwrap();
    for index in indexes.at("/results").as_array().unwrap() {
        let uid = index["uid"].as_str().unwrap();
        let path = format!("/indexes/{uid}/documents?limit=1000");
        let documents = node.get(&path).await.unwrap();
        let origin = |document: &Value| document["origin"].as_str().unwrap().to_owned();
        let documents = documents.at("/results").as_array().unwrap();
        held.insert(uid.to_owned(), documents.iter().map(origin).collect());
    }
    held
}

/// Waits until nothing is under way, on any node, and no shard is held.
async fn quiet(cluster: &Cluster, api: &Api) {
    let open = "/tasks?statuses=enqueued,processing&limit=1";
    until("nothing under way", Deadline::after(WITHIN), || async {
        let shards = api.get("/_cluster/shards").await;
        let shards = shards.map_err(|error| error.to_string())?;
        let all = shards.at("/shards").as_array().ok_or(shards.text.clone())?;
        if all.is_empty() || all.iter().any(|shard| shard["inDoubt"] != json!(false)) {
            return Err(shards.text);
        }
        let nodes = (0..cluster.layout().shards()).map(|shard| node(cluster, shard));
        for one in nodes.chain([api.clone()]) {
            let tasks = one.get(open).await.map_err(|error| error.to_string())?;
            if tasks.at("/total") != 0 {
                return Err(tasks.text);
            }
        }
        Ok(())
    })
    .await
    .unwrap();
}

/// Another seed tries other moments: `WEFT_FUZZ_SEED=7`.
#[tokio::test]
async fn a_merger_killed_at_any_moment_leaves_no_index_half_changed() {
    let seed = std::env::var("WEFT_FUZZ_SEED").map_or(5, |seed| seed.parse().unwrap());
    println!("WEFT_FUZZ_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (cluster, api) = start(Cluster::builder().shards(2)).await;
    let mut fresh = 0;
    for round in 0..15 {
        let mut names: Vec<String> = origins(&node(&cluster, 0)).await.into_keys().collect();
        while names.len() < 3 {
            fresh += 1;
            let name = format!("index-{fresh}");
            let document = |id: u64| json!({"id": id, "origin": name});
            let documents: Value = (0..30).map(document).collect();
            let path = format!("/indexes/{name}/documents?primaryKey=id");
            let accepted = api.post(&path, &documents).await.unwrap();
            api.succeed(&accepted).await.unwrap();
            names.push(name);
        }
        random.shuffle(&mut names);
        let (method, path, body) = match random.u8(0..4) {
            0 | 1 => {
                let swap = json!([{"indexes": [names[0], names[1]]}]);
                (Method::POST, "/swap-indexes".to_owned(), swap)
            }
            2 => {
                fresh += 1;
                let new = json!({"uid": format!("index-{fresh}")});
                (Method::PATCH, format!("/indexes/{}", names[0]), new)
            }
            _ => (
                Method::DELETE,
                format!("/indexes/{}", names[0]),
                Value::Null,
            ),
        };
        let what = format!("round {round}: {method} {path} {body}");
        let request = {
            let api = api.clone();
            tokio::spawn(async move { api.json(method, &path, &body).await })
        };
        tokio::time::sleep(Duration::from_micros(random.u64(0..12_000))).await;
        cluster.merger().kill().unwrap();
        let _ = request.await.unwrap();
        cluster.merger().restart().unwrap();
        quiet(&cluster, &api).await;
        let (one, two) = (
            origins(&node(&cluster, 0)).await,
            origins(&node(&cluster, 1)).await,
        );
        assert_eq!(one, two, "{what}");
        assert!(
            one.values().all(|origins| origins.len() == 1),
            "{what}: {one:?}"
        );
        let listed = api.get("/indexes?limit=100").await.unwrap();
        assert_eq!(listed.status, 200, "{what}: {}", listed.text);
        let listed = listed.at("/results").as_array().unwrap().iter();
        let listed = listed.map(|index| index["uid"].as_str().unwrap().to_owned());
        assert_eq!(
            listed.collect::<BTreeSet<_>>(),
            one.into_keys().collect(),
            "{what}"
        );
    }
}
