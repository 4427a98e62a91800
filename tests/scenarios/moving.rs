//! Slots of an index go from shard to shard while clients write and search.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, ClusterBuilder, Deadline, until};

use crate::support::{documents, ids, node, start};

pub(crate) const DOCUMENTS: u64 = 1_500;

/// A cluster whose filters hear soon of a new table, and whose batches are small.
fn cluster(shards: u16) -> ClusterBuilder {
    let builder = Cluster::builder().shards(shards).replicas(1);
    let builder = builder.merger_env("WEFT_LEASE_MS", "1000");
    builder.merger_env("WEFT_MOVE_BATCH", "100")
}

/// An index `x` on some shards, with documents and settings.
async fn index(api: &Api, shards: u16) {
    let body = json!({"uid": "x", "primaryKey": "id", "sharding": {"shardCount": shards}});
    let made = api.post("/indexes", &body).await.unwrap();
    api.succeed(&made).await.unwrap();
    let settings = json!({"sortableAttributes": ["id"], "filterableAttributes": ["group"]});
    let set = api.json(Method::PATCH, "/indexes/x/settings", &settings);
    api.succeed(&set.await.unwrap()).await.unwrap();
    let all = documents(0..DOCUMENTS);
    let added = api.post("/indexes/x/documents", &all);
    api.succeed(&added.await.unwrap()).await.unwrap();
}

async fn set_shard_count(api: &Api, count: Value) {
    let body = json!({"sharding": {"shardCount": count}});
    let set = api.json(Method::PATCH, "/indexes/x", &body).await.unwrap();
    api.succeed(&set).await.unwrap();
}

async fn moves(api: &Api) -> Vec<Value> {
    let listed = api.get("/_cluster/moves").await.unwrap();
    assert_eq!(listed.status, 200, "{}", listed.text);
    listed.at("/moves").as_array().unwrap().clone()
}

fn has_ended(one: &Value) -> bool {
    ["done", "cancelled"].contains(&one["state"].as_str().unwrap_or_default())
}

/// Waits until there were moves, and all of them have ended.
pub(crate) async fn wait_for_moves(api: &Api, before: usize) -> Vec<Value> {
    until(
        "all moves have ended",
        Deadline::after(Duration::from_secs(120)),
        || async {
            let Ok(listed) = api.get("/_cluster/moves").await else {
                return Err("no answer".to_owned());
            };
            let moves = listed.at("/moves").as_array().cloned().unwrap_or_default();
            match moves.len() > before && moves.iter().all(has_ended) {
                true => Ok(moves),
                false => Err(listed.text),
            }
        },
    )
    .await
    .unwrap()
}

/// Each of these shards holds documents of its own, and together they hold exactly `wanted`.
pub(crate) async fn assert_spread(
    cluster: &Cluster,
    shards: &[u16],
    all: u16,
    wanted: &BTreeSet<u64>,
) {
    let mut held = Vec::new();
    for shard in shards {
        let here = ids(&node(cluster, *shard), "x").await;
        let share = wanted.len() / shards.len();
        assert!(
            here.len() > share / 2 && here.len() < share * 2,
            "shard {shard} has {} of {}",
            here.len(),
            wanted.len()
        );
        held.extend(here);
    }
    assert_eq!(held.len(), wanted.len(), "no document is on two shards");
    assert_eq!(&held.into_iter().collect::<BTreeSet<_>>(), wanted);
    for other in (0..all).filter(|shard| !shards.contains(shard)) {
        let found = node(cluster, other).get("/indexes/x").await.unwrap();
        assert_eq!(found.status, 404, "shard {other} has nothing of it");
    }
}

pub(crate) async fn sorted_ids(api: &Api, skip: usize, take: usize) -> Vec<u64> {
    let body = json!({"q": "amber", "sort": ["id:asc"], "offset": skip, "limit": take});
    let found = api.post("/indexes/x/search", &body).await.unwrap();
    assert_eq!(found.status, 200, "{}", found.text);
    let hits = found.at("/hits").as_array().unwrap();
    hits.iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
}

/// The documents that contain `amber`, in order.
pub(crate) fn ambers() -> Vec<u64> {
    (0..DOCUMENTS).step_by(5).collect()
}

#[tokio::test]
async fn an_index_grows_and_shrinks_while_clients_write_and_search() {
    let (cluster, api) = start(cluster(4)).await;
    index(&api, 3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let go_on = |stop: &Arc<AtomicBool>| !stop.load(Ordering::Relaxed);
    let searcher = tokio::spawn({
        let (api, stop) = (api.clone(), Arc::clone(&stop));
        async move {
            let (expected, mut searches) = (ambers(), 0);
            while go_on(&stop) {
                assert_eq!(sorted_ids(&api, 0, 20).await, expected[..20]);
                // Pages fit together, whatever moves between them.
                let mut walked = Vec::new();
                for page in 0..15 {
                    walked.extend(sorted_ids(&api, page * 20, 20).await);
                }
                assert_eq!(walked, expected);
                let one = api.get("/indexes/x/documents/777").await.unwrap();
                assert_eq!(one.status, 200, "{}", one.text);
                searches += 17;
            }
            searches
        }
    });
    let writer = tokio::spawn({
        let (api, stop) = (api.clone(), Arc::clone(&stop));
        async move {
            let (mut added, mut marked) = (BTreeSet::new(), Vec::new());
            let mut next = 0;
            while go_on(&stop) {
                next += 1;
                let new = json!([{"id": 100_000 + next, "name": "zinc"}]);
                let reply = api.post("/indexes/x/documents", &new).await.unwrap();
                assert_eq!(reply.status, 202, "{}", reply.text);
                added.insert(100_000 + next);
                let id = next * 7 % DOCUMENTS;
                let mark = json!([{"id": id, "mark": next}]);
                let path = "/indexes/x/documents";
                let reply = api.json(Method::PUT, path, &mark).await.unwrap();
                assert_eq!(reply.status, 202, "{}", reply.text);
                marked.push((id, next));
                if next % 3 == 0 {
                    let gone = 100_000 + next - 1;
                    let path = format!("/indexes/x/documents/{gone}");
                    let reply = api.delete(&path).await.unwrap();
                    assert_eq!(reply.status, 202, "{}", reply.text);
                    added.remove(&gone);
                }
            }
            (added, marked)
        }
    });
    set_shard_count(&api, Value::Null).await;
    let grown = wait_for_moves(&api, 0).await;
    assert!(grown.iter().all(|one| one["state"] == "done"), "{grown:?}");
    let new: BTreeSet<u64> = grown.iter().filter_map(|one| one["to"].as_u64()).collect();
    assert_eq!(new.len(), 1, "one shard gets something: {grown:?}");
    let path = "/_cluster/shards/shard-0/drain";
    let drained = api.post(path, &json!({})).await.unwrap();
    assert_eq!(drained.status, 202, "{}", drained.text);
    let shrunk = wait_for_moves(&api, grown.len()).await;
    assert!(
        shrunk.iter().all(|one| one["state"] == "done"),
        "{shrunk:?}"
    );
    stop.store(true, Ordering::Relaxed);
    let (added, marked) = writer.await.unwrap();
    assert!(searcher.await.unwrap() > 17, "searches went on");
    let last = json!([{"id": 1, "name": "birch", "mark": 0}]);
    let last = api.post("/indexes/x/documents", &last).await.unwrap();
    api.succeed(&last).await.unwrap();
    let wanted: BTreeSet<u64> = (0..DOCUMENTS).chain(added).collect();
    assert_spread(&cluster, &[1, 2, 3], 4, &wanted).await;
    let list = api.get("/indexes/x/documents?limit=1000000").await.unwrap();
    for (id, mark) in marked.into_iter().filter(|(id, _)| *id != 1) {
        let found = list.at("/results").as_array().unwrap();
        let found = found.iter().find(|document| document["id"] == id).unwrap();
        let newer = found["mark"].as_u64() >= Some(mark);
        assert!(newer && found["name"].is_string(), "{id}, {mark}: {found}");
    }
    let shards = api.get("/_cluster/shards").await.unwrap();
    assert_eq!(shards.at("/shards/0/removable"), true, "{}", shards.text);
    assert_eq!(shards.at("/shards/1/removable"), false, "{}", shards.text);
    let refused = json!({"uid": "y", "sharding": {"shardCount": 4}});
    let refused = api.post("/indexes", &refused).await.unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text);
    let lies = api.get("/indexes/x/_shards").await.unwrap();
    assert_eq!(lies.at("/unsettled"), &json!([]), "{}", lies.text);
}

#[tokio::test]
async fn a_move_ends_right_though_the_merger_dies_again_and_again() {
    let (cluster, api) = start(cluster(3)).await;
    index(&api, 2).await;
    set_shard_count(&api, json!(3)).await;
    for pause in [1_300, 900, 2_100] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        cluster.merger().kill().unwrap();
        cluster.merger().restart().unwrap();
        cluster.wait_ready().await.unwrap();
        let mark = json!([{"id": pause, "mark": pause, "name": "zinc"}]);
        let marked = api.post("/indexes/x/documents", &mark).await.unwrap();
        api.succeed(&marked).await.unwrap();
    }
    let ended = wait_for_moves(&api, 0).await;
    assert!(ended.iter().all(|one| one["state"] == "done"), "{ended:?}");
    let wanted = (0..DOCUMENTS).chain([2_100]).collect();
    assert_spread(&cluster, &[0, 1, 2], 3, &wanted).await;
    for pause in [1_300, 900, 2_100] {
        let found = api.get(&format!("/indexes/x/documents/{pause}")).await;
        assert_eq!(found.unwrap().at("/mark"), pause);
    }
}

#[tokio::test]
async fn an_index_may_change_in_every_way_while_its_slots_move() {
    let builder = cluster(3).merger_env("WEFT_MOVE_BATCH", "20");
    let (cluster, api) = start(builder).await;
    index(&api, 2).await;
    let body = json!({"uid": "y", "primaryKey": "id", "sharding": {"shardCount": 2}});
    let made = api.post("/indexes", &body).await.unwrap();
    api.succeed(&made).await.unwrap();
    let slow = json!({"bytesPerSecond": 20_000});
    let set = api.json(Method::PATCH, "/_cluster/moves", &slow).await;
    assert_eq!(set.unwrap().status, 200);
    set_shard_count(&api, json!(3)).await;
    until(
        "something is moved",
        Deadline::after(Duration::from_secs(60)),
        || async {
            let moves = moves(&api).await;
            let moved = moves
                .iter()
                .any(|one| one["documentsMoved"].as_u64() > Some(20));
            moved.then_some(()).ok_or(format!("{moves:?}"))
        },
    )
    .await
    .unwrap();
    let settings = json!({"sortableAttributes": ["id", "name"]});
    let set = api.json(Method::PATCH, "/indexes/x/settings", &settings);
    let set = set.await.unwrap();
    let gone = json!({"filter": "group = 3"});
    let gone = api
        .post("/indexes/x/documents/delete", &gone)
        .await
        .unwrap();
    api.succeed(&set).await.unwrap();
    api.succeed(&gone).await.unwrap();
    let left: BTreeSet<u64> = (0..DOCUMENTS).filter(|id| id % 10 != 3).collect();
    let swap = json!([{"indexes": ["x", "y"]}]);
    let swapped = api.post("/swap-indexes", &swap).await.unwrap();
    api.succeed(&swapped).await.unwrap();
    let in_y: BTreeSet<u64> = ids(&api, "y").await.into_iter().collect();
    assert_eq!(in_y, left);
    assert_eq!(ids(&api, "x").await, [0_u64; 0]);
    let swapped = api.post("/swap-indexes", &swap).await.unwrap();
    api.succeed(&swapped).await.unwrap();
    let unlimited = json!({"bytesPerSecond": null, "batchDocuments": 40});
    let set = api.json(Method::PATCH, "/_cluster/moves", &unlimited);
    let set = set.await.unwrap();
    assert_eq!(set.at("/bytesPerSecond"), &Value::Null);
    assert_eq!(set.at("/batchDocuments"), &json!(40));
    wait_for_moves(&api, 0).await;
    // What the swaps have cut short is planned anew.
    until_even(&api).await;
    wait_for_moves(&api, 0).await;
    assert_spread(&cluster, &[0, 1, 2], 3, &left).await;
    let found = api.get("/indexes/x/settings/sortable-attributes").await;
    assert_eq!(found.unwrap().text, r#"["id","name"]"#);
    // Deleted and made anew in the middle of a move.
    set_shard_count(&api, json!(1)).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let gone = api.delete("/indexes/x").await.unwrap();
    api.succeed(&gone).await.unwrap();
    index(&api, 3).await;
    // If it was made while the old one was still being deleted, it lies where that had come to, and is spread then.
    until_even(&api).await;
    wait_for_moves(&api, 0).await;
    assert_spread(&cluster, &[0, 1, 2], 3, &(0..DOCUMENTS).collect()).await;
}

/// Waits until the index lies on three shards, evenly.
async fn until_even(api: &Api) {
    until(
        "it lies on three shards",
        Deadline::after(Duration::from_secs(60)),
        || async {
            let lies = api.get("/indexes/x/_shards").await.unwrap();
            let slots = lies.at("/shards").as_array().unwrap().iter();
            let slots: Vec<u64> = slots
                .map(|shard| shard["slots"].as_u64().unwrap())
                .collect();
            let even =
                slots.len() == 3 && slots.iter().all(|count| (1_365..=1_366).contains(count));
            even.then_some(()).ok_or(lies.text)
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_plan_is_shown_first_and_what_makes_no_sense_is_refused() {
    let (cluster, api) = start(cluster(3)).await;
    index(&api, 1).await;
    let dry = json!({"dryRun": true, "exclude": ["shard-0", 1], "indexes": ["x"]});
    let lies = api.get("/indexes/x/_shards").await.unwrap();
    let from = lies.at("/shards/0/shardId").as_u64().unwrap();
    let planned = api.post("/_cluster/rebalance", &dry).await.unwrap();
    assert_eq!(planned.status, 200, "{}", planned.text);
    let plan = planned.at("/plan").as_array().unwrap();
    match from {
        2 => assert!(plan.is_empty(), "{}", planned.text),
        from => {
            assert_eq!(plan.len(), 1, "{}", planned.text);
            let wanted =
                json!({"index": "x", "from": from, "to": 2, "slots": 4096, "documents": DOCUMENTS});
            for (name, value) in wanted.as_object().unwrap() {
                assert_eq!(&plan[0][name], value, "{}", planned.text);
            }
        }
    }
    assert!(moves(&api).await.is_empty(), "nothing has begun");
    let path = "/_cluster/rebalance";
    for (path, body, status, code) in [
        (path, json!({"exclude": ["shard-9"]}), 404, "not_found"),
        (path, json!({"indexes": ["none"]}), 404, "index_not_found"),
        (path, json!({"dryrun": true}), 400, "bad_request"),
        (path, json!({"maxConcurrent": 0}), 400, "bad_request"),
        (path, json!({"batchDocuments": 0}), 400, "bad_request"),
        (
            path,
            json!({"exclude": [0, 1, 2]}),
            503,
            "remote_could_not_send_request",
        ),
        (
            "/_cluster/shards/shard-7/drain",
            json!({}),
            404,
            "not_found",
        ),
    ] {
        let refused = api.post(path, &body).await.unwrap();
        assert_eq!(refused.status, status, "{body}: {}", refused.text);
        assert_eq!(refused.at("/code"), code, "{body}: {}", refused.text);
    }
    let unknown = api.delete("/_cluster/moves/77").await.unwrap();
    assert_eq!(unknown.status, 404, "{}", unknown.text);
    // A move that is cancelled at once leaves everything where it was.
    let paused = json!({"paused": true});
    let set = api.json(Method::PATCH, "/_cluster/moves", &paused).await;
    assert_eq!(set.unwrap().at("/paused"), true);
    let exclude: Vec<u64> = vec![from];
    let begun = api.post(path, &json!({"exclude": exclude})).await.unwrap();
    assert_eq!(begun.status, 202, "{}", begun.text);
    let id = begun.at("/moves/0").as_u64().unwrap();
    let cancelled = api.delete(&format!("/_cluster/moves/{id}")).await.unwrap();
    assert_eq!(cancelled.status, 202, "{}", cancelled.text);
    let ended = wait_for_moves(&api, 0).await;
    assert_eq!(ended[0]["state"], "cancelled", "{ended:?}");
    let on = [u16::try_from(from).unwrap()];
    assert_spread(&cluster, &on, 3, &(0..DOCUMENTS).collect()).await;
}
