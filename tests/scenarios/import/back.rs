//! The way back of an import: clients have written to the cluster, and the old server takes it all over again.

use serde_json::json;

use super::{Scene, add, everything, fill, said};
use crate::support::documents;

#[tokio::test]
async fn the_old_server_can_take_over_again_what_was_written_to_the_cluster() {
    let scene = Scene::start().await;
    fill(&scene.old, 500).await;
    scene.imported(&[]).await;
    scene.imported(&["--follow", "--until-caught-up"]).await;
    // Cut over: clients write to the cluster now.
    add(&scene.new, "things", &documents(490..700)).await;
    let gone = scene
        .new
        .post("/indexes/things/documents/delete-batch", &json!([1, 2, 3]))
        .await;
    scene.new.succeed(&gone.unwrap()).await.unwrap();
    add(&scene.new, "later", &documents(0..20)).await;
    assert_ne!(everything(&scene.old).await, everything(&scene.new).await);

    // Back: the cluster is the source.
    let to = scene.single.url();
    let arguments = [
        "--into-existing",
        "--journal",
        "back.json",
        "--follow",
        "--until-caught-up",
    ];
    let mut back = scene.command_to(&to, &scene.cluster.url(), &arguments);
    let output = back.output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    scene.assert_equal().await;
    let count = scene.old.get("/indexes/things/stats").await.unwrap();
    assert_eq!(count.at("/numberOfDocuments"), 697, "{}", count.text);
}
