//! Settings are the same on every node, even if someone changes them on one node.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, until};

use crate::support::{documents, node, start};

/// The sum of the merger's counter of nodes whose settings differed, by outcome.
async fn drift(cluster: &Cluster, outcome: &str) -> u64 {
    let text = Api::new(cluster.merger_url(), None)
        .get("/_weft/metrics")
        .await
        .unwrap()
        .text;
    let name = format!("weft_merger_settings_drift_total{{outcome=\"{outcome}\"}}");
    text.lines()
        .filter_map(|line| line.strip_prefix(&name)?.trim().parse::<u64>().ok())
        .sum()
}

async fn stop_words(api: &Api) -> Value {
    api.get("/indexes/x/settings/stop-words")
        .await
        .unwrap()
        .body
}

async fn fill(api: &Api) {
    let accepted = api
        .post("/indexes/x/documents?primaryKey=id", &documents(0..90))
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    let wanted = json!({"stopWords": ["number"], "filterableAttributes": ["group"]});
    let accepted = api
        .json(Method::PATCH, "/indexes/x/settings", &wanted)
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
}

#[tokio::test]
async fn settings_changed_by_hand_on_one_node_are_repaired_and_counted() {
    let builder = Cluster::builder()
        .shards(3)
        .merger_env("WEFT_SETTINGS_CHECK_INTERVAL_MS", "100");
    let (cluster, api) = start(builder).await;
    fill(&api).await;
    let by_hand = node(&cluster, 1);
    let accepted = by_hand
        .json(
            Method::PUT,
            "/indexes/x/settings/stop-words",
            &json!(["amber", "birch"]),
        )
        .await
        .unwrap();
    by_hand.settle(&accepted).await.unwrap();
    until(
        "the repair",
        Deadline::after(Duration::from_secs(30)),
        || async {
            let (now, count) = (
                stop_words(&by_hand).await,
                drift(&cluster, "repaired").await,
            );
            if now == json!(["number"]) && count >= 1 {
                Ok(())
            } else {
                Err(format!("{now}, {count} repaired"))
            }
        },
    )
    .await
    .unwrap();
    for shard in 0..3 {
        assert_eq!(stop_words(&node(&cluster, shard)).await, json!(["number"]));
    }
    assert_eq!(drift(&cluster, "failed").await, 0);
    // A change through Weft isn't a difference: it stays.
    let accepted = api
        .json(
            Method::PUT,
            "/indexes/x/settings/stop-words",
            &json!(["dune"]),
        )
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    let repaired = drift(&cluster, "repaired").await;
    let rounds = crate::support::merger_requests(&cluster).await;
    assert!(rounds > 0);
    for shard in 0..3 {
        assert_eq!(stop_words(&node(&cluster, shard)).await, json!(["dune"]));
    }
    assert_eq!(drift(&cluster, "repaired").await, repaired);
}

#[tokio::test]
async fn a_change_of_settings_repairs_differences_and_its_task_names_them() {
    let builder = Cluster::builder()
        .shards(3)
        .merger_env("WEFT_SETTINGS_CHECK_INTERVAL_MS", "0");
    let (cluster, api) = start(builder).await;
    fill(&api).await;
    let by_hand = node(&cluster, 2);
    let accepted = by_hand
        .json(
            Method::PUT,
            "/indexes/x/settings/stop-words",
            &json!(["amber"]),
        )
        .await
        .unwrap();
    by_hand.settle(&accepted).await.unwrap();
    let accepted = api
        .json(
            Method::PUT,
            "/indexes/x/settings/synonyms",
            &json!({"a": ["b"]}),
        )
        .await
        .unwrap();
    let task = api.succeed(&accepted).await.unwrap();
    let repaired = task["details"]["repaired"].as_array().unwrap();
    assert_eq!(repaired.len(), 1, "{task}");
    let words = repaired[0].as_str().unwrap();
    assert!(
        words.contains("stopWords") && words.contains("shard-2"),
        "{words}"
    );
    assert_eq!(stop_words(&by_hand).await, json!(["number"]));
    for shard in 0..3 {
        let synonyms = node(&cluster, shard)
            .get("/indexes/x/settings/synonyms")
            .await
            .unwrap();
        assert_eq!(synonyms.body, json!({"a": ["b"]}));
    }
    let accepted = api.delete("/indexes/x/settings/synonyms").await.unwrap();
    let task = api.succeed(&accepted).await.unwrap();
    assert!(task["details"].get("repaired").is_none(), "{task}");
}
