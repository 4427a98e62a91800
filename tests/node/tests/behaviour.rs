//! Behaviour that users of a node rely on, beyond the shapes of answers.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails where something is missing"
)]

mod process;

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use process::{Node, bearer, owner};
use serde_json::{Value, json};

#[test]
fn what_was_accepted_survives_a_crash() {
    let mut node = Node::start();
    let mut accepted = Vec::new();
    for batch in 0..5 {
        let documents: Vec<Value> = (0..200)
            .map(|n| json!({ "id": batch * 1000 + n, "text": format!("number {n} of {batch}") }))
            .collect();
        let (status, summary) = node.ask(
            "POST",
            "/indexes/things/documents",
            Some(Value::from(documents)),
        );
        assert_eq!(status, 202, "{summary}");
        accepted.push(summary);
    }
    node.crash_and_restart();
    for summary in &accepted {
        let task = node.settled(summary);
        assert_eq!(task["status"], "succeeded", "{task}");
    }
    let (_, stats) = node.ask("GET", "/indexes/things/stats", None);
    assert_eq!(stats["numberOfDocuments"], 1000);
    // The next task continues the numbering, and the keys are unchanged.
    let task = node.write(
        "POST",
        "/indexes/things/documents",
        Some(json!([{ "id": 1, "text": "again" }])),
    );
    assert_eq!(task["uid"], 5);
}

#[test]
fn a_refused_addition_leaves_its_neighbours_alone() {
    let node = Node::start();
    node.write(
        "POST",
        "/indexes",
        Some(json!({ "uid": "mixed", "primaryKey": "id" })),
    );
    let bodies = [
        json!([{ "id": 1 }, { "id": 2 }]),
        json!([{ "id": 3 }, { "id": "not an id" }]),
        json!([{ "id": 4 }]),
        json!([{ "name": "no id" }]),
        json!([{ "id": 5 }]),
    ];
    let accepted: Vec<Value> = bodies
        .iter()
        .map(|body| {
            node.ask("POST", "/indexes/mixed/documents", Some(body.clone()))
                .1
        })
        .collect();
    let ends: Vec<Value> = accepted
        .iter()
        .map(|summary| node.settled(summary)["status"].clone())
        .collect();
    assert_eq!(
        ends,
        ["succeeded", "failed", "succeeded", "failed", "succeeded"]
    );
    let (_, page) = node.ask("GET", "/indexes/mixed/documents", None);
    let mut ids: Vec<i64> = page["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| hit["id"].as_i64().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 4, 5]);
}

#[test]
fn bodies_may_be_packed() {
    let node = Node::start();
    let body = br#"[{"id": 1, "text": "packed"}]"#;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body).unwrap();
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    deflate.write_all(body).unwrap();
    let mut br = Vec::new();
    brotli::CompressorWriter::new(&mut br, 4096, 5, 20)
        .write_all(body)
        .unwrap();
    let packed = [
        ("gzip", gzip.finish().unwrap()),
        ("deflate", deflate.finish().unwrap()),
        ("br", br),
        ("zstd", zstd::encode_all(body.as_slice(), 3).unwrap()),
    ];
    for (encoding, bytes) in packed {
        let mut headers = owner();
        headers.insert("Content-Type".to_owned(), "application/json".to_owned());
        headers.insert("Content-Encoding".to_owned(), encoding.to_owned());
        let path = format!("/indexes/{encoding}/documents");
        let (status, summary) = node.send("POST", &path, &headers, Some(&bytes)).unwrap();
        assert_eq!(status, 202, "{encoding}: {summary:?}");
        assert_eq!(
            node.settled(&summary.unwrap())["status"],
            "succeeded",
            "{encoding}"
        );
        assert_eq!(
            node.ask("GET", &format!("{path}/1"), None).1["text"],
            "packed"
        );
    }
}

fn tenant_token(key_uid: &str, key: &str, rules: &Value, exp: Option<i64>) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "apiKeyUid": key_uid, "searchRules": rules, "exp": exp });
    let signed = format!(
        "{}.{}",
        part(json!({ "alg": "HS256", "typ": "JWT" })),
        part(claims)
    );
    let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    )
}

#[test]
fn a_tenant_sees_what_its_token_allows() {
    let node = Node::start();
    node.write(
        "PATCH",
        "/indexes/notes/settings",
        Some(json!({ "filterableAttributes": ["tenant"] })),
    );
    let notes =
        json!([{ "id": 1, "tenant": "a" }, { "id": 2, "tenant": "b" }, { "id": 3, "tenant": "a" }]);
    node.write("POST", "/indexes/notes/documents", Some(notes));
    let request = json!({ "actions": ["search"], "indexes": ["notes"], "expiresAt": null });
    let (status, key) = node.ask("POST", "/keys", Some(request));
    assert_eq!(status, 201);
    let (uid, value) = (key["uid"].as_str().unwrap(), key["key"].as_str().unwrap());
    let search = |token: &str, index: &str| {
        let answer = node
            .send(
                "GET",
                &format!("/indexes/{index}/search"),
                &bearer(token),
                None,
            )
            .unwrap();
        (answer.0, answer.1.unwrap())
    };
    let rules = json!({ "notes": { "filter": "tenant = a" } });
    let (status, found) = search(&tenant_token(uid, value, &rules, None), "notes");
    assert_eq!(
        (status, found["estimatedTotalHits"].as_u64()),
        (200, Some(2)),
        "{found}"
    );
    let (status, _) = search(&tenant_token(uid, value, &rules, None), "others");
    assert_eq!(status, 403);
    let (status, refusal) = search(&tenant_token(uid, value, &rules, Some(1)), "notes");
    assert_eq!(
        (status, refusal["code"].as_str()),
        (403, Some("invalid_api_key")),
        "{refusal}"
    );
    let (status, _) = search(&tenant_token(uid, "another key", &rules, None), "notes");
    assert_eq!(status, 403);
    // A key for searches can't read documents with its own permissions.
    let (status, _) = node
        .send("GET", "/indexes/notes/documents", &bearer(value), None)
        .unwrap();
    assert_eq!(status, 403);
}

#[test]
fn a_canceled_task_changes_nothing() {
    let node = Node::start();
    let documents: Vec<Value> = (0..20_000)
        .map(|n| json!({ "id": n, "text": format!("the words of {n}") }))
        .collect();
    let (_, first) = node.ask(
        "POST",
        "/indexes/large/documents",
        Some(Value::from(documents)),
    );
    let (_, second) = node.ask(
        "PATCH",
        "/indexes/large/settings",
        Some(json!({ "stopWords": ["the"] })),
    );
    let canceled = node.write("POST", "/tasks/cancel?statuses=enqueued,processing", None);
    assert_eq!(canceled["status"], "succeeded", "{canceled}");
    let (first, second) = (node.settled(&first), node.settled(&second));
    assert_eq!(second["status"], "canceled", "{second}");
    assert_eq!(second["canceledBy"], canceled["uid"]);
    let (_, stats) = node.ask("GET", "/indexes/large/stats", None);
    let expected = if first["status"] == "canceled" {
        0
    } else {
        20_000
    };
    let found = stats["numberOfDocuments"].as_u64().unwrap_or(0);
    assert_eq!(found, expected, "{first} {stats}");
}

#[test]
fn a_filter_finds_nothing_to_delete_in_an_index_without_documents() {
    let node = Node::start();
    node.write("POST", "/indexes", Some(json!({ "uid": "empty" })));
    node.write(
        "PUT",
        "/indexes/empty/settings/filterable-attributes",
        Some(json!(["tag"])),
    );
    let task = node.write(
        "POST",
        "/indexes/empty/documents/delete",
        Some(json!({ "filter": "tag = 1" })),
    );
    assert_eq!(task["status"], "succeeded", "{task}");
    assert_eq!(task["details"]["deletedDocuments"], 0);
}

#[test]
fn what_is_missing_says_its_name() {
    let node = Node::start();
    for (method, path) in [
        ("POST", "/dumps"),
        ("POST", "/snapshots"),
        ("GET", "/network"),
        ("GET", "/metrics"),
    ] {
        let (status, refusal) = node.ask(method, path, None);
        assert_eq!(status, 501, "{method} {path}: {refusal}");
        assert_eq!(refusal["code"], "not_implemented");
    }
}

#[test]
fn an_embedder_that_needs_a_model_is_told_that_there_are_none() {
    let node = Node::start();
    node.write("POST", "/indexes", Some(json!({ "uid": "words" })));
    let task = node.write(
        "PATCH",
        "/indexes/words/settings",
        Some(json!({ "embedders": { "own": { "source": "huggingFace" } } })),
    );
    assert_eq!(task["status"], "failed", "{task}");
    let message = task["error"]["message"].as_str().unwrap();
    assert!(message.contains("runs no models"), "{message}");
}
