//! Nothing is broken: whichever Envoy a client asks, it sees one cluster.

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Reply, Single};

use super::three;
use crate::support::{MASTER_KEY, documents, start};

/// The client of a step: the edges take turns.
fn turn(edges: &[Api], number: usize) -> &Api {
    &edges[number % edges.len()]
}

/// An answer without what is different each time.
fn comparable(reply: &Reply) -> (u16, Value) {
    let mut body = reply.body.clone();
    drop_volatile(&mut body);
    (reply.status, body)
}

fn drop_volatile(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !["processingTimeMs", "requestUid"].contains(&name.as_str()));
            members.values_mut().for_each(drop_volatile);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_volatile),
        _ => {}
    }
}

/// Reads of every kind, whose answers have one order.
fn reads() -> Vec<(Method, &'static str, Value)> {
    let sorted = json!({"q": "amber", "sort": ["id:asc"], "limit": 7});
    let faceted = json!({"q": "", "facets": ["group"], "filter": "group < 5", "sort": ["id:desc"]});
    let page = json!({"q": "cedar number", "page": 2, "hitsPerPage": 5, "sort": ["id:asc"]});
    let shown = json!({"q": "birch", "sort": ["id:asc"], "showRankingScore": true,
        "attributesToHighlight": ["*"], "attributesToRetrieve": ["name"]});
    let both = json!({"queries": [
        {"indexUid": "x", "q": "dune", "sort": ["id:asc"]},
        {"indexUid": "y", "q": "dune", "sort": ["id:asc"], "limit": 3},
    ]});
    let federated = json!({"federation": {"limit": 6}, "queries": [
        {"indexUid": "x", "q": "ember", "filter": "group = 4", "sort": ["id:asc"]},
        {"indexUid": "y", "q": "ember", "filter": "group = 9", "sort": ["id:asc"]},
    ]});
    let post = Method::POST;
    vec![
        (post.clone(), "/indexes/x/search", sorted),
        (post.clone(), "/indexes/x/search", faceted),
        (post.clone(), "/indexes/y/search", page),
        (post.clone(), "/indexes/x/search", shown),
        (post.clone(), "/multi-search", both),
        (post.clone(), "/multi-search", federated),
        (
            post.clone(),
            "/indexes/x/facet-search",
            json!({"facetName": "name", "facetQuery": "am"}),
        ),
        (
            post,
            "/indexes/x/documents/fetch",
            json!({"filter": "id IN [3, 4, 150]", "fields": ["id", "name"], "sort": ["id:asc"]}),
        ),
        (Method::GET, "/indexes/x/documents/17", Value::Null),
        (Method::GET, "/indexes/y/documents/9999", Value::Null),
        (Method::GET, "/indexes/none/search?q=x", Value::Null),
        (Method::GET, "/indexes/x/settings", Value::Null),
    ]
}

async fn read(api: &Api, (method, path, body): &(Method, &str, Value)) -> Reply {
    match body {
        Value::Null => api.get(path).await.unwrap(),
        body => api.json(method.clone(), path, body).await.unwrap(),
    }
}

#[tokio::test]
async fn every_envoy_answers_reads_as_one_node_whichever_took_the_writes() {
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let one = Api::new(single.url(), Some(MASTER_KEY));
    let (cluster, _) = start(three().shards(3).replicas(1)).await;
    let edges = cluster.edges();
    let settings =
        json!({"filterableAttributes": ["id", "group", "name"], "sortableAttributes": ["id"]});
    let mut step = 0;
    for index in ["x", "y"] {
        let path = format!("/indexes/{index}/settings");
        for api in [&one, turn(&edges, step)] {
            let changed = api.json(Method::PATCH, &path, &settings).await.unwrap();
            api.succeed(&changed).await.unwrap();
        }
        let path = format!("/indexes/{index}/documents?primaryKey=id");
        for part in 0..6 {
            step += 1;
            let batch = documents(part * 50..part * 50 + 50);
            for api in [&one, turn(&edges, step)] {
                let added = api.post(&path, &batch).await.unwrap();
                api.succeed(&added).await.unwrap();
            }
        }
        for (path, body) in [
            ("documents/delete-batch", json!([5, 6, 7])),
            ("documents/delete", json!({"filter": "id > 290"})),
        ] {
            step += 1;
            for api in [&one, turn(&edges, step)] {
                let gone = api.post(&format!("/indexes/{index}/{path}"), &body).await;
                api.succeed(&gone.unwrap()).await.unwrap();
            }
        }
    }
    for request in reads() {
        let expected = comparable(&read(&one, &request).await);
        for edge in &edges {
            let found = comparable(&read(edge, &request).await);
            assert_eq!(found, expected, "{}: {request:?}", edge.base());
        }
    }
}

#[tokio::test]
async fn what_one_envoy_acknowledged_every_other_one_shows_at_once() {
    let (cluster, _) = start(three()).await;
    let edges = cluster.edges();
    for number in 0..40_usize {
        let (writes, asks) = (turn(&edges, number), turn(&edges, number + 1));
        let path = "/indexes/x/documents?primaryKey=id";
        let document = json!([{"id": number, "name": format!("amber number {number}")}]);
        let added = writes.post(path, &document).await.unwrap();
        asks.succeed(&added).await.unwrap();
        for edge in &edges {
            let base = edge.base();
            let path = format!("/indexes/x/documents/{number}");
            let shown = edge.get(&path).await.unwrap();
            assert_eq!(shown.body, document[0], "{base}: {}", shown.text);
            let found = edge.get("/indexes/x/search?q=amber&limit=0").await.unwrap();
            let total = found.at("/estimatedTotalHits");
            assert_eq!(total, &json!(number + 1), "{base}: {}", found.text);
        }
        // And what is gone is gone everywhere.
        if number % 8 == 7 {
            let gone = format!("/indexes/gone-{number}");
            let made = json!({"uid": format!("gone-{number}"), "primaryKey": "id"});
            let made = writes.post("/indexes", &made).await.unwrap();
            asks.succeed(&made).await.unwrap();
            for edge in &edges {
                assert_eq!(
                    edge.get(&gone).await.unwrap().status,
                    200,
                    "{}",
                    edge.base()
                );
            }
            let deleted = asks.delete(&gone).await.unwrap();
            writes.succeed(&deleted).await.unwrap();
            for edge in &edges {
                assert_eq!(
                    edge.get(&gone).await.unwrap().status,
                    404,
                    "{}",
                    edge.base()
                );
            }
        }
    }
}

#[tokio::test]
async fn settings_and_keys_hold_at_every_envoy_as_soon_as_they_are_made() {
    let (cluster, _) = start(three()).await;
    let edges = cluster.edges();
    let path = "/indexes/x/documents?primaryKey=id";
    let added = edges[0].post(path, &documents(0..60)).await.unwrap();
    edges[0].succeed(&added).await.unwrap();
    for number in 0..9_usize {
        let word = format!("word{number}");
        let change = json!({"synonyms": {&word: ["amber"]}});
        let changed = turn(&edges, number)
            .json(Method::PATCH, "/indexes/x/settings", &change)
            .await
            .unwrap();
        turn(&edges, number + 1).succeed(&changed).await.unwrap();
        let key = json!({"actions": ["search"], "indexes": ["x"], "expiresAt": null});
        let key = turn(&edges, number + 2).post("/keys", &key).await.unwrap();
        assert_eq!(key.status, 201, "{}", key.text);
        let value = key.at("/key").as_str().unwrap();
        let search = format!("/indexes/x/search?q={word}&limit=0");
        for edge in &edges {
            let found = edge.with_key(Some(value)).get(&search).await.unwrap();
            let total = found.at("/estimatedTotalHits");
            assert_eq!(total, &json!(12), "{}: {}", edge.base(), found.text);
        }
        let path = format!("/keys/{value}");
        let deleted = turn(&edges, number).delete(&path).await.unwrap();
        assert_eq!(deleted.status, 204, "{}", deleted.text);
        for edge in &edges {
            let refused = edge.with_key(Some(value)).get(&search).await.unwrap();
            assert_eq!(refused.status, 403, "{}: {}", edge.base(), refused.text);
        }
    }
}

#[tokio::test]
async fn the_mergers_say_who_leads_and_a_leader_can_be_asked_to_step_down() {
    let (cluster, _) = start(three().replicas(1)).await;
    let edges = cluster.edges();
    let leader = cluster.leader().await.unwrap().unwrap();
    for edge in &edges {
        let listed = edge.get("/_cluster/mergers").await.unwrap();
        assert_eq!(listed.status, 200, "{}", listed.text);
        assert_eq!(leaders(&listed), [address(&cluster, leader)]);
        assert_eq!(listed.at("/mergers").as_array().unwrap().len(), 3);
    }
    let stepped_down = edges[(leader + 1) % 3]
        .post("/_cluster/leader/step-down", &Value::Null)
        .await
        .unwrap();
    assert_eq!(stepped_down.status, 202, "{}", stepped_down.text);
    let process = cluster.pair(leader).merger().id();
    let next = cluster.wait_leader(Some(leader)).await.unwrap();
    cluster.wait_ready().await.unwrap();
    // In the same process, which follows now.
    assert_eq!(cluster.pair(leader).merger().id(), process);
    for edge in &edges {
        let listed = edge.get("/_cluster/mergers").await.unwrap();
        assert_eq!(
            leaders(&listed),
            [address(&cluster, next)],
            "{}",
            listed.text
        );
        let path = "/indexes/x/documents?primaryKey=id";
        let added = edge.post(path, &documents(0..5)).await.unwrap();
        edge.succeed(&added).await.unwrap();
    }
}

fn address(cluster: &Cluster, pair: usize) -> String {
    format!("127.0.0.1:{}", cluster.pair(pair).layout().merger())
}

fn leaders(listed: &Reply) -> Vec<&str> {
    let mergers = listed.at("/mergers").as_array().unwrap().iter();
    let leads = mergers.filter(|merger| merger["role"] == "leader");
    leads.filter_map(|it| it["address"].as_str()).collect()
}

#[tokio::test]
async fn a_feature_that_is_switched_off_is_off_at_every_envoy() {
    let (cluster, _) = start(three()).await;
    let edges = cluster.edges();
    let path = "/indexes/x/documents?primaryKey=id";
    let added = edges[0].post(path, &documents(0..60)).await.unwrap();
    edges[0].succeed(&added).await.unwrap();
    let settings = json!({"filterableAttributes": ["name"]});
    let set = edges[0].json(Method::PATCH, "/indexes/x/settings", &settings);
    edges[0].succeed(&set.await.unwrap()).await.unwrap();
    let search = json!({"filter": "name CONTAINS mber", "limit": 1});
    for number in 0..6_usize {
        for on in [true, false] {
            let features = json!({"containsFilter": on});
            let changed =
                turn(&edges, number).json(Method::PATCH, "/experimental-features", &features);
            let changed = changed.await.unwrap();
            assert_eq!(changed.status, 200, "{}", changed.text);
            // Asked again and again, an answer is remembered.
            for edge in edges.iter().cycle().take(5 * edges.len()) {
                let found = edge.post("/indexes/x/search", &search).await.unwrap();
                let wanted = if on { 200 } else { 400 };
                assert_eq!(found.status, wanted, "{}: {}", edge.base(), found.text);
            }
        }
    }
}
