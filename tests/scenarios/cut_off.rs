//! Swaps, renames and deletions of indexes that are interrupted: in the end, all shards have applied them, or none.

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

    async fn request(self, api: &Api) -> Result<Reply, HarnessError> {
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

    /// Waits for the change's task, and checks that every shard has applied it.
    async fn assert_complete(self, cluster: &Cluster, api: &Api) {
        let path = format!("/tasks?types={}&statuses=succeeded", self.kind());
        until(
            &format!("{self:?} on all shards"),
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
        self.assert_holds(cluster, api, expected).await;
        // The indexes can still be written to.
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

    /// Checks that no shard has applied the change.
    async fn assert_not_applied(self, cluster: &Cluster, api: &Api) {
        let expected = [("x", Some(0..40)), ("y", Some(100..120)), ("z", None)];
        self.assert_holds(cluster, api, &expected).await;
        let tasks = api
            .get(&format!("/tasks?types={}", self.kind()))
            .await
            .unwrap();
        assert_eq!(tasks.at("/total"), 0, "{}", tasks.text);
    }

    async fn assert_holds(
        self,
        cluster: &Cluster,
        api: &Api,
        expected: &[(&str, Option<std::ops::Range<u64>>)],
    ) {
        // After a cut, Envoy may not send reads to the node yet.
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

/// Checks that a write to all shards is refused, because some of them have applied the change and others haven't.
async fn assert_write_refused(api: &Api) {
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

/// Two shards behind relays that can be cut, with `x` and `y`.
async fn behind_relays() -> (Cluster, Api) {
    let (cluster, api) = start(builder_with_relays()).await;
    two_indexes(&api).await;
    (cluster, api)
}

fn builder_with_relays() -> ClusterBuilder {
    Cluster::builder().shards(2).links(true)
}

/// The same after a change that the first shard has applied, and the second, whose relay answers with errors, has not.
async fn half_done(change: Change, builder: ClusterBuilder) -> (Cluster, Api) {
    let (cluster, api) = start(builder).await;
    two_indexes(&api).await;
    let reply = request_over(change, &cluster, &api, 1, Line::ServerErrors).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    let message = reply.at("/message").as_str().unwrap().to_owned();
    assert!(message.contains("is being made whole"), "{message}");
    (cluster, api)
}

/// Requests a change while a shard's relay is in this state. On a slow machine, the merger may notice the state first and change
/// nothing; then the request is repeated.
async fn request_over(
    change: Change,
    cluster: &Cluster,
    api: &Api,
    shard: u16,
    line: Line,
) -> Reply {
    for _ in 0..5 {
        cluster.link(shard, 0).unwrap().set(line);
        let reply = change.request(api).await.unwrap();
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
async fn a_shard_that_missed_a_change_gets_it_when_it_is_back() {
    for change in Change::ALL {
        let (cluster, api) = half_done(change, builder_with_relays()).await;
        assert_write_refused(&api).await;
        assert_ne!(status(&api).await, "green");
        cluster.link(1, 0).unwrap().set(Line::Open);
        change.assert_complete(&cluster, &api).await;
    }
}

#[tokio::test]
async fn a_change_that_a_killed_merger_left_half_done_is_completed_after_its_restart() {
    for change in Change::ALL {
        let (cluster, api) = half_done(change, builder_with_relays()).await;
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
        assert_write_refused(&api).await;
        cluster.link(1, 0).unwrap().set(Line::Open);
        change.assert_complete(&cluster, &api).await;
    }
}

/// Waits until documents of `y` that belong to the first shard are accepted, and others are refused.
async fn wait_for_writes_to_the_first_shard(api: &Api, held: std::ops::Range<u64>) {
    until(
        "writes to the first shard",
        Deadline::after(WITHIN),
        || async {
            let mut accepted = 0;
            for id in held.clone() {
                // The index holds the same document already, so nothing changes.
                let path = "/indexes/y/documents?primaryKey=id";
                let write = api.post(path, &documents(id..id + 1)).await;
                let write = write.map_err(|error| error.to_string())?;
                match write.status {
                    202 => accepted += 1,
                    503 => {}
                    _ => return Err(write.text),
                }
            }
            let some = accepted > 0 && accepted < held.end - held.start;
            some.then_some(())
                .ok_or(format!("{accepted} were accepted"))
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_shard_that_is_down_delays_no_other_and_serves_no_reads_before_it_has_the_change() {
    for change in Change::ALL {
        let builder = builder_with_relays().merger_env("WEFT_NODE_DOWN_AFTER_MS", "1500");
        let (cluster, api) = half_done(change, builder).await;
        let held = match change {
            Change::Swap => 0..40,
            Change::Rename | Change::Delete => 100..120,
        };
        wait_for_writes_to_the_first_shard(&api, held.clone()).await;
        cluster.merger().kill().unwrap();
        cluster.merger().restart().unwrap();
        wait_for_writes_to_the_first_shard(&api, held).await;
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
        change.assert_complete(&cluster, &api).await;
    }
}

#[tokio::test]
async fn a_change_that_the_first_shard_applied_without_answering_reaches_the_others() {
    for change in Change::ALL {
        let (cluster, api) = behind_relays().await;
        let reply = request_over(change, &cluster, &api, 0, Line::AnswersLost).await;
        assert!(reply.status >= 500, "{}", reply.text);
        cluster.link(0, 0).unwrap().set(Line::Open);
        change.assert_complete(&cluster, &api).await;
    }
}

#[tokio::test]
async fn a_change_that_reached_no_shard_is_not_applied_later() {
    for change in Change::ALL {
        let (cluster, api) = behind_relays().await;
        for line in [Line::Refused, Line::ServerErrors] {
            cluster.link(0, 0).unwrap().set(line);
            let reply = change.request(&api).await.unwrap();
            assert!(reply.status >= 500, "{}", reply.text);
            cluster.link(0, 0).unwrap().set(Line::Open);
            until(
                "a write that is accepted",
                Deadline::after(WITHIN),
                || async {
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
                },
            )
            .await
            .unwrap();
            change.assert_not_applied(&cluster, &api).await;
        }
    }
}

#[tokio::test]
async fn a_replica_that_applied_a_change_without_answering_is_repaired() {
    let (cluster, api) = start(Cluster::builder().shards(1).replicas(2).links(true)).await;
    two_indexes(&api).await;
    cluster.link(0, 0).unwrap().set(Line::AnswersLost);
    let reply = Change::Swap.request(&api).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text);
    until(
        "only the other replica in sync",
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
    Change::Swap.assert_complete(&cluster, &api).await;
}

#[tokio::test]
async fn a_change_is_completed_even_if_the_client_disconnects() {
    for change in Change::ALL {
        let (cluster, api) = behind_relays().await;
        let line = cluster.link(1, 0).unwrap();
        line.set(Line::Late(Duration::from_secs(1)));
        let patience = Duration::from_millis(300);
        let left = tokio::time::timeout(patience, change.request(&api)).await;
        assert!(left.is_err(), "it was answered at once: {left:?}");
        line.set(Line::Open);
        change.assert_complete(&cluster, &api).await;
    }
}

/// For each index of a node, the origins of its documents.
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

/// Waits until no task is open on any node, and no shard is in doubt.
async fn wait_until_idle(cluster: &Cluster, api: &Api) {
    let open = "/tasks?statuses=enqueued,processing&limit=1";
    until("no open task", Deadline::after(WITHIN), || async {
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

/// `WEFT_FUZZ_SEED=7` tries other moments.
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
        wait_until_idle(&cluster, &api).await;
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
