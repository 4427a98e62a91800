//! Clients that write the same documents of an index by field at the same time.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster};

use super::{assert_together, by_tenant, create, document, held, tenant_of};
use crate::support::start;

/// A client's n-th write: whole documents of changing tenants, updates, and deletions, of ids that other clients write, too.
async fn step(api: &Api, client: u64, n: u64) -> Option<String> {
    let path = "/indexes/x/documents";
    let id = (client * 31 + n * 17) % 40;
    let tenant = tenant_of(client + n);
    let reply = match n % 6 {
        0 => api.delete(&format!("{path}/{id}")).await,
        1 => {
            let update = json!([{"id": id, "mark": n}]);
            api.json(Method::PUT, path, &update).await
        }
        2 => {
            let batch: Value = (id..id + 9)
                .map(|id| document(id, &tenant_of(id * n)))
                .collect();
            api.post(path, &batch).await
        }
        _ => api.post(path, &json!([document(id, &tenant)])).await,
    };
    let reply = reply.unwrap();
    assert!([202, 503].contains(&reply.status), "{}", reply.text);
    let task = api.settle(&reply).await.ok()?;
    (task["status"] == "failed").then(|| {
        task["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    })
}

#[tokio::test]
async fn clients_that_write_the_same_documents_leave_each_of_them_once() {
    let (cluster, api) = start(Cluster::builder().shards(3).replicas(2)).await;
    create(&api, "x", Some(&by_tenant(3))).await;
    let clients = (0..6).map(|client| {
        let api = api.clone();
        tokio::spawn(async move {
            let mut failed = BTreeSet::new();
            for n in 0..30 {
                failed.extend(step(&api, client, n).await);
            }
            failed
        })
    });
    for client in clients.collect::<Vec<_>>() {
        // Only an update of a document that nobody has can fail.
        let failed = client.await.unwrap();
        assert!(
            failed.is_subset(&BTreeSet::from(["missing_sharding_field".to_owned()])),
            "{failed:?}"
        );
    }
    assert_together(&cluster, "x", 3).await;
    // Each document is what its last whole version said, and lies where a reader looks for it.
    for document in held(&api, "x").await.into_values() {
        let found = api
            .get(&format!("/indexes/x/documents/{}", document["id"]))
            .await
            .unwrap();
        assert_eq!(found.body, document);
        assert!(document["name"].is_string(), "{document}");
        let tenant = document["tenant"]
            .as_str()
            .map_or(document["tenant"].to_string(), str::to_owned);
        let filter = json!({"filter": format!("tenant = '{tenant}' AND id = {}", document["id"])});
        let found = api.post("/indexes/x/search", &filter).await.unwrap();
        assert_eq!(found.at("/hits/0/id"), &document["id"], "{}", found.text);
    }
}

#[tokio::test]
async fn an_index_that_nobody_made_lies_by_the_default_field() {
    let builder = Cluster::builder().shards(3);
    let builder = builder.merger_env("WEFT_DEFAULT_STRATEGY", "field:tenant");
    let (cluster, api) = start(builder).await;
    let path = "/indexes/x/documents?primaryKey=id";
    // The last version of a document counts, in the first batch, too.
    let mut all: Vec<Value> = (0..60).map(|id| document(id, &tenant_of(id))).collect();
    all.extend((0..20).map(|id| document(id, &tenant_of(id + 1))));
    let added = api.post(path, &json!(all)).await.unwrap();
    let task = api.succeed(&added).await.unwrap();
    assert_eq!(
        task["details"],
        json!({"receivedDocuments": 80, "indexedDocuments": 60})
    );
    let new = json!([{"id": 70, "tenant": "acme"}, {"id": 3, "mark": 1}]);
    let updated = api.json(Method::PUT, path, &new).await.unwrap();
    api.succeed(&updated).await.unwrap();
    assert_together(&cluster, "x", 3).await;
    let there = held(&api, "x").await;
    assert_eq!(there.len(), 61);
    assert_eq!(there["3"]["tenant"], tenant_of(4));
    let refused = api.post(path, &json!([{"id": 71}])).await.unwrap();
    let refused = api.settle(&refused).await.unwrap();
    assert_eq!(refused["error"]["code"], "missing_sharding_field");
}
