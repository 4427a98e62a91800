//! Writes by one client to the same document are applied in the order in which it sent them, whatever way each takes; and
//! a write that goes together with others has a verdict of its own.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Map, Value, json};
use weft_cluster::{Api, Cluster, POISON, Reply, StandInCluster};

use crate::support::start;

const DOCUMENTS: u64 = 5;
const WRITES: u64 = 150;
/// Larger than what the filter looks into, and than what goes together.
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

/// Another seed tries other writes: `WEFT_FUZZ_SEED=7`.
#[tokio::test]
async fn writes_to_a_document_are_applied_in_the_order_in_which_they_were_sent() {
    let seed = std::env::var("WEFT_FUZZ_SEED").map_or(77, |seed| seed.parse().unwrap());
    println!("WEFT_FUZZ_SEED={seed}");
    for direct in ["true", "false"] {
        let builder = Cluster::builder()
            .shards(2)
            .merger_env("WEFT_DIRECT_WRITES", direct);
        let (_cluster, api) = start(builder).await;
        // Several clients, each with an index of its own, so that there is something to go together.
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
            // The last task of one shard has ended; the other shard's may not have.
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

/// The documents of an index, once none of its tasks is under way.
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

/// A shard to which small writes of 200 ms go together, with the index `x`.
async fn together() -> (StandInCluster, Api) {
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
    let (cluster, api) = together().await;
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
    // At least one of them held several writes, and was taken apart.
    assert!(posts.count() > 40, "nothing went together");
}

#[tokio::test]
async fn a_write_that_failed_with_others_is_not_repeated_over_a_newer_one() {
    let (cluster, api) = together().await;
    let node = &cluster.nodes[0];
    let path = "/indexes/x/documents";
    node.be_idle(true);
    let write = |id: u64, text: &str| {
        let document = json!({"id": id, "text": text});
        let api = api.clone();
        async move {
            let accepted = api.post(path, &document).await.unwrap();
            assert_eq!(accepted.status, 202, "{}", accepted.text);
            accepted
        }
    };
    // The lengths tell them apart at the node.
    let (old, other) = ("old", "another document's text");
    let together = join_all([write(1, old), write(2, other), write(17, POISON)]).await;
    let posts = || {
        let seen = node.take_seen();
        let posts = seen.into_iter().filter(|seen| seen.method == Method::POST);
        posts.map(|seen| seen.body_bytes).collect::<Vec<u64>>()
    };
    assert_eq!(posts().len(), 1, "they did not go together");
    let newer = write(1, "newer").await;
    posts();
    node.be_idle(false);
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
