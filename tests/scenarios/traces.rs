//! The trace headers of a request reach every node that works on it, whichever way the request takes.

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Seen, StandInCluster};

const ID: &str = "a-request-id-of-the-client";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const STATE: &str = "vendor=value";

/// Documents that are spread over all three shards.
fn many() -> Value {
    (0..60).map(|id| json!({"id": id})).collect()
}

#[tokio::test]
async fn a_trace_reaches_the_nodes_of_routed_fanned_out_and_split_requests() {
    for filter in [true, false] {
        let cluster = StandInCluster::start(3, filter, Vec::new()).await.unwrap();
        let api = Api::new(cluster.url(), None);
        api.succeed(
            &api.post("/indexes/x/documents?primaryKey=id", &many())
                .await
                .unwrap(),
        )
        .await
        .unwrap();
        let seen =
            || -> Vec<Vec<Seen>> { cluster.nodes.iter().map(|node| node.take_seen()).collect() };
        // Method, path, body, and how many nodes must receive the request itself, not counting further requests of the merger.
        let requests = [
            (Method::GET, "/indexes/x/documents/7", Value::Null, 1),
            (Method::POST, "/indexes/x/documents", json!([{"id": 7}]), 1),
            (Method::POST, "/indexes/x/documents", many(), 3),
            (Method::DELETE, "/indexes/x/documents/7", Value::Null, 1),
            (Method::POST, "/indexes/x/search", json!({"q": "a"}), 3),
            (
                Method::PATCH,
                "/indexes/x/settings",
                json!({"stopWords": ["a"]}),
                3,
            ),
        ];
        for (method, path, body, at) in requests {
            seen();
            let mut headers = vec![
                ("x-request-id", ID),
                ("traceparent", PARENT),
                ("tracestate", STATE),
            ];
            let mut bytes = Vec::new();
            if !body.is_null() {
                headers.push(("content-type", "application/json"));
                bytes = body.to_string().into_bytes();
            }
            let reply = api
                .send(method.clone(), path, &headers, bytes)
                .await
                .unwrap();
            assert!(reply.status < 300, "{path}: {}", reply.text);
            let what = format!("{method} {path}, filter {filter}");
            let place = path.split('?').next().unwrap();
            let traced = seen()
                .iter()
                .filter(|node| {
                    let mut own = node
                        .iter()
                        .filter(|seen| seen.method == method && seen.path.starts_with(place));
                    own.any(|seen| {
                        let value =
                            |name: &str| seen.headers.get(name).map(|value| value.as_bytes());
                        assert_eq!(value("x-request-id"), Some(ID.as_bytes()), "{what}");
                        assert_eq!(value("traceparent"), Some(PARENT.as_bytes()), "{what}");
                        assert_eq!(value("tracestate"), Some(STATE.as_bytes()), "{what}");
                        true
                    })
                })
                .count();
            assert_eq!(traced, at, "{what}");
        }
        // A request without an id gets one, the same at every node.
        seen();
        api.post("/indexes/x/search", &json!({"q": "b"}))
            .await
            .unwrap();
        let ids: Vec<_> = seen()
            .iter()
            .flatten()
            .filter(|seen| seen.path.ends_with("/search"))
            .map(|seen| seen.headers.get("x-request-id").cloned())
            .collect();
        assert_eq!(ids.len(), 3);
        assert!(
            ids[0].is_some() && ids.iter().all(|id| *id == ids[0]),
            "{ids:?}"
        );
    }
}
