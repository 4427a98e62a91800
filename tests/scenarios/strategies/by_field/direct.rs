//! Searches of one tenant that go straight to its shard: the merger isn't asked, and a client sees what one node shows.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use sha2::Sha256;
use weft_cluster::{Api, Cluster, Deadline, Reply, Single, until};

use super::{JSON, by_tenant, create, document, tenant_of};
use crate::strategies::write;
use crate::support::{MASTER_KEY, start};

/// How many searches of one index the merger has got.
async fn searches_merged(cluster: &Cluster) -> u64 {
    let merger = Api::new(cluster.merger_url(), None);
    let metrics = merger.get("/_weft/metrics").await.unwrap().text;
    let counts = metrics.lines().filter(|line| {
        line.starts_with("weft_merger_requests_total{") && line.contains("operation=\"search-")
    });
    counts
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// What a node shows but for the time that it took.
fn shown(reply: &Reply) -> Value {
    let mut body = reply.body.clone();
    if let Some(body) = body.as_object_mut() {
        body.remove("processingTimeMs");
        body.remove("requestUid");
    }
    json!([reply.status, body])
}

async fn search(api: &Api, by_get: bool, parameters: &Value) -> Reply {
    if !by_get {
        return api.post("/indexes/x/search", parameters).await.unwrap();
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(elements) if elements.iter().all(Value::is_string) => {
            let texts = elements.iter().filter_map(Value::as_str);
            texts.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    };
    let parameters = parameters.as_object().unwrap().iter();
    let pairs = parameters.map(|(name, value)| match name.as_str() {
        "filter" if value.is_array() => (name, value.to_string()),
        _ => (name, text(value)),
    });
    let url = Url::parse_with_params("http://node/indexes/x/search", pairs).unwrap();
    let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    api.get(&path).await.unwrap()
}

/// A tenant's searches: whether the merger isn't needed, and what is asked.
fn searches() -> Vec<(bool, Value)> {
    vec![
        (
            true,
            json!({"filter": "tenant = acme", "sort": ["order:asc"], "limit": 1000}),
        ),
        (
            true,
            json!({"filter": "tenant = ' ACME' AND group = 3", "facets": ["*"], "sort": ["order:desc"]}),
        ),
        (
            true,
            json!({"filter": "tenant = 'CITÉ'", "q": "amber 3", "showRankingScore": true, "limit": 9}),
        ),
        (
            true,
            json!({"filter": "tenant = 7", "hitsPerPage": 5, "page": 3, "sort": ["order:asc"]}),
        ),
        (
            true,
            json!({"filter": ["group = 1", ["tenant = Bolt", "tenant = bolt"]], "facets": ["tenant", "group"], "sort": ["order:asc"]}),
        ),
        (
            true,
            json!({"filter": "tenant = acme", "distinct": "group", "sort": ["order:asc"]}),
        ),
        (
            true,
            json!({"filter": "tenant = nobody", "facets": ["group"]}),
        ),
        (true, json!({"filter": "tenant = acme AND unknown = 1"})),
        (
            true,
            json!({"filter": "tenant = acme", "sort": ["unknown:asc"]}),
        ),
        (true, json!({"filter": "tenant = acme", "unknown": 1})),
        (
            false,
            json!({"filter": "tenant != acme", "sort": ["order:asc"]}),
        ),
        (
            false,
            json!({"filter": "tenant = acme AND mark != 1", "sort": ["order:asc"]}),
        ),
        (
            false,
            json!({"filter": "tenant = acme OR group = 1", "sort": ["order:asc"], "limit": 1000}),
        ),
        (
            false,
            json!({"filter": "tenant = acme", "attributesToSearchOn": ["name"], "q": "amber", "sort": ["order:asc"]}),
        ),
        (
            false,
            json!({"filter": "tenant = acme", "matchingStrategy": "frequency", "q": "amber", "sort": ["order:asc"]}),
        ),
        (false, json!({"sort": ["order:asc"], "limit": 5})),
    ]
}

fn token(uid: &str, key: &str, rules: &Value) -> String {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"apiKeyUid": uid, "searchRules": rules});
    let signed = format!(
        "{}.{}",
        part(json!({"alg": "HS256", "typ": "JWT"})),
        part(claims)
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

/// Waits until all workers' filters know the index.
async fn until_direct(cluster: &Cluster, api: &Api) {
    let deadline = Deadline::after(Duration::from_secs(30));
    until("the filters' tables", deadline, || async {
        let before = searches_merged(cluster).await;
        for _ in 0..20 {
            let found = search(api, true, &json!({"filter": "tenant = acme"})).await;
            if found.status != 200 {
                return Err(found.text);
            }
        }
        match searches_merged(cluster).await - before {
            0 => Ok(()),
            more => Err(format!("{more} of 20 searches reached the merger")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_tenants_search_does_not_reach_the_merger_and_shows_what_one_node_shows() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let alone = Api::new(single.url(), Some(MASTER_KEY));
    let all: Value = (0..300).map(|id| document(id, &tenant_of(id))).collect();
    let wanted = json!({"uid": "6062abda-a5aa-4414-ac91-ecd7944c0f8d", "actions": ["search"], "indexes": ["x"], "expiresAt": null});
    let mut keys = Vec::new();
    for (api, sharding) in [(&api, Some(by_tenant(3))), (&alone, None)] {
        create(api, "x", sharding.as_ref()).await;
        let body = all.to_string();
        write(api, Method::POST, "/indexes/x/documents", JSON, &body).await;
        let key = api.post("/keys", &wanted).await.unwrap();
        keys.push(key.at("/key").as_str().unwrap().to_owned());
    }
    assert_eq!(keys[0], keys[1]);
    let uid = wanted["uid"].as_str().unwrap();
    until_direct(&cluster, &api).await;

    for (is_direct, parameters) in searches() {
        for by_get in [true, false] {
            let before = searches_merged(&cluster).await;
            let ours = search(&api, by_get, &parameters).await;
            let merged = searches_merged(&cluster).await - before;
            assert_eq!(merged, u64::from(!is_direct), "{parameters}: {}", ours.text);
            let theirs = search(&alone, by_get, &parameters).await;
            assert_eq!(shown(&ours), shown(&theirs), "{parameters}");
        }
    }

    // The token alone names the tenant.
    let all = json!({"q": "amber", "sort": ["order:asc"], "facets": ["tenant"]});
    let foreign = json!({"filter": "tenant = dune", "sort": ["order:asc"]});
    for (is_direct, rules, parameters) in [
        (true, json!({"x": {"filter": "tenant = ember"}}), &all),
        (
            true,
            json!({"*": {"filter": ["tenant = ember", "group = 1"]}}),
            &all,
        ),
        (true, json!(["x"]), &foreign),
        (false, json!({"x": {"filter": "tenant = ember"}}), &foreign),
        (
            false,
            json!({"x": {"filter": "tenant = ember AND group != 1"}}),
            &all,
        ),
        (false, json!({"x": {}}), &all),
    ] {
        let token = token(uid, &keys[0], &rules);
        let ours = Api::new(cluster.url(), Some(&token));
        let theirs = Api::new(single.url(), Some(&token));
        for by_get in [true, false] {
            let before = searches_merged(&cluster).await;
            let ours = search(&ours, by_get, parameters).await;
            let merged = searches_merged(&cluster).await - before;
            assert_eq!(merged, u64::from(!is_direct), "{rules}: {}", ours.text);
            let theirs = search(&theirs, by_get, parameters).await;
            assert_eq!(shown(&ours), shown(&theirs), "{rules}");
        }
    }
    // A token that no node takes is refused by the shard, too.
    let forged = token(
        uid,
        "another key",
        &json!({"x": {"filter": "tenant = ember"}}),
    );
    let before = searches_merged(&cluster).await;
    let refused = search(&Api::new(cluster.url(), Some(&forged)), false, &all).await;
    assert_eq!(
        (refused.status, refused.at("/code")),
        (403, &json!("invalid_api_key"))
    );
    assert_eq!(searches_merged(&cluster).await, before);

    // Who asks how an answer came about asks the merger.
    let headers = [("content-type", JSON), ("x-weft-explain", "true")];
    let body = json!({"filter": "tenant = acme"}).to_string().into_bytes();
    let explained = api.send(Method::POST, "/indexes/x/search", &headers, body);
    assert!(
        explained
            .await
            .unwrap()
            .headers
            .contains_key("x-weft-explain")
    );
    assert_eq!(searches_merged(&cluster).await, before + 1);
}
