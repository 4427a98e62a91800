//! Slots of an index by field move while clients write and search.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster};

use super::{assert_together, by_tenant, create, document, held, tenant_of};
use crate::moving::wait_for_moves;
use crate::support::{node, start};

pub(in crate::strategies) const DOCUMENTS: u64 = 1_000;
const PATH: &str = "/indexes/x/documents";

async fn ids_found(api: &Api, body: &Value) -> Vec<u64> {
    let found = api.post("/indexes/x/search", body).await.unwrap();
    assert_eq!(found.status, 200, "{}", found.text);
    let hits = found.at("/hits").as_array().unwrap();
    hits.iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
}

/// Walks pages of all documents, and looks at one tenant's, until it is told to stop. Documents below 500 stay what they are.
pub(in crate::strategies) async fn search(api: Api, stop: Arc<AtomicBool>) -> u64 {
    let mut searches = 0;
    let steady: Vec<u64> = (0..500).collect();
    let of_acme: Vec<u64> = (0..500).filter(|id| tenant_of(*id) == "acme").collect();
    while !stop.load(Ordering::Relaxed) {
        let mut walked = Vec::new();
        for page in 0..10 {
            let body = json!({"filter": "order < 500", "sort": ["order:asc"], "offset": page * 50, "limit": 50,
                "attributesToRetrieve": ["id"]});
            walked.extend(ids_found(&api, &body).await);
        }
        assert_eq!(walked, steady);
        let body =
            json!({"filter": "tenant = acme AND order < 500", "sort": ["order:asc"], "limit": 500});
        assert_eq!(ids_found(&api, &body).await, of_acme);
        let one = api.get("/indexes/x/documents/377?fields=id,name").await;
        let one = one.unwrap();
        assert_eq!(one.status, 200, "{}", one.text);
        assert_eq!(one.text, r#"{"id":377,"name":"amber 377"}"#);
        let some = json!({"ids": [1, 2, 3, 400], "fields": ["id"], "limit": 10});
        let some = api.post("/indexes/x/documents/fetch", &some).await.unwrap();
        assert_eq!(some.at("/results").as_array().map(Vec::len), Some(4));
        searches += 13;
    }
    searches
}

/// Gives documents other tenants, updates them without saying whose they are, deletes some, and makes new ones. Returns what must be
/// there of the documents from 500 on.
pub(in crate::strategies) async fn write(
    api: Api,
    stop: Arc<AtomicBool>,
) -> BTreeMap<String, Value> {
    let all = (500..DOCUMENTS).map(|id| (id.to_string(), document(id, &tenant_of(id))));
    let mut wanted: BTreeMap<String, Value> = all.collect();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let id = 500 + number * 7 % 600;
        match number % 5 {
            0 => {
                let gone = api.delete(&format!("{PATH}/{id}")).await.unwrap();
                assert_eq!(gone.status, 202, "{}", gone.text);
                wanted.remove(&id.to_string());
            }
            1 => {
                let Some(known) = wanted.get_mut(&id.to_string()) else {
                    continue;
                };
                let mark = json!([{"id": id, "mark": number}]);
                let marked = api.json(Method::PUT, PATH, &mark).await.unwrap();
                assert_eq!(marked.status, 202, "{}", marked.text);
                known["mark"] = json!(number);
            }
            _ => {
                let mut new = document(id, &tenant_of(id + number));
                new["mark"] = json!(number);
                let put = api.post(PATH, &json!([new])).await.unwrap();
                assert_eq!(put.status, 202, "{}", put.text);
                wanted.insert(id.to_string(), new);
            }
        }
    }
    wanted
}

#[tokio::test]
async fn an_index_by_field_grows_and_shrinks_while_clients_write_and_search() {
    let builder = Cluster::builder().shards(4).replicas(1);
    let builder = builder.merger_env("WEFT_LEASE_MS", "1000");
    let (cluster, api) = start(builder.merger_env("WEFT_MOVE_BATCH", "100")).await;
    create(&api, "x", Some(&by_tenant(2))).await;
    let settings = json!({"filterableAttributes": ["tenant", "order"]});
    let set = api.json(Method::PATCH, "/indexes/x/settings", &settings);
    api.succeed(&set.await.unwrap()).await.unwrap();
    let all: Value = (0..DOCUMENTS)
        .map(|id| document(id, &tenant_of(id)))
        .collect();
    let added = api.post(PATH, &all).await.unwrap();
    api.succeed(&added).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let searcher = tokio::spawn(search(api.clone(), Arc::clone(&stop)));
    let writer = tokio::spawn(write(api.clone(), Arc::clone(&stop)));
    let body = json!({"sharding": {"shardCount": null}});
    let set = api.json(Method::PATCH, "/indexes/x", &body).await.unwrap();
    api.succeed(&set).await.unwrap();
    let grown = wait_for_moves(&api, 0).await;
    assert!(grown.iter().all(|one| one["state"] == "done"), "{grown:?}");
    let drained = api.post("/_cluster/shards/0/drain", &json!({})).await;
    assert_eq!(drained.unwrap().status, 202);
    let shrunk = wait_for_moves(&api, grown.len()).await;
    assert!(
        shrunk.iter().all(|one| one["state"] == "done"),
        "{shrunk:?}"
    );
    stop.store(true, Ordering::Relaxed);
    let mut wanted = writer.await.unwrap();
    assert!(searcher.await.unwrap() > 13, "searches went on");
    let last = document(2_000, &json!("acme"));
    let added = api.post(PATH, &json!([last])).await.unwrap();
    api.succeed(&added).await.unwrap();
    wanted.insert("2000".to_owned(), last);
    let failed = api.get("/tasks?statuses=failed").await.unwrap();
    assert_eq!(failed.at("/total"), 0, "{}", failed.text);
    wanted.extend((0..500).map(|id| (id.to_string(), document(id, &tenant_of(id)))));
    assert_eq!(held(&api, "x").await, wanted);
    let mut count = 0;
    for shard in 0..4 {
        let node = node(&cluster, shard);
        let here = node.get("/indexes/x/documents?limit=1").await.unwrap();
        count += here.at("/total").as_u64().unwrap_or(0);
        assert_eq!(here.status == 404, shard == 0, "{shard}: {}", here.text);
    }
    assert_eq!(count, wanted.len() as u64, "no document is on two shards");
    let lies = api.get("/indexes/x/_shards").await.unwrap();
    assert_eq!(lies.at("/unsettled"), &json!([]), "{}", lies.text);
    let shards = api.get("/_cluster/shards").await.unwrap();
    assert_eq!(shards.at("/shards/0/removable"), true, "{}", shards.text);
}

#[tokio::test]
async fn a_document_without_the_field_keeps_its_index_where_it_is_and_the_move_says_why() {
    let (cluster, api) = start(Cluster::builder().shards(2)).await;
    create(&api, "x", Some(&by_tenant(1))).await;
    let experimental = json!({"editDocumentsByFunction": true});
    let set = api.json(Method::PATCH, "/experimental-features", &experimental);
    assert_eq!(set.await.unwrap().status, 200);
    let all: Value = (0..20).map(|id| document(id, &tenant_of(id))).collect();
    let added = api.post(PATH, &all).await.unwrap();
    api.succeed(&added).await.unwrap();
    let edit = |function: &str| json!({"function": function, "filter": "id = 7"});
    let path = "/indexes/x/documents/edit";
    let edited = api.post(path, &edit("doc.remove(\"tenant\")")).await;
    api.succeed(&edited.unwrap()).await.unwrap();
    let body = json!({"sharding": {"shardCount": 2}});
    let set = api.json(Method::PATCH, "/indexes/x", &body).await.unwrap();
    api.succeed(&set).await.unwrap();
    weft_cluster::until(
        "the move says why it can't go on",
        weft_cluster::Deadline::after(std::time::Duration::from_secs(30)),
        || async {
            let moves = api.get("/_cluster/moves").await.unwrap();
            let error = moves.at("/moves/0/error").as_str().unwrap_or_default();
            let told = error.contains("document `7` of `x` has no usable value in `tenant`");
            told.then_some(()).ok_or(moves.text.clone())
        },
    )
    .await
    .unwrap();
    let edited = api.post(path, &edit("doc.tenant = \"acme\"")).await;
    api.succeed(&edited.unwrap()).await.unwrap();
    wait_for_moves(&api, 0).await;
    assert_together(&cluster, "x", 2).await;
    assert_eq!(held(&api, "x").await.len(), 20);
    let refused = api.post(path, &edit("doc.tenant = \"acme\"")).await;
    assert_eq!(refused.unwrap().status, 400);
}
