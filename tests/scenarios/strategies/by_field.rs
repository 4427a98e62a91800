//! Indexes by field: all documents of a tenant lie together, and a client sees what one node shows.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Single};

use super::write;
use crate::support::{MASTER_KEY, node, start};

mod deleting;
mod direct;
pub(super) mod moving;
mod refused;
mod searching;
mod together;

const JSON: &str = "application/json";
const TENANTS: [&str; 7] = ["acme", "Bolt", "cité", "42", "dune", "ember", "fjord"];

pub(super) async fn create(api: &Api, uid: &str, sharding: Option<&Value>) {
    let mut body = json!({"uid": uid, "primaryKey": "id"});
    if let Some(sharding) = sharding {
        body["sharding"] = sharding.clone();
    }
    let created = api.post("/indexes", &body).await.unwrap();
    api.succeed(&created).await.unwrap();
    let settings = json!({
        "sortableAttributes": ["order"],
        "filterableAttributes": ["id", "tenant", "group", "mark"],
    });
    let path = format!("/indexes/{uid}/settings");
    let set = api.json(Method::PATCH, &path, &settings).await.unwrap();
    api.succeed(&set).await.unwrap();
}

pub(super) fn by_tenant(shards: u16) -> Value {
    json!({"strategy": "field", "field": "tenant", "shardCount": shards})
}

pub(super) fn document(id: u64, tenant: &Value) -> Value {
    json!({"id": id, "tenant": tenant, "group": id % 5, "order": id, "name": format!("amber {id}")})
}

pub(super) fn tenant_of(id: u64) -> Value {
    let place = usize::try_from(id).unwrap() % (TENANTS.len() + 1);
    // One tenant is a number.
    TENANTS.get(place).map_or(json!(7), |name| json!(name))
}

/// The writes of the scenarios, in order: method, path behind the index, content type, body.
fn writes() -> Vec<(Method, &'static str, &'static str, String)> {
    let documents = |ids: std::ops::Range<u64>, turned: u64| -> String {
        let all: Value = ids
            .map(|id| document(id, &tenant_of(id + turned)))
            .collect();
        all.to_string()
    };
    let lines = |all: &[Value]| {
        let all: Vec<String> = all.iter().map(Value::to_string).collect();
        all.join("\n")
    };
    let add = |body: String| (Method::POST, "", JSON, body);
    let update = |body: Value| (Method::PUT, "", JSON, body.to_string());
    vec![
        add(documents(0..300, 0)),
        // Others, some, and the same tenants for documents that exist.
        add(documents(100..160, 1)),
        add(documents(160..170, 0)),
        // The last one of a batch counts.
        add(json!([document(500, &json!("acme")), document(500, &json!("dune")), document(501, &json!("dune")),
            document(501, &json!("acme")), document(501, &json!("ember"))]).to_string()),
        (Method::POST, "", "application/x-ndjson", lines(&[
            document(1, &json!("fjord")), document(600, &json!("ACME ")), document(601, &json!(42)),
            json!({"order": 602, "\u{74}enant": "Bolt", "id": "x-1", "name": "birch"}),
        ])),
        (Method::POST, "", "text/csv",
            "id,tenant,group:number,order:number,name\n2,ember,9,2,cedar\n700,acme,9,700,\"cedar, too\"\n".to_owned()),
        // With the field, without it, and both for a new document.
        update((0..300_u64).step_by(7).map(|id| json!({"id": id, "mark": id})).collect()),
        update(json!([{"id": 500, "tenant": "Dune", "mark": 1}, {"id": 1, "mark": 2}])),
        update(json!([{"id": 800, "tenant": "acme", "order": 800}, {"id": 800, "mark": 8}])),
        update(json!([{"id": 501, "mark": 4}])),
        (Method::PUT, "", "text/csv", "id,mark:number\n3,5\nx-1,6\n".to_owned()),
        (Method::DELETE, "/20", JSON, String::new()),
        (Method::DELETE, "/nobody", JSON, String::new()),
        (Method::POST, "/delete-batch", JSON, r#"[21, "22", 9999, "x 1", 101]"#.to_owned()),
        (Method::POST, "/delete", JSON, r#"{"filter": "tenant = fjord AND id < 60"}"#.to_owned()),
        (Method::POST, "/delete", JSON, r#"{"filter": "group = 4 AND id > 250"}"#.to_owned()),
        // A new version of one that was deleted.
        add(json!([document(20, &json!("Bolt"))]).to_string()),
        // No document has an id, or a valid one.
        add(r#"[{"tenant": "acme", "name": "x"}]"#.to_owned()),
        add(r#"[{"id": "no id", "tenant": "acme"}]"#.to_owned()),
    ]
}

const FILTERS: [&str; 14] = [
    "tenant = acme",
    "tenant = ' Acme'",
    "tenant = 'CITÉ'",
    "tenant = 42",
    "tenant = 7.0",
    "tenant IN [acme, 42, nobody]",
    "tenant = acme AND tenant = dune",
    "tenant = acme OR group = 3",
    "tenant = acme AND group = 3",
    "NOT tenant = acme",
    "tenant != acme AND mark EXISTS",
    "tenant > d",
    "id = 500",
    "tenant = ember AND id IN [501, 2, 5, 13]",
];

/// Everything that a client can ask about an index of these scenarios.
pub(super) async fn read_all(api: &Api, uid: &str) -> Vec<(String, Value)> {
    let mut told = Vec::new();
    let search = format!("/indexes/{uid}/search");
    let all = FILTERS.iter().map(|filter| json!(filter));
    let lists = [
        json!(["tenant = Bolt", ["group = 1", "group = 2"]]),
        Value::Null,
    ];
    for filter in all.chain(lists) {
        let body = json!({"filter": filter, "sort": ["order:asc"], "limit": 1000, "facets": ["tenant", "group"]});
        let found = api.post(&search, &body).await.unwrap();
        let value = json!([
            found.status,
            found.at("/hits"),
            found.at("/facetDistribution"),
            found.at("/estimatedTotalHits")
        ]);
        told.push((format!("search {filter}"), value));
        let body = json!({"filter": filter, "sort": ["order:asc"], "limit": 1000});
        let path = format!("/indexes/{uid}/documents/fetch");
        let found = api.post(&path, &body).await.unwrap();
        let value = json!([found.status, found.at("/results"), found.at("/total")]);
        told.push((format!("documents {filter}"), value));
        let body = json!({"facetName": "tenant", "filter": filter});
        let found = api
            .post(&format!("/indexes/{uid}/facet-search"), &body)
            .await
            .unwrap();
        told.push((
            format!("facet {filter}"),
            json!([found.status, found.at("/facetHits")]),
        ));
        let query =
            json!({"indexUid": uid, "filter": filter, "sort": ["order:asc"], "limit": 1000});
        let body =
            json!({"queries": [query, {"indexUid": uid, "q": "cedar", "sort": ["order:asc"]}]});
        let found = api.post("/multi-search", &body).await.unwrap();
        let value = json!([found.at("/results/0/hits"), found.at("/results/1/hits")]);
        told.push((format!("several {filter}"), value));
    }
    for id in [
        "0", "1", "2", "20", "21", "101", "500", "501", "600", "601", "700", "800", "x-1",
        "nobody", "no%20id",
    ] {
        let found = api
            .get(&format!("/indexes/{uid}/documents/{id}"))
            .await
            .unwrap();
        let value = json!([
            found.status,
            found.body["tenant"],
            found.body["mark"],
            found.body["code"]
        ]);
        told.push((format!("document {id}"), value));
    }
    let ids = json!({"ids": [1, 501, "x-1", 9999, 150, 20], "sort": ["order:asc"], "fields": ["tenant", "mark"]});
    let found = api
        .post(&format!("/indexes/{uid}/documents/fetch"), &ids)
        .await
        .unwrap();
    told.push((
        "by ids".to_owned(),
        json!([found.at("/results"), found.at("/total")]),
    ));
    let stats = api.get(&format!("/indexes/{uid}/stats")).await.unwrap();
    told.push(("count".to_owned(), stats.at("/numberOfDocuments").clone()));
    told
}

pub(super) fn assert_alike(uid: &str, ours: &[(String, Value)], theirs: &[(String, Value)]) {
    assert_eq!(ours.len(), theirs.len());
    for ((what, ours), (_, theirs)) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs, "{uid}: {what}");
    }
}

/// The documents that a node holds, by id.
pub(super) async fn held(api: &Api, uid: &str) -> BTreeMap<String, Value> {
    let list = api
        .get(&format!("/indexes/{uid}/documents?limit=10000"))
        .await
        .unwrap();
    assert_eq!(list.status, 200, "{}", list.text);
    let documents = list.at("/results").as_array().unwrap().clone();
    documents
        .into_iter()
        .map(|one| (one["id"].to_string(), one))
        .collect()
}

/// Asserts that each document is on one shard, and all documents of a tenant are on the same one.
pub(super) async fn assert_together(cluster: &Cluster, uid: &str, shards: u16) {
    let (mut homes, mut ids) = (BTreeMap::new(), BTreeSet::new());
    let mut used = BTreeSet::new();
    for shard in 0..shards {
        for (id, document) in held(&node(cluster, shard), uid).await {
            assert!(ids.insert(id.clone()), "{id} is on two shards");
            used.insert(shard);
            let tenant = document["tenant"].as_str().map(str::to_owned);
            let tenant = tenant.unwrap_or_else(|| document["tenant"].to_string());
            let tenant = tenant.trim().to_lowercase();
            let home = *homes.entry(tenant.clone()).or_insert(shard);
            assert_eq!(home, shard, "{tenant} is on two shards");
        }
    }
    assert!(used.len() > 1, "everything is on one shard");
}

#[tokio::test]
async fn an_index_by_field_shows_what_one_node_shows_after_each_write() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let single = Api::new(single.url(), Some(MASTER_KEY));
    for (uid, shards) in [("wide", 3), ("narrow", 1)] {
        create(&api, uid, Some(&by_tenant(shards))).await;
        create(&single, uid, None).await;
        for (at, (method, path, kind, body)) in writes().into_iter().enumerate() {
            let path = format!("/indexes/{uid}/documents{path}");
            let ours = write(&api, method.clone(), &path, kind, &body).await;
            let theirs = write(&single, method, &path, kind, &body).await;
            assert_eq!(ours, theirs, "{uid}: write {at}");
        }
        assert_alike(
            uid,
            &read_all(&api, uid).await,
            &read_all(&single, uid).await,
        );
    }
    assert_together(&cluster, "wide", 3).await;
}

#[tokio::test]
async fn writes_that_wait_for_nothing_take_effect_in_their_order() {
    let (cluster, api) = start(Cluster::builder().shards(3).filter(false)).await;
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let single = Api::new(single.url(), Some(MASTER_KEY));
    let mut told = Vec::new();
    for api in [&api, &single] {
        create(
            api,
            "wide",
            (api.base() != single.base()).then(|| by_tenant(3)).as_ref(),
        )
        .await;
        let (mut accepted, mut outcomes) = (Vec::new(), Vec::new());
        for (method, path, kind, body) in writes() {
            let path = format!("/indexes/wide/documents{path}");
            let headers = [("content-type", kind)];
            let reply = api
                .send(method, &path, &headers, body.into_bytes())
                .await
                .unwrap();
            assert_eq!(reply.status, 202, "{path}: {}", reply.text);
            accepted.push(reply);
        }
        for reply in &accepted {
            let task = api.settle(reply).await.unwrap();
            outcomes.push(json!([
                task["status"],
                task["details"],
                task["error"]["code"]
            ]));
        }
        told.push((outcomes, read_all(api, "wide").await));
    }
    let [(ours, ours_read), (theirs, theirs_read)] = told.try_into().unwrap();
    assert_eq!(ours, theirs);
    assert_alike("wide", &ours_read, &theirs_read);
    assert_together(&cluster, "wide", 3).await;
}
