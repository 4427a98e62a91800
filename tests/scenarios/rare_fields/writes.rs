//! Deletions and editions by a filter on fields that not all shards know.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Both, none_of};

/// What both say of a write's end: its task, or why there is none.
async fn ends(both: &Both, path: &str, body: &Value) -> [Value; 2] {
    let mut ends = Vec::new();
    for api in [&both.one, &both.many] {
        let reply = api.post(path, body).await.unwrap();
        let task = match reply.status {
            202 => api.settle(&reply).await.unwrap(),
            status => json!({"refused": status, "error": reply.body}),
        };
        let told = json!({"status": task["status"], "refused": task["refused"], "details": task["details"], "error": task["error"]});
        ends.push(told);
    }
    ends.try_into().unwrap()
}

async fn left(both: &Both, uid: &str) -> [Vec<u64>; 2] {
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
async fn a_deletion_by_filter_takes_what_one_node_takes() {
    let both = Both::start().await;
    let mut differences = Vec::new();
    for filter in FILTERS {
        for filter in [
            json!(filter),
            json!([[filter, "group = 99"], "group != 98"]),
        ] {
            let [one, many] = ends(
                &both,
                "/indexes/x/documents/delete",
                &json!({"filter": filter}),
            )
            .await;
            if one != many {
                differences.push(format!("{filter}\n  one node: {one}\n  cluster:  {many}"));
            }
            let [one, many] = left(&both, "x").await;
            assert_eq!(one, many, "{filter}");
        }
    }
    none_of(&differences, FILTERS.len() * 2);
}

#[tokio::test]
async fn an_edition_by_filter_changes_what_one_node_changes() {
    let both = Both::start().await;
    let mut differences = Vec::new();
    for (at, filter) in FILTERS.iter().enumerate() {
        let edit = json!({"filter": filter, "function": format!("doc.edited = {at}")});
        let [one, many] = ends(&both, "/indexes/x/documents/edit", &edit).await;
        if one != many {
            differences.push(format!("{filter}\n  one node: {one}\n  cluster:  {many}"));
        }
        let list = json!({"limit": 200, "sort": ["id:asc"], "fields": ["id", "edited"]});
        let documents = both.difference_in_order(Method::POST, "/indexes/x/documents/fetch", &list);
        differences.extend(documents.await);
    }
    none_of(&differences, FILTERS.len());
}

#[tokio::test]
async fn a_deletion_waits_for_what_may_bring_its_field() {
    let both = Both::start().await;
    let [one, many] = left(&both, "x").await;
    assert_eq!((one.len(), &one), (120, &many));
    let brings = json!([{"id": 7, "title": "seven", "never": "not any more"}]);
    let deletes = json!({"filter": "never != 'not any more'"});
    for api in [&both.one, &both.many] {
        // The second is sent while the first is on its way.
        let added = api.post("/indexes/x/documents", &brings).await.unwrap();
        assert_eq!(added.status, 202, "{}", added.text);
        let deleted = api
            .post("/indexes/x/documents/delete", &deletes)
            .await
            .unwrap();
        let task = api.succeed(&deleted).await.unwrap();
        assert_eq!(task["details"]["deletedDocuments"], 119, "{task}");
    }
    assert_eq!(left(&both, "x").await, [vec![7], vec![7]]);
}

#[tokio::test]
async fn a_field_is_forgotten_with_its_index_alone() {
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
    none_of(&differences, 3);
}
