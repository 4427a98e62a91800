//! Answers to searches are remembered as long as nothing changes, and never longer; what one client may see is never another's.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use weft_cluster::{Api, Cluster, Deadline, Reply, until};

use crate::support::{documents, node, start};

pub(crate) const SEARCH: &str = "/indexes/films/search";

pub(crate) async fn fill(api: &Api) {
    let path = "/indexes/films/documents?primaryKey=id";
    let accepted = api.post(path, &documents(0..100)).await.unwrap();
    api.succeed(&accepted).await.unwrap();
    let settings = json!({"filterableAttributes": ["group"]});
    let path = "/indexes/films/settings";
    let accepted = api.json(Method::PATCH, path, &settings).await.unwrap();
    api.succeed(&accepted).await.unwrap();
}

/// Searches, and asks how the answer came about.
async fn explained(api: &Api, body: &Value) -> Reply {
    let headers = [
        ("content-type", "application/json"),
        ("x-weft-explain", "true"),
    ];
    let body = body.to_string().into_bytes();
    let reply = api.send(Method::POST, SEARCH, &headers, body).await;
    let reply = reply.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply
}

pub(crate) fn is_remembered(reply: &Reply) -> bool {
    reply.at("/explain/remembered") == true
}

/// Searches until the answer is a remembered one: nodes are asked whether they are done only when somebody searches.
pub(crate) async fn until_remembered(api: &Api, body: &Value) -> Reply {
    let what = "a remembered answer";
    until(what, Deadline::after(Duration::from_secs(10)), || async {
        let found = api.post(SEARCH, body).await;
        found.map_err(|error| error.to_string())?;
        let reply = explained(api, body).await;
        match is_remembered(&reply) {
            true => Ok(reply),
            false => Err(reply.text),
        }
    })
    .await
    .unwrap()
}

async fn metric(cluster: &Cluster, name: &str) -> f64 {
    let metrics = Api::new(cluster.merger_url(), None);
    let metrics = metrics.get("/_weft/metrics").await.unwrap().text;
    let line = metrics.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}

pub(crate) fn ids(reply: &Reply) -> Vec<u64> {
    let hits = reply.at("/hits").as_array().unwrap().iter();
    hits.map(|hit| hit["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn an_answer_is_remembered_until_a_write_and_new_once_the_writes_task_has_succeeded() {
    let (cluster, api) = start(Cluster::builder().shards(2).replicas(2)).await;
    fill(&api).await;
    let amber = json!({"q": "amber", "limit": 5});
    let first = api.post(SEARCH, &amber).await.unwrap();
    let remembered = until_remembered(&api, &amber).await;
    assert_eq!(remembered.at("/hits"), first.at("/hits"));
    assert_eq!(remembered.at("/processingTimeMs"), 0);
    // The same parameters in another order.
    let other = explained(&api, &json!({"limit": 5, "q": "amber"})).await;
    assert!(is_remembered(&other), "{}", other.text);
    let another = explained(&api, &json!({"q": "amber", "limit": 6})).await;
    assert!(!is_remembered(&another), "{}", another.text);
    let hits = metric(
        &cluster,
        "weft_merger_remembered_answers_total{outcome=\"hit\"}",
    )
    .await;
    assert!(hits >= 2.0, "{hits}");
    assert!(metric(&cluster, "weft_merger_remembered_answers_bytes").await > 0.0);

    for round in 0..10 {
        let id = 1_000 + round;
        let document = json!([{"id": id, "name": "amber", "group": 1}]);
        let path = "/indexes/films/documents";
        let accepted = api.post(path, &document).await.unwrap();
        api.succeed(&accepted).await.unwrap();
        let found = api.post(SEARCH, &amber).await.unwrap();
        assert!(ids(&found).contains(&id), "{id}: {}", found.text);
        let remembered = until_remembered(&api, &amber).await;
        assert_eq!(remembered.at("/hits"), found.at("/hits"));
        let deleted = api.delete(&format!("{path}/{id}")).await.unwrap();
        api.succeed(&deleted).await.unwrap();
        let found = api.post(SEARCH, &amber).await.unwrap();
        assert!(!ids(&found).contains(&id), "{id}: {}", found.text);
    }

    // Reads of the client's own choice are answered by nodes.
    until_remembered(&api, &amber).await;
    let headers = [
        ("content-type", "application/json"),
        ("x-weft-explain", "true"),
        ("x-weft-read", "primary"),
    ];
    let body = amber.to_string().into_bytes();
    let primary = api
        .send(Method::POST, SEARCH, &headers, body)
        .await
        .unwrap();
    assert!(
        !is_remembered(&primary) && primary.status == 200,
        "{}",
        primary.text
    );
}

#[tokio::test]
async fn settings_and_swaps_and_deletions_make_new_answers() {
    let (_cluster, api) = start(Cluster::builder().shards(2)).await;
    fill(&api).await;
    let accepted = api
        .post(
            "/indexes/others/documents?primaryKey=id",
            &documents(100..130),
        )
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    let all = json!({"q": "", "limit": 200});
    assert_eq!(ids(&until_remembered(&api, &all).await).len(), 100);

    let swap = json!([{"indexes": ["films", "others"]}]);
    let accepted = api.post("/swap-indexes", &swap).await.unwrap();
    api.succeed(&accepted).await.unwrap();
    assert_eq!(ids(&api.post(SEARCH, &all).await.unwrap()).len(), 30);
    assert_eq!(ids(&until_remembered(&api, &all).await).len(), 30);

    let settings = json!({"pagination": {"maxTotalHits": 7}});
    let path = "/indexes/films/settings";
    let accepted = api.json(Method::PATCH, path, &settings).await.unwrap();
    api.succeed(&accepted).await.unwrap();
    let what = "the new setting in answers";
    until(what, Deadline::after(Duration::from_secs(10)), || async {
        let found = ids(&api.post(SEARCH, &all).await.unwrap()).len();
        (found == 7).then_some(()).ok_or(format!("{found} hits"))
    })
    .await
    .unwrap();
    assert_eq!(ids(&until_remembered(&api, &all).await).len(), 7);

    let deleted = api.delete("/indexes/films").await.unwrap();
    api.succeed(&deleted).await.unwrap();
    assert_eq!(api.post(SEARCH, &all).await.unwrap().status, 404);
}

/// A tenant token that an API key's holder makes.
fn token(uid: &str, key: &str, rules: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"apiKeyUid": uid, "searchRules": rules});
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let signed = format!("{}.{}", part(&header), part(&claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn tenants_with_different_rules_never_share_an_answer() {
    let (cluster, api) = start(Cluster::builder().shards(2)).await;
    fill(&api).await;
    let wanted =
        json!({"name": "tenants", "actions": ["search"], "indexes": ["*"], "expiresAt": null});
    let key = api.post("/keys", &wanted).await.unwrap();
    let text = |pointer: &str| key.at(pointer).as_str().unwrap().to_owned();
    let (uid, value) = (text("/uid"), text("/key"));
    let holder = |rules: Value| Api::new(cluster.url(), Some(&token(&uid, &value, &rules)));
    let group = |group: u64| holder(json!({"films": {"filter": format!("group = {group}")}}));
    let all = json!({"q": "", "limit": 200});
    until_remembered(&api, &all).await;
    for number in 0..3 {
        let tenant = group(number);
        let first = explained(&tenant, &all).await;
        assert!(!is_remembered(&first), "{number}: {}", first.text);
        let remembered = until_remembered(&tenant, &all).await;
        for reply in [first, remembered] {
            let hits = reply.at("/hits").as_array().unwrap().clone();
            assert_eq!(hits.len(), 10, "{number}");
            assert!(
                hits.iter().all(|hit| hit["group"] == number),
                "{number}: {}",
                reply.text
            );
        }
    }
    // The key sees what the master key sees. A token that allows another index only is refused, whatever is remembered.
    let plain = Api::new(cluster.url(), Some(&value));
    let what = "an answer remembered for one and given to the other";
    // A node that is slow for a moment makes answers anew.
    until(what, Deadline::after(Duration::from_secs(10)), || async {
        until_remembered(&api, &all).await;
        let reply = explained(&plain, &all).await;
        is_remembered(&reply).then_some(()).ok_or(reply.text)
    })
    .await
    .unwrap();
    let stranger = holder(json!({"others": null}));
    assert_eq!(stranger.post(SEARCH, &all).await.unwrap().status, 403);
    // Once the key is gone, so is what it could see.
    assert_eq!(
        api.delete(&format!("/keys/{uid}")).await.unwrap().status,
        204
    );
    for refused in [plain, group(0)] {
        assert_eq!(refused.post(SEARCH, &all).await.unwrap().status, 403);
    }
}

#[tokio::test]
async fn without_memory_for_answers_none_is_remembered() {
    let builder = Cluster::builder().shards(2);
    let (cluster, api) = start(builder.merger_env("WEFT_ANSWER_CACHE_BYTES", "0")).await;
    fill(&api).await;
    let amber = json!({"q": "amber"});
    for _ in 0..20 {
        assert!(!is_remembered(&explained(&api, &amber).await));
        api.post(SEARCH, &amber).await.unwrap();
    }
    let hits = metric(
        &cluster,
        "weft_merger_remembered_answers_total{outcome=\"hit\"}",
    )
    .await;
    assert!(hits == 0.0, "{hits}");
}

#[tokio::test]
async fn what_is_written_past_weft_is_found_soon() {
    let (cluster, api) = start(Cluster::builder().shards(2)).await;
    fill(&api).await;
    let all = json!({"q": "", "limit": 200});
    until_remembered(&api, &all).await;
    let by_hand = node(&cluster, 0);
    let document = json!([{"id": 5_000, "name": "by hand", "group": 1}]);
    let accepted = by_hand.post("/indexes/films/documents", &document).await;
    by_hand.succeed(&accepted.unwrap()).await.unwrap();
    let what = "the document in answers";
    until(what, Deadline::after(Duration::from_secs(10)), || async {
        let found = ids(&api.post(SEARCH, &all).await.unwrap()).len();
        (found == 101).then_some(()).ok_or(format!("{found} hits"))
    })
    .await
    .unwrap();
}
