//! Source and cluster are asked the same.

use serde_json::Value;

use super::{Scene, fill, said};

#[tokio::test]
async fn equal_servers_compare_as_equal_and_others_do_not() {
    let scene = Scene::start().await;
    fill(&scene.old, 500).await;
    scene.imported(&[]).await;
    let report = scene
        .imported(&["--compare", "--index", "things", "--min-equal", "100"])
        .await;
    assert_eq!(report["all"]["hitsApartFromTies"], 100.0, "{report}");
    assert_eq!(report["all"]["scores"], 100.0, "{report}");
    assert_eq!(report["all"]["totals"], 100.0, "{report}");
    assert_eq!(report["all"]["facets"], 100.0, "{report}");
    assert_eq!(report["all"]["queries"], 200, "{report}");

    let queries = scene.folder.path().join("queries.jsonl");
    let lines = "{\"index\":\"things\",\"q\":\"amber number 5\"}\n{\"index\":\"things\",\"q\":\"dune number 13\"}\n";
    std::fs::write(&queries, lines).unwrap();
    let report = scene.imported(&["--compare", "queries.jsonl"]).await;
    assert_eq!(report["all"]["hitsApartFromTies"], 100.0, "{report}");
    assert_eq!(report["all"]["queries"], 2, "{report}");
    let other = scene
        .new
        .delete("/indexes/things/documents/13")
        .await
        .unwrap();
    scene.new.succeed(&other).await.unwrap();
    let differing = scene
        .import(&["--compare", "queries.jsonl", "--json"])
        .await;
    assert_eq!(differing.status.code(), Some(1), "{}", said(&differing));
    let report: Value = serde_json::from_slice(&differing.stdout).unwrap();
    assert_eq!(report["all"]["totals"], 50.0, "{report}");
    assert_eq!(report["enough"], false, "{report}");
}
