//! Deletions and edits by a filter on fields that not all shards know.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Both, assert_no_difference};

/// The outcome of a write on both sides: its task, or the refusal.
async fn outcomes(both: &Both, path: &str, body: &Value) -> [Value; 2] {
    let mut outcomes = Vec::new();
    for api in [&both.one, &both.many] {
        let reply = api.post(path, body).await.unwrap();
        let task = match reply.status {
            202 => api.settle(&reply).await.unwrap(),
            status => json!({"refused": status, "error": reply.body}),
        };
        let outcome = json!({"status": task["status"], "refused": task["refused"], "details": task["details"], "error": task["error"]});
        outcomes.push(outcome);
    }
    outcomes.try_into().unwrap()
}

async fn remaining(both: &Both, uid: &str) -> [Vec<u64>; 2] {
    [
        crate::support::ids(&both.one, uid).await,
        crate::support::ids(&both.many, uid).await,
    ]
}

const FILTERS: [&str; 12] = [
    "never != 7",
    "NOT never != 7 AND group = 9",
    "never != 7 OR group = 8",
    "group = 7 AND rare != 'only here'",
    "NOT (rare != 'only here')",
    "some != 7 AND group != 5",
    "some != 7 AND rare != 'only here' AND id < 60",
    "rare != 'only here' AND nowhere = 1",
    "group = 1 AND rare != 'only here' AND nowhere != 1",
    "rare != ",
    "rare != 'only here'",
    "some != 7",
];

#[tokio::test]
async fn a_deletion_by_filter_deletes_what_one_node_deletes() {
    let both = Both::start().await;
    let mut differences = Vec::new();
    for filter in FILTERS {
        for filter in [
            json!(filter),
            json!([[filter, "group = 99"], "group != 98"]),
        ] {
            let [one, many] = outcomes(
                &both,
                "/indexes/x/documents/delete",
                &json!({"filter": filter}),
            )
            .await;
            if one != many {
                differences.push(format!("{filter}\n  one node: {one}\n  cluster:  {many}"));
            }
            let [one, many] = remaining(&both, "x").await;
            assert_eq!(one, many, "{filter}");
        }
    }
    assert_no_difference(&differences, FILTERS.len() * 2);
}

#[tokio::test]
async fn an_edit_by_filter_changes_what_one_node_changes() {
    let both = Both::start().await;
    let mut differences = Vec::new();
    for (at, filter) in FILTERS.iter().enumerate() {
        let edit = json!({"filter": filter, "function": format!("doc.edited = {at}")});
        let [one, many] = outcomes(&both, "/indexes/x/documents/edit", &edit).await;
        if one != many {
            differences.push(format!("{filter}\n  one node: {one}\n  cluster:  {many}"));
        }
        let list = json!({"limit": 200, "sort": ["id:asc"], "fields": ["id", "edited"]});
        let documents = both.difference_in_order(Method::POST, "/indexes/x/documents/fetch", &list);
        differences.extend(documents.await);
    }
    assert_no_difference(&differences, FILTERS.len());
}

#[tokio::test]
async fn a_deletion_waits_for_writes_that_may_add_its_field() {
    let both = Both::start().await;
    let [one, many] = remaining(&both, "x").await;
    assert_eq!((one.len(), &one), (120, &many));
    let brings = json!([{"id": 7, "title": "seven", "never": "not any more"}]);
    let deletes = json!({"filter": "never != 'not any more'"});
    for api in [&both.one, &both.many] {
        // The deletion is sent while the documents are still being added.
        let added = api.post("/indexes/x/documents", &brings).await.unwrap();
        assert_eq!(added.status, 202, "{}", added.text);
        let deleted = api
            .post("/indexes/x/documents/delete", &deletes)
            .await
            .unwrap();
        let task = api.succeed(&deleted).await.unwrap();
        assert_eq!(task["details"]["deletedDocuments"], 119, "{task}");
    }
    assert_eq!(remaining(&both, "x").await, [vec![7], vec![7]]);
}

#[tokio::test]
async fn a_field_is_forgotten_only_with_its_index() {
    let both = Both::start().await;
    let search = json!({"filter": "rare != 'only here'", "limit": 0});
    let path = "/indexes/x/search";
    let mut differences = Vec::new();
    differences.extend(both.difference(Method::POST, path, &search).await);
    let rare = json!({"filter": "rare EXISTS"});
    both.each(Method::POST, "/indexes/x/documents/delete", &rare)
        .await;
    differences.extend(both.difference(Method::POST, path, &search).await);
    for api in [&both.one, &both.many] {
        let gone = api.delete("/indexes/x").await.unwrap();
        api.succeed(&gone).await.unwrap();
    }
    let settings = json!({"filterableAttributes": ["rare"]});
    both.each(Method::PATCH, "/indexes/x/settings", &settings)
        .await;
    let documents: Vec<Value> = (0..30).map(|id| json!({"id": id})).collect();
    both.each(Method::POST, "/indexes/x/documents", &json!(documents))
        .await;
    let nothing = both.many.post(path, &search).await.unwrap();
    assert_eq!(nothing.at("/estimatedTotalHits"), 0, "{}", nothing.text);
    differences.extend(both.difference(Method::POST, path, &search).await);
    assert_no_difference(&differences, 3);
}
