//! Tenant tokens whose rules name fields that not all shards know.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Both, assert_no_difference, with_query};

/// A key that may search the indexes `x` and `y`.
async fn search_key(both: &Both) -> (String, String) {
    let uid = "5a5a5a5a-5a5a-4a5a-8a5a-5a5a5a5a5a5a";
    let key = json!({"uid": uid, "actions": ["search"], "indexes": ["x", "y"], "expiresAt": null});
    let mut values = Vec::new();
    for api in [&both.one, &both.many] {
        let made = api.post("/keys", &key).await.unwrap();
        assert_eq!(made.status, 201, "{}", made.text);
        values.push(made.at("/key").as_str().unwrap().to_owned());
    }
    assert_eq!(
        values[0], values[1],
        "a key's value follows from its uid and the master key"
    );
    (uid.to_owned(), values.remove(0))
}

fn token(key: &(String, String), rules: &Value, expires: Option<i64>) -> String {
    let (uid, value) = key;
    let encode = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let payload = json!({"searchRules": rules, "apiKeyUid": uid, "exp": expires});
    let signed = format!(
        "{}.{}",
        encode(json!({"alg": "HS256", "typ": "JWT"})),
        encode(payload)
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(value.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

/// Every search that a tenant may send, with this filter of its own.
fn searches(filter: &Value) -> Vec<(Method, String, Value)> {
    let query = |uid: &str| json!({"indexUid": uid, "filter": filter, "limit": 200, "attributesToRetrieve": ["id"]});
    let mut all = vec![
        (Method::POST, "/indexes/x/search", json!({"q": "amber", "filter": filter, "limit": 200, "facets": ["group"], "attributesToRetrieve": ["id"]})),
        (Method::POST, "/indexes/x/search", json!({"filter": filter, "hitsPerPage": 9, "page": 2, "sort": ["id:asc"], "attributesToRetrieve": ["id"]})),
        (Method::POST, "/indexes/x/facet-search", json!({"facetName": "tags", "filter": filter})),
        (Method::POST, "/indexes/x/similar", json!({"id": 3, "embedder": "own", "filter": filter, "limit": 200, "attributesToRetrieve": ["id"]})),
        (Method::POST, "/multi-search", json!({"queries": [query("x"), query("y")]})),
        (Method::POST, "/multi-search", json!({"queries": [query("x"), query("y")], "federation": {"limit": 200}})),
        (Method::POST, "/indexes/z/search", json!({"filter": filter})),
        (Method::POST, "/multi-search", json!({"queries": [query("x"), query("z")]})),
        (Method::POST, "/indexes/x/documents/fetch", json!({"filter": filter})),
    ]
    .into_iter()
    .map(|(method, path, body)| (method, path.to_owned(), body))
    .collect::<Vec<_>>();
    let text = filter
        .as_str()
        .map_or_else(|| filter.to_string(), str::to_owned);
    let mut pairs = vec![("limit", "200"), ("attributesToRetrieve", "id")];
    if !filter.is_null() {
        pairs.push(("filter", &text));
    }
    all.push((
        Method::GET,
        with_query("/indexes/x/search", &pairs),
        Value::Null,
    ));
    all
}

#[tokio::test]
async fn a_tenant_sees_what_one_node_shows_it() {
    let mut both = Both::start().await;
    both.load("y").await;
    both.load("z").await;
    let key = search_key(&both).await;
    let rules = [
        json!({"*": {"filter": "rare != 'only here'"}}),
        json!({"x": {"filter": ["some != 7", "group != 3"]}, "*": {"filter": "group = 4"}}),
        json!({"x": {"filter": [["some != 7", "group = 3"]]}, "y": null, "z": {"filter": "rare != 1"}}),
        json!({"x*": {"filter": "never != 1"}, "y": {"filter": "NOT rare != 'only here'"}}),
        json!({"x": {"filter": "rare != 'only here' AND title = 1"}, "y": {}}),
        json!({"x": {"filter": "rare != "}, "y": {}}),
        json!({"x": {"filter": "group != 3"}}),
        json!(["x"]),
        json!(["*"]),
    ];
    let (mut differences, mut asked) = (Vec::new(), 0);
    let (one, many) = (both.one.clone(), both.many.clone());
    for rules in &rules {
        for (expires, key) in [
            (None, &key),
            (Some(1_000), &key),
            (None, &(key.0.clone(), "another".to_owned())),
        ] {
            let token = token(key, rules, expires);
            both.one = one.with_key(Some(&token));
            both.many = many.with_key(Some(&token));
            for filter in [
                json!(null),
                json!("some != 7"),
                json!(["group != 2", ["rare = 'only here'", "some != 7"]]),
            ] {
                for (method, path, body) in searches(&filter) {
                    asked += 1;
                    let difference = both.difference(method, &path, &body).await;
                    differences
                        .extend(difference.map(|difference| format!("{rules}\n{difference}")));
                }
            }
        }
    }
    assert_no_difference(&differences, asked);
}
