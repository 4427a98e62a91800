//! Filters register the writes that they sent directly to a node. A write that didn't happen can't be registered, because it would
//! make a node look as if it had lost its disk.

use std::time::Duration;

use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, until};

use crate::support::{documents, ids, node, start};

/// The newest task of a node.
async fn newest(node: &Api) -> Value {
    let tasks = node.get("/tasks?limit=1").await.unwrap();
    tasks.at("/results/0").clone()
}

async fn wait_until_green(api: &Api) {
    until(
        "green",
        Deadline::after(Duration::from_secs(30)),
        || async {
            let health = api.get("/_cluster/health").await;
            let health = health.map_err(|error| error.to_string())?;
            match health.at("/status") == "green" {
                true => Ok(()),
                false => {
                    let nodes = api.get("/_cluster/nodes").await;
                    Err(nodes.map_or(health.text, |nodes| nodes.text))
                }
            }
        },
    )
    .await
    .unwrap();
}

/// Checks that none of these is accepted, and that the shard and its tasks stay as they are, also after restarts of the merger.
async fn assert_refused(cluster: &Cluster, api: &Api, registrations: &[Value]) {
    let merger = Api::new(cluster.merger_url(), None);
    wait_until_green(api).await;
    let tasks = api.get("/tasks?limit=1").await.unwrap();
    for registration in registrations {
        let reply = merger.post("/_weft/register", registration).await.unwrap();
        assert_eq!(reply.status, 400, "{registration}: {}", reply.text);
        let message = reply.at("/message").as_str().unwrap_or_default();
        assert!(message.contains("can't be registered"), "{}", reply.text);
        let health = api.get("/_cluster/health").await.unwrap();
        let said = format!("{registration}: {}", health.text);
        assert_eq!(health.at("/status"), "green", "{said}");
    }
    let after = api.get("/tasks?limit=1").await.unwrap();
    assert_eq!(after.at("/results"), tasks.at("/results"));
    for id in [1_000, 1_001] {
        let body = documents(id..id + 1);
        let write = api.post("/indexes/x/documents", &body).await.unwrap();
        api.succeed(&write).await.unwrap();
        cluster.merger().terminate().unwrap();
        cluster.merger().restart().unwrap();
        cluster.wait_ready().await.unwrap();
        wait_until_green(api).await;
    }
    let held = ids(api, "x").await;
    assert_eq!(held, (0..10).chain(1_000..1_002).collect::<Vec<_>>());
}

/// Registrations of tasks that no node has, derived from `task`, which a node has.
fn wrong(task: &Value) -> Vec<Value> {
    let uid = task["uid"].as_u64().unwrap();
    let of = |uid: u64, index: &str, kind: &str| json!({"shard": 0, "taskUid": uid, "indexUid": index, "type": kind});
    vec![
        of(4_000_000_000, "x", "documentAdditionOrUpdate"),
        of(uid + 1, "x", "documentAdditionOrUpdate"),
        of(uid, "y", "documentAdditionOrUpdate"),
        of(uid, "x", "documentDeletion"),
        json!({"shard": 7, "taskUid": uid, "indexUid": "x", "type": "documentAdditionOrUpdate"}),
    ]
}

/// A cluster of one shard with ten documents, and the newest task of its node.
async fn with_ten_documents(direct: &str) -> (Cluster, Api, Value) {
    let builder = Cluster::builder().shards(1);
    let (cluster, api) = start(builder.merger_env("WEFT_DIRECT_WRITES", direct)).await;
    let path = "/indexes/x/documents?primaryKey=id";
    let write = api.post(path, &documents(0..10)).await.unwrap();
    api.succeed(&write).await.unwrap();
    let task = newest(&node(&cluster, 0)).await;
    assert_eq!(task["type"], "documentAdditionOrUpdate", "{task}");
    (cluster, api, task)
}

#[tokio::test]
async fn without_direct_writes_not_even_an_existing_task_can_be_registered() {
    let (cluster, api, task) = with_ten_documents("false").await;
    let mut registrations = wrong(&task);
    registrations.push(json!({
        "shard": 0, "taskUid": task["uid"], "indexUid": "x", "type": "documentAdditionOrUpdate",
    }));
    assert_refused(&cluster, &api, &registrations).await;
}

#[tokio::test]
async fn with_direct_writes_only_existing_tasks_can_be_registered() {
    let (cluster, api, task) = with_ten_documents("true").await;
    assert_refused(&cluster, &api, &wrong(&task)).await;
}
