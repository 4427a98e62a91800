//! A shard without a running node: the errors of requests that need it name it, and all other requests work.

use std::time::Duration;

use serde_json::json;
use weft_cluster::{Cluster, Deadline, until};

use crate::support::{documents, ids, start};

#[tokio::test]
async fn a_shard_that_is_gone_is_named_and_comes_back() {
    for filter in [true, false] {
        let (cluster, api) = start(Cluster::builder().shards(3).filter(filter)).await;
        api.succeed(
            &api.post("/indexes/x/documents?primaryKey=id", &documents(0..60))
                .await
                .unwrap(),
        )
        .await
        .unwrap();
        cluster.node(1, 0).kill().unwrap();

        let search = api
            .post("/indexes/x/search", &json!({"q": "amber"}))
            .await
            .unwrap();
        assert_eq!(search.status, 503, "{}", search.text);
        assert!(
            search.at("/message").as_str().unwrap().contains("shard-1"),
            "{}",
            search.text
        );
        for field in ["message", "code", "type", "link"] {
            assert!(
                search.body[field].is_string(),
                "{field} is missing: {}",
                search.text
            );
        }
        // If the node has answered a moment ago, the merger doesn't check it again: then the write is accepted, and its task
        // names the shard.
        until(
            "a write that is refused",
            Deadline::after(Duration::from_secs(10)),
            || async {
                let write = api
                    .post("/indexes/x/documents", &documents(100..200))
                    .await
                    .map_err(|error| error.to_string())?;
                if write.status == 202 {
                    let task = api
                        .settle(&write)
                        .await
                        .map_err(|error| error.to_string())?;
                    assert_eq!(task["status"], "failed", "{task}");
                    assert!(
                        task["error"]["message"]
                            .as_str()
                            .unwrap()
                            .contains("shard-1"),
                        "{task}"
                    );
                    return Err(task.to_string());
                }
                assert_eq!(write.status, 503, "{}", write.text);
                assert!(
                    write.at("/message").as_str().unwrap().contains("shard-1"),
                    "{}",
                    write.text
                );
                Ok(())
            },
        )
        .await
        .unwrap();
        assert_eq!(api.get("/health").await.unwrap().status, 200);
        assert_eq!(api.get("/tasks?limit=1").await.unwrap().status, 200);
        let mut answered = 0;
        for id in 0..60 {
            match api
                .get(&format!("/indexes/x/documents/{id}"))
                .await
                .unwrap()
                .status
            {
                200 => answered += 1,
                status => assert_eq!(status, 503),
            }
        }
        assert!(
            (20..60).contains(&answered),
            "{answered} of 60 documents lie on the other two shards"
        );

        cluster.node(1, 0).restart().unwrap();
        until(
            "searches over all shards again",
            Deadline::after(Duration::from_secs(20)),
            || async {
                let search = api
                    .post("/indexes/x/search", &json!({"q": "", "limit": 100}))
                    .await
                    .map_err(|error| error.to_string())?;
                if search.status == 200 {
                    Ok(())
                } else {
                    Err(search.text)
                }
            },
        )
        .await
        .unwrap();
        // Sending the write again completes it, whether it was refused or half done.
        api.succeed(
            &api.post("/indexes/x/documents", &documents(100..200))
                .await
                .unwrap(),
        )
        .await
        .unwrap();
        assert_eq!(
            api.get("/indexes/x/stats")
                .await
                .unwrap()
                .at("/numberOfDocuments"),
            160
        );
    }
}

#[tokio::test]
async fn a_merger_killed_at_any_moment_loses_no_task_and_gives_no_uid_twice() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    let mut uids = std::collections::BTreeSet::new();
    for round in 0..5_u64 {
        for n in 0..4 {
            let from = round * 100 + n * 10;
            let accepted = api
                .post(
                    "/indexes/x/documents?primaryKey=id",
                    &documents(from..from + 10),
                )
                .await
                .unwrap();
            assert_eq!(accepted.status, 202, "{}", accepted.text);
            assert!(
                uids.insert(accepted.at("/taskUid").as_u64().unwrap()),
                "{} was given before",
                accepted.text
            );
        }
        cluster.merger().kill().unwrap();
        cluster.merger().restart().unwrap();
        cluster.wait_ready().await.unwrap();
        until(
            "Weft's answer",
            Deadline::after(Duration::from_secs(20)),
            || async {
                let tasks = api
                    .get("/tasks?limit=1")
                    .await
                    .map_err(|error| error.to_string())?;
                if tasks.status == 200 {
                    Ok(())
                } else {
                    Err(tasks.text)
                }
            },
        )
        .await
        .unwrap();
    }
    for uid in &uids {
        until(
            "the task's end",
            Deadline::after(Duration::from_secs(30)),
            || async {
                let task = api
                    .get(&format!("/tasks/{uid}"))
                    .await
                    .map_err(|error| error.to_string())?;
                if task.at("/status") == "succeeded" {
                    Ok(())
                } else {
                    Err(task.text)
                }
            },
        )
        .await
        .unwrap();
    }
    assert_eq!(
        api.get("/indexes/x/stats")
            .await
            .unwrap()
            .at("/numberOfDocuments"),
        200
    );
}

#[tokio::test]
async fn a_merger_whose_disk_was_full_continues_when_there_is_room() {
    let (cluster, api) = start(Cluster::builder().shards(2)).await;
    let path = "/indexes/x/documents?primaryKey=id";
    let first = api.post(path, &documents(0..60)).await.unwrap();
    api.succeed(&first).await.unwrap();
    for round in 1..3_u64 {
        cluster.merger().limit_file_size(Some(4 << 10)).unwrap();
        let range = round * 60..(round + 1) * 60;
        let refused = api.post(path, &documents(range.clone())).await.unwrap();
        assert_eq!(refused.status, 500, "{}", refused.text);
        let message = refused.at("/message").as_str().unwrap();
        assert!(message.contains("own store failed"), "{message}");
        // Searches need no store.
        let search = json!({"q": "amber"});
        for _ in 0..10 {
            let found = api.post("/indexes/x/search", &search).await.unwrap();
            assert_eq!(found.status, 200, "{}", found.text);
        }
        cluster.merger().limit_file_size(None).unwrap();
        let what = "a write that is accepted again";
        until(what, Deadline::after(Duration::from_secs(20)), || async {
            let write = api.post(path, &documents(range.clone())).await;
            let write = write.map_err(|error| error.to_string())?;
            match write.status {
                202 => api.succeed(&write).await.map(drop),
                _ => return Err(write.text),
            }
            .map_err(|error| error.to_string())
        })
        .await
        .unwrap();
        assert!(ids(&api, "x").await.into_iter().eq(0..(round + 1) * 60));
        // The task from before still exists.
        let task = api.settle(&first).await.unwrap();
        assert_eq!(task["status"], "succeeded", "{task}");
    }
    cluster.merger().check_alive().unwrap();
}
