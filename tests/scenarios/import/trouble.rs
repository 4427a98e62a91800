//! What goes wrong on the way.

use std::time::Duration;

use serde_json::{Map, Value, json};
use weft_cluster::{Deadline, until};

use super::dump::{packed, path_of};
use super::{Scene, add, fill, said};
use crate::support::{documents, ids};

#[tokio::test]
async fn what_can_not_be_imported_is_refused_with_a_reason() {
    let scene = Scene::start().await;
    add(&scene.old, "things", &documents(0..10)).await;
    add(&scene.new, "things", &documents(100..110)).await;
    let refused = scene.import(&[]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("--into-existing"),
        "{}",
        said(&refused)
    );
    let missing = scene.import(&["--index", "nothing"]).await;
    assert_eq!(missing.status.code(), Some(2), "{}", said(&missing));
    let mut wrong = scene.command(&scene.single.url(), &[]);
    let wrong = wrong
        .env("WEFT_SOURCE_KEY", "not-the-key")
        .output()
        .await
        .unwrap();
    assert_eq!(wrong.status.code(), Some(3), "{}", said(&wrong));
    assert!(said(&wrong).contains("invalid_api_key"), "{}", said(&wrong));
    let nobody = scene
        .command("http://127.0.0.1:9", &[])
        .output()
        .await
        .unwrap();
    assert_eq!(nobody.status.code(), Some(3), "{}", said(&nobody));
    assert!(!scene.folder.path().join("weft-import.json").exists());

    let made_equal = scene.imported(&["--into-existing"]).await;
    assert_eq!(made_equal["problems"], json!([]), "{made_equal}");
    scene.assert_equal().await;
    let other = scene
        .command("http://localhost:9", &[])
        .output()
        .await
        .unwrap();
    assert_eq!(other.status.code(), Some(3), "{}", said(&other));
}

#[tokio::test]
async fn an_import_that_is_killed_again_and_again_ends_complete() {
    let scene = Scene::start().await;
    fill(&scene.old, 6_000).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let slowly = [
        "--batch-bytes",
        "4096",
        "--in-flight",
        "3",
        "--bytes-per-second",
        "60000",
    ];
    let mut killed = 0;
    for _ in 0..10 {
        let mut child = scene.command(&scene.single.url(), &slowly).spawn().unwrap();
        let pause = Duration::from_millis(random.u64(20..700));
        if tokio::time::timeout(pause, child.wait()).await.is_ok() {
            break;
        }
        child.kill().await.unwrap();
        killed += 1;
    }
    assert!(killed >= 5, "it was killed {killed} times only");
    let report = scene.imported(&[]).await;
    assert_eq!(report["problems"], json!([]), "{report}");
    scene.assert_equal().await;
}

#[tokio::test]
async fn an_import_outlives_a_merger_and_a_node_that_go_away_for_a_moment() {
    let scene = Scene::start().await;
    fill(&scene.old, 4_000).await;
    let slowly = ["--batch-bytes", "4096", "--bytes-per-second", "40000"];
    let copy = scene.command(&scene.single.url(), &slowly).spawn().unwrap();
    let some_are_there = || async {
        let stats = scene.new.get("/indexes/things/stats").await.unwrap();
        let some = stats.at("/numberOfDocuments").as_u64() > Some(100);
        some.then_some(()).ok_or(stats.text)
    };
    until(
        "some documents are there",
        Deadline::after(Duration::from_secs(60)),
        some_are_there,
    )
    .await
    .unwrap();
    scene.cluster.merger().kill().unwrap();
    scene.cluster.node(0, 0).kill().unwrap();
    scene.cluster.merger().restart().unwrap();
    scene.cluster.node(0, 0).restart().unwrap();
    scene.cluster.wait_ready().await.unwrap();
    let copied = copy.wait_with_output().await.unwrap();
    assert_eq!(copied.status.code(), Some(0), "{}", said(&copied));
    scene.assert_equal().await;
}

#[tokio::test]
async fn a_batch_that_the_cluster_refuses_is_named_and_what_came_before_stays() {
    let scene = Scene::start().await;
    let mut lines: Vec<Value> = (0..300).map(|id| json!({"id": id})).collect();
    lines[250] = json!({"no id": 1});
    let lines = lines.into_iter().enumerate();
    let lines: Map<String, Value> = lines.map(|(n, line)| (n.to_string(), line)).collect();
    let index = json!({"primaryKey": "id", "settings": {}, "documents": lines});
    let file = path_of(&packed(&scene, &[("things".to_owned(), index)].into()));
    let arguments = ["--batch-bytes", "1024"];
    let refused = scene.command(&file, &arguments).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let text = said(&refused);
    assert!(
        text.contains("`things`") && text.contains("documents "),
        "{text}"
    );
    assert!(text.contains("missing_document_id"), "{text}");
    // Batches that were under way beside it may be there, too.
    let there = ids(&scene.new, "things").await;
    assert_eq!(there[..150], (0..150).collect::<Vec<_>>());
    assert!(!there.contains(&250));
}
