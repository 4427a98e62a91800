//! A client's writes to a document are applied in the order in which they were sent, whichever way each takes. A write that is
//! sent together with others has its own outcome.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Map, Value, json};
use weft_cluster::{Api, Cluster, POISON, Reply, StandInCluster};

use crate::support::{documents, ids, node, start};

const DOCUMENTS: u64 = 5;
const WRITES: u64 = 150;
/// Larger than bodies that the filter reads, and than writes that are sent together.
const LARGE_BYTES: usize = 100 << 10;

/// Sends the `number`th write to a document, of a random kind, and does the same to the model.
async fn write(
    api: &Api,
    index: &str,
    model: &mut BTreeMap<u64, Map<String, Value>>,
    random: &mut u64,
    number: u64,
) -> Reply {
    let mut next = |bound: u64| {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random % bound
    };
    let id = next(DOCUMENTS);
    let path = format!("/indexes/{index}/documents");
    let json = [("content-type", "application/json")];
    let mut document = Map::new();
    document.insert("id".to_owned(), id.into());
    document.insert(format!("field{}", next(3)), number.into());
    match next(8) {
        kind @ (0 | 1) => {
            if kind == 1 {
                document.insert("text".to_owned(), "x".repeat(LARGE_BYTES).into());
            }
            model.insert(id, document.clone());
            let body = json!([document]).to_string();
            api.send(Method::POST, &path, &json, body).await.unwrap()
        }
        kind @ (2 | 3) => {
            if kind == 3 {
                document.insert("text".to_owned(), "y".repeat(LARGE_BYTES).into());
            }
            model.entry(id).or_default().extend(document.clone());
            let body = json!(document).to_string();
            api.send(Method::PUT, &path, &json, body).await.unwrap()
        }
        4 => {
            model.insert(id, document.clone());
            let headers = [("content-type", "application/x-ndjson")];
            let body = format!("{}\n", json!(document));
            api.send(Method::POST, &path, &headers, body).await.unwrap()
        }
        5 => {
            let body = format!("id:number,csv:number\n{id},{number}\n");
            let document = json!({"id": id, "csv": number});
            model.insert(id, document.as_object().unwrap().clone());
            let headers = [("content-type", "text/csv")];
            api.send(Method::POST, &path, &headers, body).await.unwrap()
        }
        6 => {
            model.remove(&id);
            api.delete(&format!("{path}/{id}")).await.unwrap()
        }
        _ => {
            model.remove(&id);
            let path = format!("{path}/delete-batch");
            api.post(&path, &json!([id, 4_000])).await.unwrap()
        }
    }
}

/// `WEFT_FUZZ_SEED=7` tries other writes.
#[tokio::test]
async fn writes_to_a_document_are_applied_in_the_order_in_which_they_were_sent() {
    let seed = std::env::var("WEFT_FUZZ_SEED").map_or(77, |seed| seed.parse().unwrap());
    println!("WEFT_FUZZ_SEED={seed}");
    for direct in ["true", "false"] {
        let builder = Cluster::builder()
            .shards(2)
            .merger_env("WEFT_DIRECT_WRITES", direct);
        let (_cluster, api) = start(builder).await;
        // Several clients, each with its own index, so that there are writes to send together.
        let clients = (0..4_u64).map(|client| {
            let api = api.clone();
            async move {
                let index = format!("of-{client}");
                let create = json!({"uid": index, "primaryKey": "id"});
                let created = api.post("/indexes", &create).await.unwrap();
                api.succeed(&created).await.unwrap();
                let mut random = (seed + client) * 2 + 1;
                let mut model = BTreeMap::new();
                let mut last = None;
                for number in 0..WRITES {
                    let accepted = write(&api, &index, &mut model, &mut random, number).await;
                    assert_eq!(accepted.status, 202, "{}", accepted.text);
                    last = Some(accepted);
                }
                api.succeed(&last.unwrap()).await.unwrap();
                (index, model)
            }
        });
        for (index, model) in join_all(clients).await {
            // The last task of one shard has ended, but the other shard may still have tasks.
            let list = settled(&api, &index).await;
            let found: BTreeMap<u64, Map<String, Value>> = list
                .as_array()
                .unwrap()
                .iter()
                .map(|document| {
                    (
                        document["id"].as_u64().unwrap(),
                        document.as_object().unwrap().clone(),
                    )
                })
                .collect();
            assert_eq!(found, model, "{index}, direct writes {direct}, seed {seed}");
        }
    }
}

/// The documents of an index, once none of its tasks is open.
async fn settled(api: &Api, index: &str) -> Value {
    let path = format!("/tasks?indexUids={index}&statuses=enqueued,processing&limit=1");
    weft_cluster::until(
        "the last write",
        weft_cluster::Deadline::after(std::time::Duration::from_secs(30)),
        || async {
            let open = api.get(&path).await.map_err(|error| error.to_string())?;
            match open.at("/results/0") {
                Value::Null => Ok(()),
                task => Err(task.to_string()),
            }
        },
    )
    .await
    .unwrap();
    let path = format!("/indexes/{index}/documents?limit=100");
    api.get(&path).await.unwrap().at("/results").clone()
}

/// A cluster of one shard that sends the small writes of 200 ms together, with the index `x`.
async fn cluster_that_waits_for_more_writes() -> (StandInCluster, Api) {
    let environment = vec![
        ("WEFT_DIRECT_WRITES".to_owned(), "false".to_owned()),
        ("WEFT_COALESCE_WAIT_MS".to_owned(), "200".to_owned()),
    ];
    let cluster = StandInCluster::start(1, true, environment).await.unwrap();
    let api = Api::new(cluster.url(), None);
    let first = api
        .post("/indexes/x/documents?primaryKey=id", &json!({"id": 0}))
        .await
        .unwrap();
    api.succeed(&first).await.unwrap();
    cluster.nodes[0].take_seen();
    (cluster, api)
}

#[tokio::test]
async fn one_bad_document_fails_its_own_task_only() {
    let (cluster, api) = cluster_that_waits_for_more_writes().await;
    let path = "/indexes/x/documents";
    let writes = (1..=40).map(|id| {
        let text = if id == 17 { POISON } else { "harmless" };
        let api = api.clone();
        async move {
            let accepted = api
                .post(path, &json!({"id": id, "text": text}))
                .await
                .unwrap();
            (id, api.settle(&accepted).await.unwrap())
        }
    });
    for (id, task) in join_all(writes).await {
        let expected = if id == 17 { "failed" } else { "succeeded" };
        assert_eq!(task["status"], expected, "{id}: {task}");
    }
    let seen = cluster.nodes[0].take_seen();
    let posts = seen.iter().filter(|seen| seen.method == Method::POST);
    // At least one request held several writes, which were then repeated one by one.
    assert!(posts.count() > 40, "no writes were sent together");
}

#[tokio::test]
async fn a_write_that_failed_with_others_is_not_repeated_over_a_newer_one() {
    let (cluster, api) = cluster_that_waits_for_more_writes().await;
    let node = &cluster.nodes[0];
    let path = "/indexes/x/documents";
    node.hold_tasks(true);
    let write = |id: u64, text: &str| {
        let document = json!({"id": id, "text": text});
        let api = api.clone();
        async move {
            let accepted = api.post(path, &document).await.unwrap();
            assert_eq!(accepted.status, 202, "{}", accepted.text);
            accepted
        }
    };
    // The stand-in can tell the writes apart by their lengths.
    let (old, other) = ("old", "another document's text");
    let together = join_all([write(1, old), write(2, other), write(17, POISON)]).await;
    let posts = || {
        let seen = node.take_seen();
        let posts = seen.into_iter().filter(|seen| seen.method == Method::POST);
        posts.map(|seen| seen.body_bytes).collect::<Vec<u64>>()
    };
    assert_eq!(posts().len(), 1, "they were not sent together");
    let newer = write(1, "newer").await;
    posts();
    node.hold_tasks(false);
    let tasks = join_all(together.iter().map(|accepted| api.settle(accepted))).await;
    let tasks: Vec<Value> = tasks.into_iter().map(Result::unwrap).collect();
    assert_eq!(tasks[0]["status"], "failed", "{}", tasks[0]);
    let message = tasks[0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("has been written to since"), "{message}");
    assert_eq!(tasks[1]["status"], "succeeded", "{}", tasks[1]);
    assert_eq!(tasks[2]["error"]["message"], "Poison.", "{}", tasks[2]);
    api.succeed(&newer).await.unwrap();
    let alone = |id: u64, text: &str| json!([{"id": id, "text": text}]).to_string().len() as u64;
    let mut repeated = posts();
    repeated.sort_unstable();
    let mut expected = vec![alone(2, other), alone(17, POISON)];
    expected.sort_unstable();
    assert_eq!(repeated, expected);
}

/// While two indexes are swapped, each request to `x` applies to the one that has this name at that moment. In the end, each added
/// id exists once, and each deleted id is missing from one of the two.
#[tokio::test]
async fn requests_during_swaps_of_indexes_on_different_shards_reach_one_of_the_two() {
    let builder = Cluster::builder().shards(3);
    let (cluster, api) = start(builder.merger_env("WEFT_LEASE_MS", "200")).await;
    for (uid, shards) in [("x", 1), ("y", 3)] {
        let sharding = json!({"shardCount": shards});
        let create = json!({"uid": uid, "primaryKey": "id", "sharding": sharding});
        api.succeed(&api.post("/indexes", &create).await.unwrap())
            .await
            .unwrap();
        let path = format!("/indexes/{uid}/documents");
        api.succeed(&api.post(&path, &documents(0..600)).await.unwrap())
            .await
            .unwrap();
    }
    let done = std::cell::Cell::new(false);
    let swaps = async {
        let mut accepted = Vec::new();
        for _ in 0..10 {
            let body = json!([{"indexes": ["x", "y"]}]);
            accepted.push(api.post("/swap-indexes", &body).await.unwrap());
        }
        done.set(true);
        accepted
    };
    // Kinds of writes: small ones, which are sent together; large ones; deletions of one id, and of several.
    let added = async |from: u64, step: u64| {
        let (mut accepted, mut id) = (Vec::new(), from);
        while !done.get() {
            let body = documents(id..id + step);
            accepted.push(api.post("/indexes/x/documents", &body).await.unwrap());
            id += step;
        }
        (accepted, from..id)
    };
    let deleted_one = async |ids: std::ops::Range<u64>| {
        let mut accepted = Vec::new();
        for id in ids {
            let path = format!("/indexes/x/documents/{id}");
            accepted.push(api.delete(&path).await.unwrap());
        }
        accepted
    };
    let deleted_several = async |ids: std::ops::Range<u64>| {
        let mut accepted = Vec::new();
        let ids: Vec<u64> = ids.collect();
        for some in ids.chunks(7) {
            let path = "/indexes/x/documents/delete-batch";
            accepted.push(api.post(path, &json!(some)).await.unwrap());
        }
        accepted
    };
    let (swapped, small, other, large, one, several) = tokio::join!(
        swaps,
        added(10_000, 1),
        added(200_000, 3),
        added(400_000, 60),
        deleted_one(0..300),
        deleted_several(300..600),
    );
    let mut expected: Vec<u64> = (0..600).collect();
    let mut accepted = [swapped, one, several].concat();
    for (replies, ids) in [small, other, large] {
        accepted.extend(replies);
        expected.extend(ids);
    }
    for reply in &accepted {
        api.succeed(reply).await.unwrap();
    }
    let held = [ids(&api, "x").await, ids(&api, "y").await];
    let mut all = held.concat();
    all.sort_unstable();
    let set_of = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
    let (missing, twice) = (
        &set_of(&expected) - &set_of(&all),
        all.windows(2).filter(|pair| pair[0] == pair[1]).count(),
    );
    assert!(
        missing.is_empty() && twice == 0,
        "missing: {missing:?}; twice: {twice}"
    );
    // The nodes hold no documents that the cluster doesn't show.
    let mut on_nodes = 0;
    for shard in 0..3 {
        let stats = node(&cluster, shard).get("/stats").await.unwrap();
        let indexes = stats.at("/indexes").as_object().unwrap().values();
        on_nodes += indexes
            .map(|index| index["numberOfDocuments"].as_u64().unwrap())
            .sum::<u64>();
    }
    assert_eq!(on_nodes, all.len() as u64);
    for (uid, ids) in ["x", "y"].iter().zip(&held) {
        for id in ids.iter().step_by(13) {
            let path = format!("/indexes/{uid}/documents/{id}");
            assert_eq!(api.get(&path).await.unwrap().status, 200, "{path}");
        }
    }
}
