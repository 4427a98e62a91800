//! Searches over several shards in special cases: a shard is down or hangs, a client disconnects, a document is on two nodes, a page
//! is long.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, Reply, until};

use crate::support::{counter, documents, node, start};

/// A cluster of three shards whose index `x` holds 300 documents.
async fn filled(setting: Option<(&str, &str)>) -> (Cluster, Api) {
    let mut builder = Cluster::builder().shards(3);
    if let Some((name, value)) = setting {
        builder = builder.merger_env(name, value);
    }
    let (cluster, api) = start(builder).await;
    let added = api
        .post("/indexes/x/documents?primaryKey=id", &documents(0..300))
        .await
        .unwrap();
    api.succeed(&added).await.unwrap();
    (cluster, api)
}

async fn search(api: &Api, body: &Value, policy: Option<&str>) -> Reply {
    let policy: Vec<(&str, &str)> = policy
        .map(|policy| ("x-weft-partial", policy))
        .into_iter()
        .chain([("content-type", "application/json")])
        .collect();
    let path = "/indexes/x/search";
    api.send(Method::POST, path, &policy, body.to_string().into_bytes())
        .await
        .unwrap()
}

fn shown(reply: &Reply) -> Vec<u64> {
    let hits = reply.at("/hits").as_array().unwrap();
    hits.iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
}

/// The header on an answer that lacks a shard.
fn note(reply: &Reply) -> Option<&str> {
    reply
        .headers
        .get("x-weft-degraded")
        .map(|value| value.to_str().unwrap())
}

/// Checks that an answer says that shard 1 is missing.
fn assert_degraded(reply: &Reply) {
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(note(reply), Some("shards=1; coverage=0.67"));
    assert_eq!(
        reply.at("/degraded"),
        &json!({"missingShards": [1], "coverage": 0.6667})
    );
    let hits = shown(reply).len();
    assert!(
        (100..300).contains(&hits),
        "{hits} hits of two shards of 300"
    );
}

/// Checks that an answer is complete, and doesn't say that a shard is missing.
fn assert_whole(reply: &Reply) {
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(note(reply), None);
    assert_eq!(reply.at("/degraded"), &Value::Null);
    assert_eq!(shown(reply).len(), 300);
}

fn assert_names_the_shard(reply: &Reply, within: Duration) {
    assert_eq!(reply.status, 503, "{}", reply.text);
    let message = reply.at("/message").as_str().unwrap();
    assert!(message.contains("shard-1"), "{message}");
    assert!(within < Duration::from_secs(6), "it took {within:?}");
}

#[tokio::test]
async fn the_client_chooses_what_a_search_does_without_a_shard() {
    let (cluster, api) = filled(None).await;
    let all = json!({"q": "", "limit": 1000});
    assert_whole(&search(&api, &all, Some("partial")).await);
    for hangs in [false, true] {
        let shard = cluster.node(1, 0);
        if hangs {
            shard.pause().unwrap();
        } else {
            shard.kill().unwrap();
        }
        assert_degraded(&search(&api, &all, Some("partial; deadline=700")).await);
        for policy in ["error; deadline=700", "wait; deadline=700"] {
            let begun = Instant::now();
            let refused = search(&api, &all, Some(policy)).await;
            assert_names_the_shard(&refused, begun.elapsed());
        }
        // A search that waits is answered when the shard is back.
        let waiting = search(&api, &all, Some("wait; deadline=20000"));
        let back = async {
            if hangs {
                shard.resume().unwrap();
            } else {
                shard.restart().unwrap();
            }
        };
        let (whole, ()) = tokio::join!(waiting, back);
        assert_whole(&whole);
        cluster.wait_node_readable(1, 0, true).await.unwrap();
    }
}

#[tokio::test]
async fn the_option_applies_to_searches_whose_client_chooses_nothing() {
    let (cluster, api) = filled(Some(("WEFT_PARTIAL", "partial; deadline=2000"))).await;
    cluster.node(1, 0).kill().unwrap();
    let all = json!({"q": "", "limit": 1000});
    assert_degraded(&search(&api, &all, None).await);
    let refused = search(&api, &all, Some("error")).await;
    assert_names_the_shard(&refused, Duration::ZERO);
    let many =
        json!({"queries": [{"indexUid": "x", "q": "amber"}, {"indexUid": "x", "q": "dune"}]});
    let lists = api.get("/indexes/x/documents?limit=1000").await.unwrap();
    let federated = json!({"federation": {}, "queries": [{"indexUid": "x", "q": "amber"}]});
    let several = api.post("/multi-search", &many).await.unwrap();
    let federated = api.post("/multi-search", &federated).await.unwrap();
    for reply in [&lists, &several, &federated] {
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(note(reply), Some("shards=1; coverage=0.67"));
        assert_eq!(reply.at("/degraded/missingShards"), &json!([1]));
    }
}

#[tokio::test]
async fn when_a_client_disconnects_its_requests_to_the_shards_end() {
    let (cluster, api) = filled(None).await;
    let body = json!({"q": "amber"});
    // This search loads the index's settings; without them, the merger sends no search to the shards.
    let before = search(&api, &body, None).await;
    assert_eq!(before.status, 200, "{}", before.text);
    for shard in 0..3 {
        cluster.node(shard, 0).pause().unwrap();
    }
    let leaving = search(&api, &body, Some("wait; deadline=60000"));
    let arrived = until(
        "requests at all shards",
        Deadline::after(Duration::from_secs(10)),
        || async {
            match counter(&cluster, &["envoy_cluster_upstream_rq_active{", "\"shard-"]).await {
                0..3 => Err("fewer than three".to_owned()),
                _ => Ok(()),
            }
        },
    );
    tokio::select! {
        reply = leaving => panic!("no node could answer, but the answer is {}", reply.text),
        arrived = arrived => arrived.unwrap(),
    }
    // The client's future is dropped, its connection closed; the nodes still hang.
    until(
        "no request at any shard",
        Deadline::after(Duration::from_secs(10)),
        || async {
            let active =
                counter(&cluster, &["envoy_cluster_upstream_rq_active{", "\"shard-"]).await;
            if active == 0 {
                Ok(())
            } else {
                Err(format!("{active} requests are active"))
            }
        },
    )
    .await
    .unwrap();
    for shard in ["\"shard-0\"", "\"shard-1\"", "\"shard-2\""] {
        let reset = counter(
            &cluster,
            &[
                "envoy_cluster_upstream_cx_destroy_local_with_active_rq{",
                shard,
            ],
        )
        .await;
        assert!(reset > 0, "no request to {shard} was cut off");
    }
    for shard in 0..3 {
        cluster.node(shard, 0).resume().unwrap();
    }
}

#[tokio::test]
async fn a_document_on_two_nodes_is_shown_and_counted_once() {
    let (cluster, api) = filled(None).await;
    // As after an interrupted move: every document of shard 0 is on shard 1, too.
    let moved = node(&cluster, 0)
        .get("/indexes/x/documents?limit=1000")
        .await
        .unwrap();
    let moved = moved.at("/results").clone();
    let copies = moved.as_array().unwrap().len();
    assert!(copies > 50, "{copies} documents on shard 0");
    let other = node(&cluster, 1);
    let added = other
        .post("/indexes/x/documents?primaryKey=id", &moved)
        .await
        .unwrap();
    other.succeed(&added).await.unwrap();

    let all = json!({"q": "", "limit": 1000});
    let whole = search(&api, &all, None).await;
    let ids = shown(&whole);
    let mut once = ids.clone();
    once.sort_unstable();
    assert_eq!(once, (0..300).collect::<Vec<_>>());
    assert_eq!(whole.at("/estimatedTotalHits"), 300);
    let titles = search(
        &api,
        &json!({"q": "number", "limit": 1000, "attributesToRetrieve": ["name"]}),
        None,
    )
    .await;
    let hits = titles.at("/hits").as_array().unwrap();
    assert_eq!(hits.len(), 300);
    // For this, the merger requests the ids from the shards, and leaves them out of the answer.
    assert!(
        hits.iter().all(|hit| hit.get("id").is_none()),
        "{}",
        hits[0]
    );
    // The pages together equal the whole list.
    let mut pages = Vec::new();
    for page in 1..=30 {
        pages.extend(shown(
            &search(
                &api,
                &json!({"q": "", "page": page, "hitsPerPage": 10}),
                None,
            )
            .await,
        ));
    }
    assert_eq!(pages, ids);
    let listed = api.get("/indexes/x/documents?limit=1000").await.unwrap();
    let mut listed: Vec<u64> = listed
        .at("/results")
        .as_array()
        .unwrap()
        .iter()
        .map(|document| document["id"].as_u64().unwrap())
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, (0..300).collect::<Vec<_>>());
    let federated =
        json!({"federation": {"limit": 1000}, "queries": [{"indexUid": "x", "q": "number"}]});
    let federated = api.post("/multi-search", &federated).await.unwrap();
    assert_eq!(shown(&federated).len(), 300);
}

/// The shard of each request, and how many hits it requested.
fn asked(reply: &Reply) -> Vec<(u64, u64)> {
    let parts = reply.at("/explain/shards").as_array().unwrap();
    let number = |part: &Value, name: &str| part[name].as_u64().unwrap();
    parts
        .iter()
        .map(|part| (number(part, "shard"), number(part, "asked")))
        .collect()
}

#[tokio::test]
async fn a_long_page_fetches_little_more_than_it_shows() {
    let (cluster, api) = start(Cluster::builder().shards(8)).await;
    let settings = json!({"sortableAttributes": ["place"]});
    let path = "/indexes/x/documents?primaryKey=id";
    let added = api.post(path, &documents(0..4000)).await.unwrap();
    api.succeed(&added).await.unwrap();
    let accepted = api
        .json(Method::PATCH, "/indexes/x/settings", &settings)
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    let explained = async |body: &Value| {
        let headers = [
            ("x-weft-explain", "true"),
            ("content-type", "application/json"),
        ];
        let body = body.to_string().into_bytes();
        api.send(Method::POST, "/indexes/x/search", &headers, body)
            .await
            .unwrap()
    };
    for (body, end, shows) in [
        (json!({"q": "number", "limit": 1000}), 1000, 1000),
        (json!({"q": "amber", "offset": 400, "limit": 400}), 800, 400),
        (json!({"q": "", "page": 2, "hitsPerPage": 500}), 1000, 500),
    ] {
        let reply = explained(&body).await;
        assert_eq!(shown(&reply).len(), shows, "{body}");
        let total: u64 = asked(&reply).iter().map(|(_, asked)| asked).sum();
        assert!(
            (end..2 * end).contains(&total),
            "{total} hits were requested for the first {end} of {body}"
        );
    }
    // If one shard holds the whole page, only this shard is asked again, in steps.
    let there = node(&cluster, 0)
        .get("/indexes/x/documents?limit=1000&fields=id")
        .await
        .unwrap();
    let mut there = there.at("/results").clone();
    for document in there.as_array_mut().unwrap() {
        document["place"] = 1.into();
    }
    let count = there.as_array().unwrap().len();
    let changed = api
        .json(Method::PUT, "/indexes/x/documents", &there)
        .await
        .unwrap();
    api.succeed(&changed).await.unwrap();
    let reply = explained(&json!({"q": "", "limit": count, "sort": ["place:desc"]})).await;
    assert_eq!(shown(&reply).len(), count);
    let of = |shard: u64| -> Vec<u64> {
        let asked = asked(&reply).into_iter().filter(|(at, _)| *at == shard);
        asked.map(|(_, asked)| asked).collect()
    };
    assert!(of(0).len() > 1, "{:?}", of(0));
    for other in 1..8 {
        assert_eq!(of(other).len(), 1, "shard {other} had nothing to add");
    }
    let total: u64 = asked(&reply).iter().map(|(_, asked)| asked).sum();
    assert!(total < 4 * count as u64, "{total} for {count} hits");
}
