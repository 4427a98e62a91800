//! Batches with a document that the engine refuses.

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Single};

use super::{batch, clear, judged_settings, one_node_and_three_shards, write};
use crate::support::{documents, ids, node, start};

/// Values of `_vectors`, valid and invalid.
const VECTORS: [&str; 46] = [
    r#""x""#,
    "null",
    "[1,2,3]",
    r#"{"m":null}"#,
    r#"{"m":"t"}"#,
    r#"{"m":[1,2]}"#,
    r#"{"m":[1,2,3,4]}"#,
    r#"{"m":[1,null,3]}"#,
    r#"{"m":[1,"a",3]}"#,
    r#"{"m":[null,1,2]}"#,
    r#"{"m":["a"]}"#,
    r#"{"m":[]}"#,
    r#"{"m":[[1,2,3],[1,2]]}"#,
    r#"{"m":[[1,2,3],4]}"#,
    r#"{"m":[[1,2,null]]}"#,
    r#"{"m":[1,[2,3]]}"#,
    r#"{"m":{}}"#,
    r#"{"m":{"regenerate":true}}"#,
    r#"{"m":{"regenerate":false}}"#,
    r#"{"m":{"regenerate":"yes"}}"#,
    r#"{"m":{"regenerate":null}}"#,
    r#"{"m":{"regenerate":true,"embeddings":[1,2,3]}}"#,
    r#"{"m":{"regenerate":true,"embeddings":[1,2]}}"#,
    r#"{"m":{"regenerate":true,"embeddings":null}}"#,
    r#"{"m":{"regenerate":false,"embeddings":null}}"#,
    r#"{"m":{"regenerate":false,"embeddings":"x"}}"#,
    r#"{"m":{"regenerate":false,"embeddings":[[1,2,3],"x"]}}"#,
    r#"{"m":{"embeddings":[1,2,3]}}"#,
    r#"{"m":{"regenerate":false,"foo":1}}"#,
    r#"{"m":{"foo":1}}"#,
    r#"{"m":5}"#,
    r#"{"m":-5}"#,
    r#"{"m":1.5}"#,
    r#"{"m":true}"#,
    r#"{"other":[1,2,3]}"#,
    r#"{"other":"x","m":[1,2,3]}"#,
    r#"{"mm":[1,2,3]}"#,
    r#"{}"#,
    r#"{"m":[true,1]}"#,
    r#"{"m":[1.5,-2,3]}"#,
    r#"{"m":[[],[1,2,3]]}"#,
    r#"{"m":[[[1]]]}"#,
    r#"{"m":{"regenerate":false,"embeddings":[1,2,3],"regenerate":true}}"#,
    r#"{"m":{"regener\u0061te":true}}"#,
    r#"{"m":[1,2,3],"m":[1]}"#,
    r#"{"m":[ 1 , 2 ]}"#,
];

/// Values of `_geo`, valid and invalid.
const PLACES: [&str; 22] = [
    "null",
    "5",
    r#""48,2""#,
    "[1,2]",
    "{}",
    r#"{"lat":3}"#,
    r#"{"lng":3}"#,
    r#"{"lat":1,"lng":2}"#,
    r#"{"lat":1,"lng":2,"x":3,"y":{"a":1}}"#,
    r#"{"x":3,"lat":1,"y":[],"lng":2,"z":0}"#,
    r#"{"lat":"1.5","lng":"2"}"#,
    r#"{"lat":"a","lng":2}"#,
    r#"{"lat":1,"lng":"b"}"#,
    r#"{"lat":null,"lng":[1]}"#,
    r#"{"lat":"nan","lng":1}"#,
    r#"{"lat":"inf","lng":1}"#,
    r#"{"lat":" 1","lng":1}"#,
    r#"{"lat":true,"lng":{}}"#,
    "true",
    r#"{"lat":1000,"lng":-1000}"#,
    r#"{"lat":1,"lat":"x","lng":2}"#,
    r#"{"lat":1,"l\u006eg":2}"#,
];

#[tokio::test]
async fn a_batch_with_one_bad_document_is_refused_completely_as_on_one_node() {
    let (_single, one, cluster, api) = one_node_and_three_shards(&judged_settings()).await;
    let vectors = VECTORS.iter().map(|value| ("_vectors", Some(*value)));
    let places = PLACES.iter().map(|value| ("_geo", Some(*value)));
    let missing = [("_vectors", None), ("_geo", None)];
    let mut refused = 0;
    for (round, (field, value)) in vectors.chain(places).chain(missing).enumerate() {
        let body = batch(field, value);
        let method = if round % 2 == 0 {
            Method::POST
        } else {
            Method::PUT
        };
        let expected = write(&one, &method, "x", &body).await;
        let found = write(&api, &method, "x", &body).await;
        let said = format!("{field}: {value:?}: {found}");
        for part in ["status", "error", "details"] {
            assert_eq!(found[part], expected[part], "{said}");
        }
        let documents = ids(&one, "x").await;
        assert_eq!(ids(&api, "x").await, documents, "{said}");
        if expected["status"] == "failed" {
            refused += 1;
            assert!(documents.is_empty());
        }
        clear(&one, "x").await;
        clear(&api, "x").await;
    }
    assert!(refused > 40, "{refused}");
    // No refused batch has reached a node.
    for shard in 0..3 {
        let failed = node(&cluster, shard).get("/tasks?statuses=failed").await;
        assert_eq!(failed.unwrap().at("/total"), &json!(0));
    }
}

#[tokio::test]
async fn existing_documents_can_be_updated_without_vectors_and_new_ones_cannot() {
    let (_single, one, _cluster, api) = one_node_and_three_shards(&judged_settings()).await;
    for api in [&one, &api] {
        let task = write(
            api,
            &Method::POST,
            "x",
            &batch("_vectors", Some(r#"{"m":[1,2,3]}"#)),
        )
        .await;
        assert_eq!(task["status"], "succeeded");
    }
    let known: Vec<Value> = (0..30).map(|id| json!({"id": id, "n": 1})).collect();
    let mut mixed = known.clone();
    mixed.push(json!({"id": 30, "n": 1}));
    mixed.push(json!({"id": 31, "n": 1}));
    for method in [Method::PUT, Method::POST] {
        for (documents, status) in [(&known, "succeeded"), (&mixed, "failed")] {
            let body = serde_json::to_string(documents).unwrap();
            let expected = write(&one, &method, "x", &body).await;
            let found = write(&api, &method, "x", &body).await;
            assert_eq!(expected["status"], status, "{expected}");
            for part in ["status", "error", "details"] {
                assert_eq!(found[part], expected[part], "{found}");
            }
            assert_eq!(ids(&api, "x").await, ids(&one, "x").await);
        }
    }
    // An update finds documents of an earlier write that may still be waiting.
    let first = r#"[{"id":50,"_vectors":{"m":[1,2,3]}}]"#.to_owned();
    let headers = [("content-type", "application/json")];
    let path = "/indexes/x/documents";
    let sent = api.send(Method::POST, path, &headers, first.into_bytes());
    assert_eq!(sent.await.unwrap().status, 202);
    let task = write(&api, &Method::PUT, "x", r#"[{"id":50,"n":2}]"#).await;
    assert_eq!(task["status"], "succeeded", "{task}");
}

#[tokio::test]
async fn a_refused_first_batch_leaves_an_empty_index_as_on_one_node() {
    let single = Single::start(None).await.unwrap();
    let one = Api::new(single.url(), None);
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    for api in [&one, &api] {
        let task = write(
            api,
            &Method::POST,
            "new",
            &batch("_vectors", Some(r#"{"m":5}"#)),
        )
        .await;
        assert_eq!(task["error"]["code"], "invalid_vectors_type", "{task}");
        assert_eq!(task["details"]["indexedDocuments"], 0);
        let index = api.get("/indexes/new").await.unwrap();
        assert_eq!((index.status, index.at("/primaryKey")), (200, &Value::Null));
        assert!(ids(api, "new").await.is_empty());
        let task = write(api, &Method::POST, "new", r#"[{"key_id":1}]"#).await;
        assert_eq!(task["status"], "succeeded", "{task}");
    }
}

#[tokio::test]
async fn an_edit_that_fails_on_one_shard_reports_how_many_documents_were_edited() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    let accepted = api
        .post("/indexes/x/documents?primaryKey=id", &documents(0..90))
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    let edit = json!({"function": "if doc.id == 7 { doc.a = doc.b.c } else { doc.a = 1 }"});
    let path = "/indexes/x/documents/edit";
    let refused = api.post(path, &edit).await.unwrap();
    assert_eq!(
        (refused.status, refused.at("/code")),
        (400, &json!("feature_not_enabled"))
    );
    let on = json!({"editDocumentsByFunction": true});
    let features = api
        .json(Method::PATCH, "/experimental-features", &on)
        .await
        .unwrap();
    assert_eq!(features.status, 200);
    let accepted = api.post(path, &edit).await.unwrap();
    let task = api.settle(&accepted).await.unwrap();
    assert_eq!(
        task["error"]["code"], "edit_documents_by_function_error",
        "{task}"
    );
    let mut edited = 0;
    for shard in 0..3 {
        let node = node(&cluster, shard);
        let stats = node.get("/indexes/x/stats").await.unwrap();
        edited += stats.at("/fieldDistribution/a").as_u64().unwrap_or(0);
    }
    assert_eq!(task["details"]["editedDocuments"], edited, "{task}");
    assert_eq!(task["details"]["deletedDocuments"], Value::Null, "{task}");
    let message = task["error"]["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("were edited: {edited}.")),
        "{message}"
    );
    assert!(!message.contains("is safe"), "{message}");
}
