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
