//! What an index by field refuses: documents that belong nowhere, and what would need to know where each document is.

use reqwest::Method;
use serde_json::json;
use weft_cluster::Cluster;

use super::{JSON, by_tenant, create, document, held};
use crate::strategies::write;
use crate::support::start;

#[tokio::test]
async fn a_batch_with_a_document_that_belongs_nowhere_fails_as_a_whole_and_says_why() {
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    create(&api, "x", Some(&by_tenant(3))).await;
    let path = "/indexes/x/documents";
    let first = json!([document(1, &json!("acme")), document(2, &json!("dune"))]);
    write(&api, Method::POST, path, JSON, &first.to_string()).await;
    let good = document(3, &json!("ember"));
    let lines = format!(
        "{good}\n{}",
        r#"{"id": 4, "tenant": "acme", "tenant": "dune"}"#
    );
    let cases = [
        (
            Method::POST,
            JSON,
            json!([good, {"id": 4}]).to_string(),
            "missing_sharding_field",
            "Document `4` doesn't have a `tenant`",
        ),
        (
            Method::POST,
            JSON,
            json!([good, {"id": 4, "tenant": null}]).to_string(),
            "invalid_sharding_field",
            "neither an integer nor a string",
        ),
        (
            Method::POST,
            JSON,
            json!([good, {"id": 4, "tenant": ["acme"]}]).to_string(),
            "invalid_sharding_field",
            "neither",
        ),
        (
            Method::POST,
            JSON,
            json!([good, {"id": 4, "tenant": 1.5}]).to_string(),
            "invalid_sharding_field",
            "not an integer",
        ),
        (
            Method::POST,
            JSON,
            json!([good, {"id": 4, "tenant": " "}]).to_string(),
            "invalid_sharding_field",
            "empty",
        ),
        (
            Method::POST,
            "application/x-ndjson",
            lines,
            "invalid_sharding_field",
            "twice",
        ),
        (
            Method::POST,
            "text/csv",
            "id,tenant\n3,ember\n4,\n".to_owned(),
            "invalid_sharding_field",
            "neither",
        ),
        (
            Method::POST,
            "text/csv",
            "id,name\n3,ember\n".to_owned(),
            "missing_sharding_field",
            "Document `3`",
        ),
        (
            Method::PUT,
            JSON,
            json!([good, {"id": 4, "name": "x"}]).to_string(),
            "missing_sharding_field",
            "Document `4`",
        ),
        (
            Method::PUT,
            JSON,
            json!([good, {"id": 1, "tenant": "dune"}]).to_string(),
            "invalid_sharding_field",
            "belongs to `acme`: an update can't change its `tenant` to `dune`",
        ),
        (
            Method::PUT,
            JSON,
            json!([{"id": 4, "tenant": "a"}, {"id": 4, "tenant": "b"}]).to_string(),
            "invalid_sharding_field",
            "belongs to `a`",
        ),
    ];
    for (method, kind, body, code, words) in cases {
        let headers = [("content-type", kind)];
        let reply = api
            .send(method, path, &headers, body.clone().into_bytes())
            .await
            .unwrap();
        let task = api.settle(&reply).await.unwrap();
        assert_eq!(task["status"], "failed", "{body}: {task}");
        assert_eq!(task["error"]["code"], code, "{body}: {task}");
        let message = task["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{body}: {message}");
        assert_eq!(task["details"]["indexedDocuments"], 0, "{body}: {task}");
    }
    let left = held(&api, "x").await;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(left["1"]["tenant"], "acme");
}

#[tokio::test]
async fn what_an_index_by_field_cannot_do_is_refused() {
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    create(&api, "x", Some(&by_tenant(2))).await;
    let added = json!([document(1, &json!("acme"))]).to_string();
    write(&api, Method::POST, "/indexes/x/documents", JSON, &added).await;
    let shards = api.get("/indexes/x/_shards").await.unwrap();
    assert_eq!(shards.at("/strategy"), "field", "{}", shards.text);
    assert_eq!(shards.at("/field"), "tenant", "{}", shards.text);
    for (method, path, body, words) in [
        (
            Method::PATCH,
            "/indexes/x",
            json!({"sharding": {"field": "owner"}}),
            "goes with the strategy",
        ),
        (
            Method::POST,
            "/indexes/x/documents/edit",
            json!({"function": "doc.tenant = 1"}),
            "can't be edited by function",
        ),
        (
            Method::POST,
            "/indexes/x/documents?skipCreation=true",
            json!([]),
            "only `PUT`",
        ),
    ] {
        let refused = api.json(method, path, &body).await.unwrap();
        assert_eq!(refused.status, 400, "{path}: {}", refused.text);
        assert!(refused.text.contains(words), "{path}: {}", refused.text);
    }
    let plan = api
        .post("/_cluster/rebalance", &json!({"dryRun": true}))
        .await
        .unwrap();
    assert_eq!(plan.at("/plan"), &json!([]), "{}", plan.text);
}
