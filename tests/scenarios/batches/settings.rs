//! Changes of settings that one shard refuses.

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster};

use super::{batch, one_node_and_three_shards, prepare, write};
use crate::support::{node, start};

async fn read_settings(api: &Api) -> Value {
    let mut settings = api.get("/indexes/x/settings").await.unwrap().body;
    // `chat` depends on the fields that the engine has seen, so it is no setting.
    settings.as_object_mut().unwrap().remove("chat");
    settings
}

#[tokio::test]
async fn settings_that_one_shard_refuses_are_applied_on_none() {
    let (_single, one, cluster, api) =
        one_node_and_three_shards(&json!({"stopWords": ["a"], "sortableAttributes": ["n"]})).await;
    let body = batch("_geo", Some(r#"{"lat":3}"#));
    for api in [&one, &api] {
        assert_eq!(
            write(api, &Method::POST, "x", &body).await["status"],
            "succeeded"
        );
    }
    let changes = [
        json!({"filterableAttributes": ["_geo"], "stopWords": ["b"]}),
        json!({"filterableAttributes": ["n"]}),
        json!({"sortableAttributes": ["_geo", "n"], "synonyms": {"a": ["b"]}}),
        json!({"stopWords": ["c"]}),
    ];
    // One by one, and all at once.
    for at_once in [false, true] {
        let mut ends = Vec::new();
        for api in [&one, &api] {
            let mut accepted = Vec::new();
            for change in &changes {
                let sent = api
                    .json(Method::PATCH, "/indexes/x/settings", change)
                    .await
                    .unwrap();
                if !at_once {
                    api.settle(&sent).await.unwrap();
                }
                accepted.push(sent);
            }
            for sent in &accepted {
                let task = api.settle(sent).await.unwrap();
                ends.push(json!([task["status"], task["error"]["code"]]));
            }
        }
        // With a bad `_geo`, Meilisearch 1.50 also refuses changes that don't concern `_geo`; other engines accept them.
        let (of_one, of_many) = ends.split_at(changes.len());
        assert_eq!(of_one, of_many);
        let refused = json!(["failed", "invalid_document_geo_field"]);
        assert!(of_one[0] == refused && of_one[2] == refused, "{of_one:?}");
        let expected = read_settings(&one).await;
        assert_eq!(read_settings(&api).await, expected);
        for shard in 0..3 {
            assert_eq!(
                read_settings(&node(&cluster, shard)).await,
                expected,
                "shard {shard}"
            );
        }
    }
    let change = json!(["_geo"]);
    let path = "/indexes/x/settings/filterable-attributes";
    let mut errors = Vec::new();
    for api in [&one, &api] {
        let accepted = api.json(Method::PUT, path, &change).await.unwrap();
        errors.push(api.settle(&accepted).await.unwrap()["error"].clone());
    }
    assert_eq!(errors[0]["code"], errors[1]["code"]);
    let message = errors[1]["message"].as_str().unwrap();
    assert!(
        message.starts_with(errors[0]["message"].as_str().unwrap()),
        "{message}"
    );
    assert!(
        message.contains("The change was undone where it had been made: shard-"),
        "{message}"
    );
}

#[tokio::test]
async fn a_merger_killed_while_it_undoes_settings_continues_after_its_restart() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    prepare(&api, "x", &json!({"stopWords": ["a"]})).await;
    let body = batch("_geo", Some(r#"{"lat":3}"#));
    assert_eq!(
        write(&api, &Method::POST, "x", &body).await["status"],
        "succeeded"
    );
    let change = json!({"filterableAttributes": ["_geo"], "stopWords": ["b"]});
    let accepted = api
        .json(Method::PATCH, "/indexes/x/settings", &change)
        .await
        .unwrap();
    cluster.merger().kill().unwrap();
    cluster.merger().restart().unwrap();
    cluster.wait_ready().await.unwrap();
    let task = api.settle(&accepted).await.unwrap();
    assert_eq!(task["status"], "failed", "{task}");
    for shard in 0..3 {
        let settings = read_settings(&node(&cluster, shard)).await;
        assert_eq!(settings["filterableAttributes"], json!([]), "shard {shard}");
        assert_eq!(settings["stopWords"], json!(["a"]), "shard {shard}");
    }
}
