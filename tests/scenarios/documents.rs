//! Documents reach the right shards, and are not changed on the way.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::Cluster;

use crate::support::{documents, ids, node, start};

#[tokio::test]
async fn shards_hold_equal_disjoint_parts_whose_union_is_everything() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    let accepted = api
        .post(
            "/indexes/things/documents?primaryKey=id",
            &documents(0..10_000),
        )
        .await
        .unwrap();
    let task = api.succeed(&accepted).await.unwrap();
    assert_eq!(
        task["details"],
        json!({"receivedDocuments": 10_000, "indexedDocuments": 10_000})
    );
    let mut union = BTreeSet::new();
    for shard in 0..3 {
        let part = ids(&node(&cluster, shard), "things").await;
        assert!(
            (3_167..=3_500).contains(&part.len()),
            "shard {shard} holds {} of 10,000",
            part.len()
        );
        for id in part {
            assert!(union.insert(id), "{id} is on two shards");
        }
    }
    assert!(union.into_iter().eq(0..10_000));
    let stats = api.get("/indexes/things/stats").await.unwrap();
    assert_eq!(stats.at("/numberOfDocuments"), 10_000);
}

#[tokio::test]
async fn forty_two_as_a_number_and_as_a_string_is_one_document() {
    for filter in [true, false] {
        let (_cluster, api) = start(Cluster::builder().shards(3).filter(filter)).await;
        let accepted = api
            .post(
                "/indexes/x/documents",
                &json!([{"id": 42, "v": 1}, {"id": 7, "v": 1}]),
            )
            .await
            .unwrap();
        api.succeed(&accepted).await.unwrap();
        let accepted = api
            .post("/indexes/x/documents", &json!({"id": "42", "v": 2}))
            .await
            .unwrap();
        api.succeed(&accepted).await.unwrap();
        let found = api.get("/indexes/x/documents/42").await.unwrap();
        assert_eq!(found.body, json!({"id": "42", "v": 2}));
        assert_eq!(
            api.get("/indexes/x/stats")
                .await
                .unwrap()
                .at("/numberOfDocuments"),
            2
        );
    }
}

/// Bodies of about `kib` KiB each arrive unchanged, however Envoy and the filter pass them on.
#[tokio::test]
async fn bodies_of_every_size_arrive_unchanged_chunked_or_not() {
    for body_routing in [true, false] {
        let (_cluster, api) = start(Cluster::builder().shards(3).body_routing(body_routing)).await;
        let accepted = api
            .post("/indexes", &json!({"uid": "big", "primaryKey": "id"}))
            .await
            .unwrap();
        api.succeed(&accepted).await.unwrap();
        let mut id = 0;
        for kib in [1_usize, 16, 64, 1_600] {
            for chunked in [false, true] {
                id += 1;
                let text: String = (0..kib * 1024)
                    .map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap()))
                    .collect();
                let document = json!({"id": id, "text": text});
                let bytes = document.to_string().into_bytes();
                let body = if chunked {
                    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = bytes
                        .chunks(7_001)
                        .map(|piece| Ok(piece.to_vec()))
                        .collect();
                    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
                } else {
                    reqwest::Body::from(bytes)
                };
                let headers = [("content-type", "application/json")];
                let accepted = api
                    .send(Method::POST, "/indexes/big/documents", &headers, body)
                    .await
                    .unwrap();
                assert_eq!(
                    accepted.status, 202,
                    "{kib} KiB, chunked {chunked}: {}",
                    accepted.text
                );
                api.succeed(&accepted).await.unwrap();
                let found = api
                    .get(&format!("/indexes/big/documents/{id}"))
                    .await
                    .unwrap();
                assert_eq!(
                    found.body, document,
                    "{kib} KiB, chunked {chunked}, body routing {body_routing}"
                );
            }
        }
    }
}

#[tokio::test]
async fn documents_in_every_format_are_stored() {
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    let forms: [(&str, &str, &str); 4] = [
        (
            "application/json",
            "",
            "[{\"id\":1,\"v\":\"a\"},{\"id\":2,\"v\":\"b\"}]",
        ),
        ("application/json", "", "{\"id\":3,\"v\":\"c\"}"),
        (
            "application/x-ndjson",
            "",
            "{\"id\":4,\"v\":\"d\"}\n{\"id\":5,\"v\":\"e\"}\n",
        ),
        (
            "text/csv",
            "?csvDelimiter=;",
            "id:number;v\n6;f\n7;\"g;g\"\n",
        ),
    ];
    for (content_type, query, body) in forms {
        let path = format!("/indexes/forms/documents{query}");
        let accepted = api
            .send(Method::POST, &path, &[("content-type", content_type)], body)
            .await
            .unwrap();
        assert_eq!(accepted.status, 202, "{content_type}: {}", accepted.text);
        api.succeed(&accepted).await.unwrap();
    }
    assert_eq!(ids(&api, "forms").await, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(
        api.get("/indexes/forms/documents/7")
            .await
            .unwrap()
            .at("/v"),
        "g;g"
    );
}

#[tokio::test]
async fn a_batch_with_one_bad_document_writes_nothing_and_names_the_document() {
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    let accepted = api
        .post("/indexes/x/documents?primaryKey=id", &documents(0..10))
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    let mut batch = documents(10..200);
    batch.as_array_mut().unwrap().push(json!({"id": "a b"}));
    let accepted = api.post("/indexes/x/documents", &batch).await.unwrap();
    let task = api.settle(&accepted).await.unwrap();
    assert_eq!(task["status"], "failed");
    assert_eq!(task["error"]["code"], "invalid_document_id");
    assert!(
        task["error"]["message"].as_str().unwrap().contains("a b"),
        "{task}"
    );
    assert_eq!(
        task["details"],
        json!({"receivedDocuments": 191, "indexedDocuments": 0})
    );
    assert!(ids(&api, "x").await.into_iter().eq(0..10));
}

#[tokio::test]
async fn deletes_reach_every_shard() {
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    let accepted = api
        .post("/indexes/x/documents?primaryKey=id", &documents(0..100))
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    let accepted = api
        .json(
            Method::PUT,
            "/indexes/x/settings/filterable-attributes",
            &json!(["group"]),
        )
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    let steps: [(Method, &str, Value); 3] = [
        (Method::DELETE, "/indexes/x/documents/99", Value::Null),
        (
            Method::POST,
            "/indexes/x/documents/delete-batch",
            json!([0, 1, 2, "3", 4_000]),
        ),
        (
            Method::POST,
            "/indexes/x/documents/delete",
            json!({"filter": "group = 9"}),
        ),
    ];
    for (method, path, body) in steps {
        let accepted = if body.is_null() {
            api.delete(path).await.unwrap()
        } else {
            api.json(method, path, &body).await.unwrap()
        };
        api.succeed(&accepted).await.unwrap();
    }
    let left: Vec<u64> = (4..99).filter(|id| id % 10 != 9).collect();
    assert_eq!(ids(&api, "x").await, left);
    let accepted = api.delete("/indexes/x/documents").await.unwrap();
    let task = api.succeed(&accepted).await.unwrap();
    assert_eq!(task["details"], json!({"deletedDocuments": left.len()}));
    assert_eq!(ids(&api, "x").await, [0_u64; 0]);
}

/// `[{"id":0},…]` of at least this many bytes.
fn array_of(bytes: usize) -> Vec<u8> {
    let mut body = b"[".to_vec();
    for id in 0.. {
        body.extend(format!("{{\"id\":{id}}}").bytes());
        if body.len() >= bytes {
            break;
        }
        body.push(b',');
    }
    body.push(b']');
    body
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_meilisearchs_error() {
    for filter in [true, false] {
        let builder = Cluster::builder()
            .shards(3)
            .filter(filter)
            .merger_env("WEFT_MAX_IMPORT_BYTES", "200000")
            .merger_env("WEFT_MAX_BODY_BYTES", "100000");
        let (_cluster, api) = start(builder).await;
        let accepted = api
            .post("/indexes", &json!({"uid": "x", "primaryKey": "id"}))
            .await
            .unwrap();
        api.succeed(&accepted).await.unwrap();
        let headers = [("content-type", "application/json")];
        for bytes in [200_100, 3_000_000] {
            for chunked in [false, true] {
                let body = array_of(bytes);
                let body = if chunked {
                    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = body
                        .chunks(50_000)
                        .map(|piece| Ok(piece.to_vec()))
                        .collect();
                    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
                } else {
                    reqwest::Body::from(body)
                };
                let refused = api
                    .send(Method::POST, "/indexes/x/documents", &headers, body)
                    .await
                    .unwrap();
                assert_eq!(refused.status, 413, "{bytes}, chunked {chunked}");
                assert_eq!(
                    refused.body,
                    json!({
                        "message": "The provided payload reached the size limit. The maximum accepted payload size is 200 KB.",
                        "code": "payload_too_large",
                        "type": "invalid_request",
                        "link": "https://docs.meilisearch.com/errors#payload_too_large"
                    })
                );
            }
        }
        let search = json!({"q": "x".repeat(150_000)});
        let refused = api.post("/indexes/x/search", &search).await.unwrap();
        assert_eq!(
            (refused.status, refused.at("/code").as_str()),
            (413, Some("payload_too_large"))
        );
        assert_eq!(ids(&api, "x").await, [0_u64; 0]);
        // A body within the limit is still accepted.
        let accepted = api
            .send(
                Method::POST,
                "/indexes/x/documents",
                &headers,
                array_of(199_000),
            )
            .await
            .unwrap();
        api.succeed(&accepted).await.unwrap();
    }
}
