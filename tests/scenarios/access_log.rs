//! What Envoy's access log says of a request: operation, index, way and shards, with the filter and without it; and that clients see
//! nothing of how it gets there.

use std::time::Duration;

use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, until};

use crate::support::{counter, documents, start};

/// The edge's line for the request with this id.
async fn line(cluster: &Cluster, id: &str) -> Value {
    let look = || async {
        let log = std::fs::read_to_string(cluster.envoy().log()).unwrap_or_default();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut lines = lines.filter(|line| line["listener"] == "edge");
        let found = lines.find(|line| line["request_id"] == id);
        found.ok_or_else(|| format!("no line for {id}"))
    };
    let deadline = Deadline::after(Duration::from_secs(20));
    until("a line of the access log", deadline, look)
        .await
        .unwrap()
}

/// Sends a request, and says what the log has of it: operation, index, way, shards.
async fn logged(
    (cluster, api): (&Cluster, &Api),
    (method, path, body): (&str, &str, Value),
    id: &str,
) -> [Value; 4] {
    let mut headers = vec![("x-request-id", id)];
    // A client can't ask for what is the log's.
    headers.push(("x-weft-log", "1"));
    let mut bytes = Vec::new();
    if !body.is_null() {
        headers.push(("content-type", "application/json"));
        bytes = body.to_string().into_bytes();
    }
    let reply = api
        .send(method.parse().unwrap(), path, &headers, bytes)
        .await
        .unwrap();
    assert!(reply.status < 300, "{path}: {}", reply.text);
    for name in ["x-weft-op", "x-weft-shards", "x-weft-remembered"] {
        assert!(
            !reply.headers.contains_key(name),
            "{path}: a client sees {name}"
        );
    }
    let line = line(cluster, id).await;
    ["weft_operation", "weft_index", "weft_way", "weft_shards"].map(|name| line[name].clone())
}

fn said(operation: &str, index: &str, way: &str, shards: Option<&str>) -> [Value; 4] {
    let index = if index.is_empty() {
        Value::Null
    } else {
        json!(index)
    };
    [json!(operation), index, json!(way), json!(shards)]
}

#[tokio::test]
async fn the_access_log_says_what_became_of_a_request_with_and_without_the_filter() {
    for filter in [true, false] {
        let builder = Cluster::builder()
            .shards(3)
            .filter(filter)
            .access_log("detailed");
        let (cluster, api) = start(builder).await;
        let way = (&cluster, &api);
        let tiny = json!({"uid": "tiny", "primaryKey": "id", "sharding": {"shardCount": 1}});
        api.succeed(&api.post("/indexes", &tiny).await.unwrap())
            .await
            .unwrap();
        for uid in ["tiny", "wide"] {
            let path = format!("/indexes/{uid}/documents?primaryKey=id");
            let added = api.post(&path, &documents(0..60)).await.unwrap();
            api.succeed(&added).await.unwrap();
        }
        if filter {
            let deadline = Deadline::after(Duration::from_secs(20));
            until("a read directly from a node", deadline, || async {
                api.get("/indexes/tiny/documents").await.unwrap();
                match counter(&cluster, &["weft_filter_requests_direct_read"]).await {
                    0 => Err("the filter sent nothing directly to a shard".to_owned()),
                    _ => Ok(()),
                }
            })
            .await
            .unwrap();
        }
        let all = Some("0,1,2");
        let search = ("POST", "/indexes/wide/search", json!({"q": "amber"}));
        let got = logged(way, search, "log-search").await;
        assert_eq!(
            got,
            said("search-post", "wide", "merged", all),
            "filter {filter}"
        );
        let write = ("POST", "/indexes/wide/documents", documents(100..160));
        let got = logged(way, write, "log-write").await;
        assert_eq!(
            got,
            said("replace-documents", "wide", "merged", all),
            "filter {filter}"
        );
        let small = ("POST", "/indexes/wide/documents", documents(7..8));
        let [operation, index, merged, shards] = logged(way, small, "log-small").await;
        assert_eq!(
            [operation, index, merged],
            said("replace-documents", "wide", "merged", None)[..3]
        );
        assert_eq!(shards.as_str().map(str::len), Some(1), "{shards}");
        let tasks = ("GET", "/tasks?limit=1", Value::Null);
        let got = logged(way, tasks, "log-tasks").await;
        assert_eq!(
            got,
            said("list-tasks", "", "merged", None),
            "filter {filter}"
        );

        // The only shard of a small index, with the filter without the merger.
        let one = ("GET", "/indexes/tiny/search?q=amber", Value::Null);
        let [operation, index, direct, shards] = logged(way, one, "log-tiny").await;
        let how = if filter { "direct" } else { "merged" };
        let expected = ["search-get", "tiny", how].map(Value::from);
        assert_eq!([operation, index, direct], expected);
        assert_eq!(shards.as_str().map(str::len), Some(1), "{shards}");

        // Asked again, the merger has the answer in memory, as soon as the last write has settled.
        let again = ("POST", "/indexes/wide/search", json!({"q": "ember"}));
        let mut asked = 0;
        let deadline = Deadline::after(Duration::from_secs(20));
        loop {
            let id = format!("log-again-{asked}");
            let got = logged(way, again.clone(), &id).await;
            let remembered = line(&cluster, &id).await["weft_remembered"].clone();
            if asked == 0 {
                assert_eq!(remembered, Value::Null, "filter {filter}");
            }
            if remembered == "true" {
                assert_eq!(got, said("search-post", "wide", "merged", None));
                break;
            }
            assert!(!deadline.passed(), "no answer was remembered");
            asked += 1;
        }
    }
}
