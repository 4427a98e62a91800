//! A batch of documents is applied completely or not at all, and so is a change of settings, as on one node, on whichever shards
//! its parts are.

mod documents;
mod judge;
mod settings;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Single};

use crate::support::start;

/// Settings by which nodes check `_vectors` and `_geo`.
fn judged_settings() -> Value {
    json!({
        "filterableAttributes": ["_geo"],
        "embedders": {"m": {"source": "userProvided", "dimensions": 3}}
    })
}

async fn prepare(api: &Api, index: &str, settings: &Value) {
    let made = json!({"uid": index, "primaryKey": "id"});
    let accepted = api.post("/indexes", &made).await.unwrap();
    api.succeed(&accepted).await.unwrap();
    let path = format!("/indexes/{index}/settings");
    let accepted = api.json(Method::PATCH, &path, settings).await.unwrap();
    api.succeed(&accepted).await.unwrap();
}

async fn write(api: &Api, method: &Method, index: &str, body: &str) -> Value {
    let path = format!("/indexes/{index}/documents");
    let headers = [("content-type", "application/json")];
    let accepted = api
        .send(
            method.clone(),
            &path,
            &headers,
            body.to_owned().into_bytes(),
        )
        .await
        .unwrap();
    assert_eq!(accepted.status, 202, "{body}: {}", accepted.text);
    api.settle(&accepted).await.unwrap()
}

async fn clear(api: &Api, index: &str) {
    let path = format!("/indexes/{index}/documents");
    let accepted = api.delete(&path).await.unwrap();
    api.succeed(&accepted).await.unwrap();
}

pub(super) async fn one_node_and_three_shards(settings: &Value) -> (Single, Api, Cluster, Api) {
    let single = Single::start(None).await.unwrap();
    let one = Api::new(single.url(), None);
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    prepare(&one, "x", settings).await;
    prepare(&api, "x", settings).await;
    (single, one, cluster, api)
}

/// Thirty documents, of which the eighth has another value in one field, or lacks the field.
fn batch(field: &str, value: Option<&str>) -> String {
    let document = |id: u32| {
        let mut fields = vec![format!("\"id\":{id}")];
        let own = (id == 7).then_some(value);
        let vectors = match own {
            Some(own) if field == "_vectors" => own,
            _ => Some(r#"{"m":[1,2,3]}"#),
        };
        let place = match own {
            Some(own) if field == "_geo" => own,
            _ => Some(r#"{"lat":1,"lng":2}"#),
        };
        fields.extend(vectors.map(|vectors| format!("\"_vectors\":{vectors}")));
        fields.extend(place.map(|place| format!("\"_geo\":{place}")));
        format!("{{{}}}", fields.join(","))
    };
    let all: Vec<String> = (0..30).map(document).collect();
    format!("[{}]", all.join(","))
}
