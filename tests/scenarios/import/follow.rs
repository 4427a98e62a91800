//! What is written to the source while it is copied, and afterwards.

use std::time::Duration;

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::process::Output;
use tokio::process::Child;
use weft_cluster::{Api, Deadline, until};

use super::{Scene, add, everything, fill, said, set};
use crate::support::documents;

/// Writes of every kind.
async fn change(api: &Api, round: u64) {
    add(
        api,
        "things",
        &documents(10_000 + round * 100..10_050 + round * 100),
    )
    .await;
    let part = json!([{"id": round, "note": "changed"}, {"id": 7, "group": null}]);
    let path = "/indexes/things/documents";
    let updated = api.json(Method::PUT, path, &part).await.unwrap();
    api.succeed(&updated).await.unwrap();
    let gone: Vec<u64> = (100 + round * 10..110 + round * 10).collect();
    let path = "/indexes/things/documents/delete-batch";
    let deleted = api.post(path, &json!(gone)).await.unwrap();
    api.succeed(&deleted).await.unwrap();
    set(
        api,
        "things",
        &json!({"stopWords": ["the", format!("and{round}")]}),
    )
    .await;
    let moved = json!([{"key": "k-3", "_vectors": {"mine": [0.5, 0.25]}}]);
    add(api, "vectors", &moved).await;
    add(api, &format!("new-{round}"), &documents(0..20)).await;
    let deleted = api
        .delete(&format!("/indexes/new-{}", round - 1))
        .await
        .unwrap();
    if round > 1 {
        api.succeed(&deleted).await.unwrap();
    }
}

async fn wait_equal(scene: &Scene) {
    until(
        "both are equal",
        Deadline::after(Duration::from_secs(60)),
        || async {
            let (old, new) = (everything(&scene.old).await, everything(&scene.new).await);
            let differing = old.iter().find(|(uid, index)| new.get(*uid) != Some(index));
            match (old == new, differing) {
                (true, _) => Ok(()),
                (false, Some((uid, _))) => Err(format!("{uid} differs")),
                (false, None) => Err(format!("{:?} and {:?}", old.keys(), new.keys())),
            }
        },
    )
    .await
    .unwrap();
}

async fn interrupted(child: Child) -> Output {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    child.wait_with_output().await.unwrap()
}

#[tokio::test]
async fn what_is_written_to_the_source_afterwards_is_brought_over() {
    let scene = Scene::start().await;
    fill(&scene.old, 500).await;
    scene.imported(&[]).await;
    let follower = scene
        .command(&scene.single.url(), &["--follow"])
        .spawn()
        .unwrap();
    change(&scene.old, 1).await;
    wait_equal(&scene).await;
    let swap = json!([{"indexes": ["things", "new-1"]}]);
    let swapped = scene.old.post("/swap-indexes", &swap).await.unwrap();
    scene.old.succeed(&swapped).await.unwrap();
    wait_equal(&scene).await;
    let swapped = scene.old.post("/swap-indexes", &swap).await.unwrap();
    scene.old.succeed(&swapped).await.unwrap();
    let path = "/keys/6062abda-a5aa-4414-ac91-ecd7944c0f8d";
    scene
        .old
        .json(Method::PATCH, path, &json!({"name": "other"}))
        .await
        .unwrap();
    until(
        "the key has its new name",
        Deadline::after(Duration::from_secs(30)),
        || async {
            let key = scene.new.get(path).await.unwrap();
            (key.at("/name") == "other").then_some(()).ok_or(key.text)
        },
    )
    .await
    .unwrap();
    wait_equal(&scene).await;
    let ended = interrupted(follower).await;
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));

    // Nobody follows meanwhile.
    change(&scene.old, 2).await;
    assert_ne!(everything(&scene.old).await, everything(&scene.new).await);
    scene.imported(&["--follow", "--until-caught-up"]).await;
    scene.assert_equal().await;

    // An index that isn't the import's stays, and what was written to one that the source leaves alone stays too.
    add(&scene.new, "ours", &documents(0..5)).await;
    add(
        &scene.new,
        "vectors",
        &json!([{"key": "later", "_vectors": {"mine": [1.0, 2.0]}}]),
    )
    .await;
    change(&scene.old, 3).await;
    let _ = scene
        .import(&["--follow", "--until-caught-up", "--index", "things"])
        .await;
    assert_eq!(scene.new.get("/indexes/ours").await.unwrap().status, 200);
    let later = scene
        .new
        .get("/indexes/vectors/documents/later")
        .await
        .unwrap();
    assert_eq!(later.status, 200, "{}", later.text);
}

#[tokio::test]
async fn what_is_written_while_the_source_is_copied_is_not_missed() {
    let scene = Scene::start().await;
    fill(&scene.old, 4_000).await;
    let arguments = [
        "--follow",
        "--until-caught-up",
        "--batch-bytes",
        "4096",
        "--bytes-per-second",
        "40000",
    ];
    let copy = scene
        .command(&scene.single.url(), &arguments)
        .spawn()
        .unwrap();
    for round in 1..=6 {
        change(&scene.old, round).await;
    }
    let copied = copy.wait_with_output().await.unwrap();
    assert_eq!(copied.status.code(), Some(0), "{}", said(&copied));
    scene.imported(&["--follow", "--until-caught-up"]).await;
    scene.assert_equal().await;
}
