//! Indexes by hash, by range and by field: a client sees what one node shows, whatever the strategy, and a search asks no shard in vain.

mod by_field;
mod changing;

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, Single, until};

use crate::support::{MASTER_KEY, documents, ids, node, start};

/// How the indexes of these scenarios are placed.
fn shardings() -> [(&'static str, Value); 3] {
    let by_number = json!({"strategy": "range", "ranges": [150, 300]});
    let by_many =
        json!({"strategy": "range", "ranges": [-5, 20, 40, 200, "b", "m-2"], "shardCount": 2});
    [
        ("hash", json!({"strategy": "hash"})),
        ("numbers", by_number),
        ("texts", by_many),
    ]
}

async fn create(api: &Api, uid: &str, sharding: Option<&Value>) {
    let mut body = json!({"uid": uid, "primaryKey": "id"});
    if let Some(sharding) = sharding {
        body["sharding"] = sharding.clone();
    }
    api.succeed(&api.post("/indexes", &body).await.unwrap())
        .await
        .unwrap();
    let settings = json!({"sortableAttributes": ["id", "order"], "filterableAttributes": ["id", "group", "name"]});
    let path = format!("/indexes/{uid}/settings");
    let set = api.json(Method::PATCH, &path, &settings).await.unwrap();
    api.succeed(&set).await.unwrap();
}

async fn write(api: &Api, method: Method, path: &str, kind: &str, body: &str) -> Value {
    let headers = [("content-type", kind)];
    let body = body.as_bytes().to_vec();
    let reply = api.send(method, path, &headers, body).await.unwrap();
    assert_eq!(reply.status, 202, "{path}: {}", reply.text);
    let task = api.settle(&reply).await.unwrap();
    json!([task["status"], task["details"], task["error"]["code"]])
}

/// Writes in every way, and returns what became of each write.
async fn write_all(api: &Api, uid: &str) -> Vec<Value> {
    const JSON: &str = "application/json";
    let path = format!("/indexes/{uid}/documents");
    let mut told = Vec::new();
    let first: Vec<Value> = (0..450_u64)
        .map(|id| json!({"id": id, "name": format!("amber {id}"), "group": id % 7, "order": id}))
        .collect();
    told.push(write(api, Method::POST, &path, JSON, &json!(first).to_string()).await);
    let lines = [
        json!({"id": "-7", "name": "birch", "group": 1, "order": 1001}),
        json!({"id": "a-1", "name": "birch a", "group": 2, "order": 1002}),
        json!({"id": "B", "name": "birch b", "group": 3, "order": 1003}),
        json!({"id": "m-3", "name": "birch m", "group": 4, "order": 1004}),
        json!({"id": "042", "name": "birch 042", "group": 5, "order": 1005}),
        json!({"id": "42", "name": "another 42", "group": 6, "order": 1006}),
    ];
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    told.push(
        write(
            api,
            Method::POST,
            &path,
            "application/x-ndjson",
            &lines.join("\n"),
        )
        .await,
    );
    let csv =
        "id,name,group:number,order:number\n7,cedar,9,1007\nzz,cedar z,9,1008\n-9,cedar,9,1009\n";
    told.push(write(api, Method::POST, &path, "text/csv", csv).await);
    let updates: Vec<Value> = (100..350_u64)
        .step_by(3)
        .map(|id| json!({"id": id, "mark": id}))
        .collect();
    told.push(write(api, Method::PUT, &path, JSON, &json!(updates).to_string()).await);
    told.push(
        write(
            api,
            Method::PUT,
            &path,
            JSON,
            r#"{"id": "B", "mark": true}"#,
        )
        .await,
    );
    told.push(write(api, Method::DELETE, &format!("{path}/151"), JSON, "").await);
    told.push(write(api, Method::DELETE, &format!("{path}/nobody"), JSON, "").await);
    let batch = format!("{path}/delete-batch");
    told.push(
        write(
            api,
            Method::POST,
            &batch,
            JSON,
            r#"[1, "152", "zz", 9999, 301]"#,
        )
        .await,
    );
    let by_filter = format!("{path}/delete");
    told.push(
        write(
            api,
            Method::POST,
            &by_filter,
            JSON,
            r#"{"filter": "id 200 TO 205"}"#,
        )
        .await,
    );
    told.push(
        write(
            api,
            Method::POST,
            &path,
            JSON,
            r#"[{"id": "no id", "name": "x"}]"#,
        )
        .await,
    );
    told
}

const FILTERS: [&str; 15] = [
    "id = 7",
    "id = 42",
    "id = '042'",
    "id = b",
    "id IN [3, 149, 150, 299, 300, 449, B, 'A-1', 'm-3']",
    "id 140 TO 160",
    "id >= 290 AND id < 310",
    "id > 440 OR id < -6",
    "id > a",
    "id <= 5 AND group = 3",
    "(id = 3 OR id = 310) AND NOT group = 3",
    "NOT id = 7",
    "group = 2 AND id IN [2, 9, 16]",
    "id = 3 AND id = 4",
    "id != 3 AND id < 10",
];

/// Everything that a client can ask about an index of these scenarios.
async fn read_all(api: &Api, uid: &str) -> Vec<(String, Value)> {
    let mut told = Vec::new();
    let mut tell = |what: String, value: Value| told.push((what, value));
    let search = format!("/indexes/{uid}/search");
    for filter in FILTERS {
        let body =
            json!({"filter": filter, "sort": ["order:asc"], "limit": 1000, "facets": ["group"]});
        let found = api.post(&search, &body).await.unwrap();
        tell(
            format!("search {filter}"),
            json!([
                found.status,
                found.at("/hits"),
                found.at("/facetDistribution")
            ]),
        );
        let body = json!({"facetName": "name", "facetQuery": "amber", "filter": filter});
        let found = api
            .post(&format!("/indexes/{uid}/facet-search"), &body)
            .await
            .unwrap();
        tell(
            format!("facet {filter}"),
            json!([found.status, found.at("/facetHits")]),
        );
        let body = json!({"filter": filter, "sort": ["order:asc"], "limit": 1000});
        let found = api
            .post(&format!("/indexes/{uid}/documents/fetch"), &body)
            .await
            .unwrap();
        tell(
            format!("documents {filter}"),
            json!([found.status, found.at("/results"), found.at("/total")]),
        );
        let query = json!({"indexUid": uid, "filter": filter, "sort": ["order:asc"]});
        let whole = json!({"indexUid": uid, "q": "cedar", "sort": ["order:asc"]});
        let body = json!({"queries": [query, whole]});
        let found = api.post("/multi-search", &body).await.unwrap();
        tell(
            format!("several {filter}"),
            json!([found.at("/results/0/hits"), found.at("/results/1/hits")]),
        );
        let body = json!({"federation": {"limit": 1000, "facetsByIndex": {uid: ["group"]}}, "queries": [query, whole]});
        let found = api.post("/multi-search", &body).await.unwrap();
        let mut hits: Vec<String> = found
            .at("/hits")
            .as_array()
            .unwrap()
            .iter()
            .map(|hit| hit["id"].to_string())
            .collect();
        hits.sort();
        tell(
            format!("federated {filter}"),
            json!([hits, found.at("/facetsByIndex")]),
        );
    }
    for id in [
        "0", "7", "42", "042", "151", "B", "b", "m-3", "-9", "nobody",
    ] {
        let found = api
            .get(&format!("/indexes/{uid}/documents/{id}"))
            .await
            .unwrap();
        tell(
            format!("document {id}"),
            json!([found.status, found.body["name"], found.body["mark"]]),
        );
    }
    let stats = api.get(&format!("/indexes/{uid}/stats")).await.unwrap();
    tell("count".to_owned(), stats.at("/numberOfDocuments").clone());
    told
}

async fn compare(cluster: &Api, single: &Api) {
    for (uid, sharding) in shardings() {
        create(cluster, uid, Some(&sharding)).await;
        create(single, uid, None).await;
        let (ours, theirs) = (write_all(cluster, uid).await, write_all(single, uid).await);
        for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(ours, theirs, "{uid}: write {at}");
        }
        let (ours, theirs) = (read_all(cluster, uid).await, read_all(single, uid).await);
        for ((what, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{uid}: {what}");
        }
    }
}

#[tokio::test]
async fn whatever_the_strategy_a_client_sees_what_one_node_shows() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    compare(&api, &Api::new(single.url(), Some(MASTER_KEY))).await;
    // Where documents lie by range, each number is where it was said to be.
    for (shard, numbers) in [(0, 0..150), (1, 150..300), (2, 300..450)] {
        let list = node(&cluster, shard)
            .get("/indexes/numbers/documents?limit=1000")
            .await
            .unwrap();
        let held = list.at("/results").as_array().unwrap().clone();
        let held: Vec<u64> = held.iter().filter_map(|one| one["id"].as_u64()).collect();
        assert!(
            !held.is_empty() && held.iter().all(|id| numbers.contains(id)),
            "{shard}: {held:?}"
        );
    }
}

#[tokio::test]
async fn without_the_filter_nothing_is_different() {
    let (_cluster, api) = start(Cluster::builder().shards(3).filter(false)).await;
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    compare(&api, &Api::new(single.url(), Some(MASTER_KEY))).await;
}

/// The shards that were asked, as the answer explains.
async fn asked(api: &Api, path: &str, body: &Value) -> BTreeSet<u64> {
    let headers = [
        ("content-type", "application/json"),
        ("x-weft-explain", "true"),
    ];
    let body = body.to_string().into_bytes();
    let found = api.send(Method::POST, path, &headers, body).await.unwrap();
    assert_eq!(found.status, 200, "{}", found.text);
    if let Some(whole) = found.headers.get("x-weft-explain") {
        let whole = whole.to_str().unwrap().strip_prefix("shards=").unwrap();
        let shard = whole.strip_suffix("; whole=true").unwrap();
        return BTreeSet::from([shard.parse().unwrap()]);
    }
    let shards = found.at("/explain/shards").as_array().unwrap();
    shards
        .iter()
        .map(|part| part["shard"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_search_asks_only_the_shards_whose_ranges_its_filter_can_match() {
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    let sharding = json!({"strategy": "range", "ranges": [2000, 3000]});
    create(&api, "x", Some(&sharding)).await;
    let added = api
        .post("/indexes/x/documents", &documents(1_500..3_500))
        .await
        .unwrap();
    api.succeed(&added).await.unwrap();
    let on = |shards: &[u64]| shards.iter().copied().collect::<BTreeSet<u64>>();
    for (filter, shards) in [
        (json!("id = 2500"), on(&[1])),
        (json!("id IN [1600, 1700]"), on(&[0])),
        (
            json!(["group = 1", ["id = 1600", "id = 3400"]]),
            on(&[0, 2]),
        ),
        (json!("(id = 1600 OR id = 2100) AND group = 0"), on(&[0, 1])),
        // The text `25` would match, too, and `25000`.
        (json!("id 2500 TO 2600"), on(&[0, 1, 2])),
        (json!("group = 1 OR id = 2500"), on(&[0, 1, 2])),
        (json!("NOT id = 2500"), on(&[0, 1, 2])),
    ] {
        let search = json!({"q": "", "filter": filter});
        assert_eq!(
            asked(&api, "/indexes/x/search", &search).await,
            shards,
            "{filter}"
        );
        let fetch = json!({"filter": filter});
        assert_eq!(
            asked(&api, "/indexes/x/documents/fetch", &fetch).await,
            shards,
            "{filter}"
        );
        let facet = json!({"facetName": "name", "filter": filter});
        assert_eq!(
            asked(&api, "/indexes/x/facet-search", &facet).await,
            shards,
            "{filter}"
        );
    }
    let shards = api.get("/indexes/x/_shards").await.unwrap();
    assert_eq!(shards.at("/strategy"), "range", "{}", shards.text);
    assert_eq!(shards.at("/ranges"), &json!([2000, 3000]));
    assert_eq!(
        shards.at("/shards/1/ranges"),
        &json!([{"from": 2000, "to": 3000}])
    );
    for (shard, count) in [(0, 500), (1, 1000), (2, 500)] {
        let at = |what: &str| shards.at(&format!("/shards/{shard}/{what}")).clone();
        assert_eq!(at("documents"), count, "{}", shards.text);
        assert!(at("bytes").as_u64() > Some(0), "{}", shards.text);
    }
}

#[tokio::test]
async fn a_strategy_that_makes_no_sense_is_refused_and_an_index_keeps_its_own() {
    let builder = Cluster::builder().shards(3);
    let builder = builder.merger_env("WEFT_DEFAULT_STRATEGY", "range:100,200");
    let (cluster, api) = start(builder).await;
    for (sharding, words) in [
        (json!({"strategy": "range"}), "needs `ranges`"),
        (
            json!({"strategy": "range", "ranges": [2, 1]}),
            "isn't larger",
        ),
        (json!({"strategy": "range", "ranges": ["a b"]}), "character"),
        (json!({"ranges": [1]}), "goes with the strategy `range`"),
        (
            json!({"strategy": "field", "field": "owner.tenant"}),
            "can't be a routing field",
        ),
    ] {
        let body = json!({"uid": "no", "sharding": sharding});
        let refused = api.post("/indexes", &body).await.unwrap();
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.text.contains(words), "{}", refused.text);
    }
    let added = api
        .post("/indexes/x/documents?primaryKey=id", &documents(0..300))
        .await
        .unwrap();
    api.succeed(&added).await.unwrap();
    for shard in 0..3_u16 {
        let first = u64::from(shard) * 100;
        assert_eq!(
            ids(&node(&cluster, shard), "x").await,
            (first..first + 100).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn an_index_by_range_grows_and_keeps_its_documents_and_its_ranges() {
    let builder = Cluster::builder().shards(4).replicas(1);
    let builder = builder
        .merger_env("WEFT_LEASE_MS", "1000")
        .merger_env("WEFT_MOVE_BATCH", "100");
    let (cluster, api) = start(builder).await;
    let sharding = json!({"strategy": "range", "ranges": [400, 800], "shardCount": 3});
    create(&api, "x", Some(&sharding)).await;
    let added = api
        .post("/indexes/x/documents", &documents(0..1_200))
        .await
        .unwrap();
    api.succeed(&added).await.unwrap();
    let grow = json!({"sharding": {"shardCount": null}});
    let set = api.json(Method::PATCH, "/indexes/x", &grow).await.unwrap();
    api.succeed(&set).await.unwrap();
    // Writes while slots move: new documents, updates of some fields, deletions.
    let mut wanted: BTreeSet<u64> = (0..1_200).collect();
    let mut next = 0_u64;
    until(
        "the moves have ended",
        Deadline::after(Duration::from_secs(120)),
        || {
            next += 1;
            let (id, gone, api) = (next * 37 % 1_200, 1_200 + next, api.clone());
            wanted.insert(gone);
            async move {
                let mark = json!([{"id": id, "mark": next}, {"id": gone, "name": "new"}]);
                let put = api.json(Method::PUT, "/indexes/x/documents", &mark).await;
                let put = put.map_err(|error| error.to_string())?;
                assert_eq!(put.status, 202, "{}", put.text);
                let found = api
                    .get(&format!("/indexes/x/documents/{}", next % 1_200))
                    .await;
                assert_eq!(found.map_err(|error| error.to_string())?.status, 200);
                let listed = api
                    .get("/_cluster/moves")
                    .await
                    .map_err(|error| error.to_string())?;
                let moves = listed.at("/moves").as_array().cloned().unwrap_or_default();
                match !moves.is_empty() && moves.iter().all(|one| one["state"] == "done") {
                    true => Ok(()),
                    false => Err(listed.text),
                }
            }
        },
    )
    .await
    .unwrap();
    let last = api
        .post(
            "/indexes/x/documents",
            &json!([{"id": 5000, "name": "last"}]),
        )
        .await
        .unwrap();
    api.succeed(&last).await.unwrap();
    wanted.insert(5000);
    let mut held = Vec::new();
    for shard in 0..4 {
        let here = ids(&node(&cluster, shard), "x").await;
        assert!(here.len() > 100, "shard {shard} has {}", here.len());
        held.extend(here);
    }
    assert_eq!(held.len(), wanted.len(), "no document is on two shards");
    assert_eq!(held.into_iter().collect::<BTreeSet<_>>(), wanted);
    let marked = api.get("/indexes/x/documents/37").await.unwrap();
    assert!(
        marked.at("/name").is_string() && marked.at("/mark").is_number(),
        "{}",
        marked.text
    );
    let shards = api.get("/indexes/x/_shards").await.unwrap();
    assert_eq!(shards.at("/ranges"), &json!([400, 800]), "{}", shards.text);
    // A range lies on its own shard and on the new one.
    let one = asked(&api, "/indexes/x/search", &json!({"filter": "id = 500"})).await;
    assert_eq!(one.len(), 1, "{one:?}");
}
