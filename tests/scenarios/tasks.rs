//! The list of tasks, compared with a node's; and tasks that concern all shards.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, Single, until};

use crate::support::{MASTER_KEY, documents, ids, node, start};

/// Some tasks of several kinds: two that succeed, one that fails, one about another index.
async fn work(api: &Api) {
    for (path, body) in [
        ("/indexes/a/documents?primaryKey=id", documents(0..30)),
        (
            "/indexes/a/documents?primaryKey=id",
            json!([{"id": "no id at all"}]),
        ),
        ("/indexes/b/documents?primaryKey=id", documents(0..3)),
        ("/indexes", json!({"uid": "a"})),
    ] {
        let accepted = api.post(path, &body).await.unwrap();
        api.settle(&accepted).await.unwrap();
    }
    for path in ["/indexes/a/documents/7", "/indexes/b"] {
        let accepted = api.delete(path).await.unwrap();
        api.settle(&accepted).await.unwrap();
    }
}

/// A list of tasks without what may differ: times and batches.
fn comparable(list: &Value) -> Value {
    let mut list = list.clone();
    for task in list["results"].as_array_mut().into_iter().flatten() {
        let fields = task.as_object_mut().unwrap();
        for volatile in [
            "duration",
            "enqueuedAt",
            "startedAt",
            "finishedAt",
            "batchUid",
            "progress",
            "stats",
            "batchStrategy",
        ] {
            fields.remove(volatile);
        }
    }
    list
}

#[tokio::test]
async fn every_filter_page_and_order_of_the_list_is_as_on_a_node() {
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let one = Api::new(single.url(), Some(MASTER_KEY));
    let (_cluster, many) = start(Cluster::builder().shards(3)).await;
    work(&one).await;
    work(&many).await;
    for query in [
        "",
        "?limit=2",
        "?limit=2&from=3",
        "?reverse=true&limit=3",
        "?reverse=true&from=2",
        "?limit=0",
        "?uids=0,2,99",
        "?statuses=failed",
        "?statuses=succeeded,canceled&types=indexDeletion",
        "?types=documentAdditionOrUpdate&indexUids=b",
        "?indexUids=a,nothing",
        "?indexUids=*&statuses=*",
        "?canceledBy=1",
        "?afterEnqueuedAt=2020-01-01&beforeEnqueuedAt=2100-01-01T00:00:00Z",
        "?beforeStartedAt=2020-01-01",
        "?afterFinishedAt=2100-01-01",
        "?statuses=nonsense",
        "?types=nonsense",
        "?uids=x",
        "?limit=x",
        "?reverse=maybe",
        "?beforeEnqueuedAt=yesterday",
        "?nonsense=1",
    ] {
        let path = format!("/tasks{query}");
        let (expected, found) = (
            one.get(&path).await.unwrap(),
            many.get(&path).await.unwrap(),
        );
        assert_eq!(found.status, expected.status, "{path}: {}", found.text);
        assert_eq!(
            comparable(&found.body),
            comparable(&expected.body),
            "{path}"
        );
    }
}

#[tokio::test]
async fn deleted_tasks_are_deleted_on_the_nodes_too() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    work(&api).await;
    let refused = api.delete("/tasks").await.unwrap();
    assert_eq!(
        (refused.status, refused.at("/code").as_str()),
        (400, Some("missing_task_filters"))
    );
    let accepted = api
        .delete("/tasks?statuses=succeeded,failed")
        .await
        .unwrap();
    let task = api.succeed(&accepted).await.unwrap();
    assert_eq!(
        task["details"],
        json!({"matchedTasks": 6, "deletedTasks": 6, "originalFilter": "?statuses=succeeded,failed"})
    );
    let left = api.get("/tasks").await.unwrap();
    assert_eq!(left.at("/total"), 1, "{}", left.text);
    for shard in 0..3 {
        weft_cluster::until(
            "the node's deletion",
            weft_cluster::Deadline::after(std::time::Duration::from_secs(15)),
            || async {
                let list = node(&cluster, shard)
                    .get("/tasks?types=documentAdditionOrUpdate,documentDeletion,indexCreation")
                    .await;
                let list = list.map_err(|error| error.line())?;
                if list.at("/total") == 0 {
                    Ok(())
                } else {
                    Err(list.text)
                }
            },
        )
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn dumps_and_snapshots_are_one_task_that_lists_what_was_written_where() {
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    work(&api).await;
    let accepted = api.post("/dumps", &Value::Null).await.unwrap();
    if accepted.status == 501 {
        // The embedded node writes none, and says so.
        assert!(!accepted.text.contains("Weft"), "{}", accepted.text);
        return;
    }
    let task = api.settle(&accepted).await.unwrap();
    if task["status"] == "succeeded" {
        let shards = task["details"]["shards"].as_array().unwrap();
        assert_eq!(shards.len(), 3, "{task}");
        for (number, shard) in shards.iter().enumerate() {
            assert_eq!(shard["shard"], number);
            assert!(
                shard["node"].is_string() && shard["dumpUid"].is_string(),
                "{task}"
            );
        }
    }
    let accepted = api.post("/snapshots", &Value::Null).await.unwrap();
    let task = api.settle(&accepted).await.unwrap();
    assert_eq!(
        task["details"]["shards"].as_array().map(Vec::len),
        Some(3),
        "{task}"
    );
}

#[tokio::test]
async fn an_export_sends_the_documents_of_every_shard_and_counts_them() {
    let target = Single::start(None).await.unwrap();
    let target = Api::new(target.url(), None);
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    work(&api).await;
    let asked = json!({"url": target.base(), "indexes": {"a": {"overrideSettings": true}}});
    let accepted = api.post("/export", &asked).await.unwrap();
    if accepted.status == 501 {
        // The embedded node exports nothing, and says so.
        assert!(!accepted.text.contains("Weft"), "{}", accepted.text);
        return;
    }
    let task = api.settle(&accepted).await.unwrap();
    assert_eq!(task["type"], "export");
    assert_eq!(task["status"], "succeeded", "{task}");
    let counted = &task["details"]["indexes"]["a"];
    assert_eq!(counted["matched_documents"], 29, "{task}");
    let deadline = Deadline::after(Duration::from_secs(30));
    until("all exported documents", deadline, || async {
        let stats = target.get("/indexes/a/stats").await;
        let stats = stats.map_err(|error| error.line())?;
        match stats.at("/numberOfDocuments").as_u64() {
            Some(29) => Ok(()),
            _ => Err(stats.text),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_deletion_of_an_unfinished_task_waits_for_its_end() {
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    let accepted = api
        .post("/indexes/x/documents?primaryKey=id", &documents(0..5_000))
        .await
        .unwrap();
    let uid = accepted.at("/taskUid").as_u64().unwrap();
    let deletion = api.delete(&format!("/tasks?uids={uid}")).await.unwrap();
    assert_eq!(deletion.status, 200, "{}", deletion.text);
    let task = api.succeed(&deletion).await.unwrap();
    assert_eq!(
        task["details"],
        json!({"matchedTasks": 1, "deletedTasks": 1, "originalFilter": format!("?uids={uid}")})
    );
    assert_eq!(api.get(&format!("/tasks/{uid}")).await.unwrap().status, 404);
    assert_eq!(ids(&api, "x").await.len(), 5_000);
}

/// The names of an object's members.
fn names(value: &Value) -> BTreeSet<&str> {
    let members = value.as_object().unwrap();
    members.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_batch_has_the_members_that_it_has_on_a_node() {
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let one = Api::new(single.url(), Some(MASTER_KEY));
    let (_cluster, many) = start(Cluster::builder().shards(3)).await;
    let mut batches = Vec::new();
    for api in [&one, &many] {
        let path = "/indexes/a/documents?primaryKey=id";
        let accepted = api.post(path, &documents(0..30)).await.unwrap();
        let task = api.succeed(&accepted).await.unwrap();
        let path = format!("/batches/{}", task["batchUid"]);
        let batch = api.get(&path).await.unwrap();
        assert_eq!(batch.status, 200, "{}", batch.text);
        let listed = api.get("/batches?limit=1").await.unwrap();
        assert_eq!(listed.at("/results/0"), &batch.body);
        batches.push(batch.body);
    }
    let [one, many] = batches.as_slice() else {
        panic!("{batches:?}");
    };
    assert_eq!(names(&many["stats"]["progressTrace"]), BTreeSet::new());
    // A real node tells of its own disk, too.
    let own = ["internalDatabaseSizes", "writeChannelCongestion"];
    let stats = names(&one["stats"]);
    let stats: BTreeSet<&str> = stats
        .into_iter()
        .filter(|name| !own.contains(name))
        .collect();
    assert_eq!(names(&many["stats"]), stats);
    assert_eq!(names(many), names(one));
}

/// What the merger has counted so far.
async fn counted(cluster: &Cluster, name: &str) -> u64 {
    let metrics = Api::new(cluster.merger_url(), None)
        .get("/_weft/metrics")
        .await
        .unwrap();
    let mut lines = metrics.text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

/// Kills the merger, starts it again, and waits until it answers.
async fn killed_and_back(cluster: &Cluster, api: &Api) {
    cluster.merger().kill().unwrap();
    cluster.merger().restart().unwrap();
    cluster.wait_ready().await.unwrap();
    let deadline = Deadline::after(Duration::from_secs(20));
    until("Weft's answer", deadline, || async {
        let tasks = api.get("/tasks?limit=1").await;
        let tasks = tasks.map_err(|error| error.line())?;
        (tasks.status == 200).then_some(()).ok_or(tasks.text)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn small_writes_that_went_together_are_a_task_each_even_if_the_merger_is_killed() {
    const WRITES: u64 = 200;
    let (cluster, api) = start(Cluster::builder().shards(1)).await;
    let create = json!({"uid": "x", "primaryKey": "id"});
    api.succeed(&api.post("/indexes", &create).await.unwrap())
        .await
        .unwrap();
    let writes = (0..WRITES).map(|id| {
        let api = api.clone();
        async move {
            let path = format!("/indexes/x/documents?customMetadata=write-{id}");
            // Each names a document of its own, some of them twice.
            let body: Vec<Value> = (0..=id % 2).map(|n| json!({"id": id, "n": n})).collect();
            let accepted = api.post(&path, &json!(body)).await.unwrap();
            assert_eq!(accepted.status, 202, "{}", accepted.text);
            (id, accepted.at("/taskUid").as_u64().unwrap())
        }
    });
    let written = futures_util::future::join_all(writes).await;
    let uids: BTreeSet<u64> = written.iter().map(|(_, uid)| *uid).collect();
    assert_eq!(uids.len(), written.len(), "a uid was given twice");
    let groups = counted(&cluster, "weft_merger_small_write_groups_total").await;
    assert!(groups < WRITES / 2, "{WRITES} went as {groups}");
    killed_and_back(&cluster, &api).await;
    for (id, uid) in &written {
        let path = format!("/tasks/{uid}");
        until(
            "the task's end",
            Deadline::after(Duration::from_secs(60)),
            || async {
                let task = api.get(&path).await.map_err(|error| error.line())?;
                match task.at("/status").as_str() {
                    Some("succeeded") => Ok(()),
                    _ => Err(task.text),
                }
            },
        )
        .await
        .unwrap();
        let task = api.get(&path).await.unwrap();
        assert_eq!(task.at("/customMetadata"), &json!(format!("write-{id}")));
        let details = json!({"receivedDocuments": 1 + id % 2, "indexedDocuments": 1});
        assert_eq!(task.at("/details"), &details, "{uid}");
    }
    let total = async |query: &str| {
        let path = format!("/tasks?types=documentAdditionOrUpdate&indexUids=x&limit=0{query}");
        let listed = api.get(&path).await.unwrap();
        listed.at("/total").as_u64().unwrap()
    };
    assert_eq!(total("").await, WRITES);
    assert_eq!(total("&statuses=succeeded").await, WRITES);
    // Every other one is deleted; the rest is still there after a restart.
    let some: Vec<String> = uids.iter().step_by(2).map(u64::to_string).collect();
    let path = format!("/tasks?uids={}", some.join(","));
    let deletion = api.delete(&path).await.unwrap();
    let deleted = api.succeed(&deletion).await.unwrap();
    assert_eq!(deleted["details"]["deletedTasks"], WRITES / 2);
    for _ in 0..2 {
        assert_eq!(total("").await, WRITES / 2);
        for (place, uid) in uids.iter().enumerate() {
            let found = api.get(&format!("/tasks/{uid}")).await.unwrap();
            let wanted = if place % 2 == 0 { 404 } else { 200 };
            assert_eq!(found.status, wanted, "{uid}: {}", found.text);
        }
        killed_and_back(&cluster, &api).await;
    }
    assert_eq!(ids(&api, "x").await.len(), usize::try_from(WRITES).unwrap());
}
