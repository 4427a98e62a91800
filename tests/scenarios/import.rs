//! `weft import`: a single node is brought into a cluster, by itself or by a dump, whatever happens on the way.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use weft_cluster::{Api, Binaries, Cluster, Deadline, Single, until};

use crate::support::{MASTER_KEY, documents, start};

/// A single node, a cluster, and a folder for journals.
struct Scene {
    single: Single,
    cluster: Cluster,
    old: Api,
    new: Api,
    folder: TempDir,
}

impl Scene {
    async fn start() -> Self {
        let single = Single::start(Some(MASTER_KEY)).await.unwrap();
        let (cluster, new) = start(Cluster::builder().shards(2).replicas(1)).await;
        Self {
            old: Api::new(single.url(), Some(MASTER_KEY)),
            single,
            cluster,
            new,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// `weft import` with these arguments.
    fn command(&self, source: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(Binaries::find().unwrap().weft);
        command
            .args(["import", source, "--url", &self.cluster.url()])
            .args(arguments)
            .env("WEFT_SOURCE_KEY", MASTER_KEY)
            .env("WEFT_MASTER_KEY", MASTER_KEY)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn import(&self, arguments: &[&str]) -> Output {
        let command = self.command(&self.single.url(), arguments).output();
        command.await.unwrap()
    }

    /// Imports, and fails unless it ends well.
    async fn imported(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.import(&all).await;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    async fn assert_equal(&self) {
        let (old, new) = (everything(&self.old).await, everything(&self.new).await);
        assert_eq!(old, new);
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{} {}", text(&output.stdout), text(&output.stderr))
}

/// All that a server holds: primary keys, settings, documents with vectors, by index and id.
async fn everything(api: &Api) -> BTreeMap<String, Value> {
    let listed = api.get("/indexes?limit=1000").await.unwrap();
    assert_eq!(listed.status, 200, "{}", listed.text);
    let mut all = BTreeMap::new();
    for index in listed.at("/results").as_array().unwrap() {
        let uid = index["uid"].as_str().unwrap();
        let settings = api.get(&format!("/indexes/{uid}/settings")).await.unwrap();
        let path = format!("/indexes/{uid}/documents/fetch");
        let body = json!({"limit": 1_000_000, "retrieveVectors": true});
        let found = api.post(&path, &body).await.unwrap();
        let found = found.at("/results").as_array().unwrap().iter();
        let key = index["primaryKey"].as_str().unwrap_or("id");
        let documents: BTreeMap<String, Value> = found
            .map(|one| (one[key].to_string(), one.clone()))
            .collect();
        let whole = json!({
            "primaryKey": index["primaryKey"], "settings": settings.body, "documents": documents,
        });
        all.insert(uid.to_owned(), whole);
    }
    all
}

async fn add(api: &Api, index: &str, documents: &Value) {
    let path = format!("/indexes/{index}/documents");
    let added = api.post(&path, documents).await.unwrap();
    api.succeed(&added).await.unwrap();
}

async fn set(api: &Api, index: &str, settings: &Value) {
    let path = format!("/indexes/{index}/settings");
    let set = api.json(Method::PATCH, &path, settings).await.unwrap();
    api.succeed(&set).await.unwrap();
}

/// Indexes of every kind, and a key.
async fn fill(api: &Api, count: u64) {
    set(
        api,
        "things",
        &json!({
            "filterableAttributes": ["group"], "sortableAttributes": ["id"], "stopWords": ["the"],
            "synonyms": {"amber": ["resin"]}, "searchableAttributes": ["name"],
        }),
    )
    .await;
    add(api, "things", &documents(0..count)).await;
    let embedders = json!({"embedders": {"mine": {"source": "userProvided", "dimensions": 2}}});
    set(api, "vectors", &embedders).await;
    let with_vectors: Value = (0..60_u32)
        .map(|id| json!({"key": format!("k-{id}"), "_vectors": {"mine": [f64::from(id) / 7.0, 0.1]}}))
        .collect();
    let path = "/indexes/vectors/documents?primaryKey=key";
    let added = api.post(path, &with_vectors).await.unwrap();
    api.succeed(&added).await.unwrap();
    let made = api
        .post("/indexes", &json!({"uid": "empty"}))
        .await
        .unwrap();
    api.succeed(&made).await.unwrap();
    let key = json!({
        "uid": "6062abda-a5aa-4414-ac91-ecd7944c0f8d", "name": "shop", "description": "of the shop",
        "actions": ["search"], "indexes": ["things"], "expiresAt": null,
    });
    let made = api.post("/keys", &key).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
}

#[tokio::test]
async fn everything_of_a_running_node_is_brought_over_once() {
    let scene = Scene::start().await;
    fill(&scene.old, 2_000).await;
    let report = scene.imported(&["--batch-bytes", "20000"]).await;
    assert_eq!(report["problems"], json!([]), "{report}");
    scene.assert_equal().await;
    let path = "/keys/6062abda-a5aa-4414-ac91-ecd7944c0f8d";
    let (old, new) = (
        scene.old.get(path).await.unwrap(),
        scene.new.get(path).await.unwrap(),
    );
    for member in [
        "/key",
        "/name",
        "/description",
        "/actions",
        "/indexes",
        "/expiresAt",
    ] {
        assert_eq!(old.at(member), new.at(member), "{member}");
    }
    let client = scene.new.with_key(old.at("/key").as_str());
    let found = client.get("/indexes/things/search?q=amber").await.unwrap();
    assert_eq!(found.status, 200, "{}", found.text);
    // Documents came after the settings, and so were indexed once.
    let tasks = scene
        .new
        .get("/tasks?indexUids=things&reverse=true&limit=1000")
        .await
        .unwrap();
    let kinds: Vec<&str> = tasks
        .at("/results")
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds[..2], ["indexCreation", "settingsUpdate"]);
    assert!(
        kinds.len() > 4
            && kinds[2..]
                .iter()
                .all(|kind| *kind == "documentAdditionOrUpdate"),
        "{kinds:?}"
    );

    let before = tasks_total(&scene.new).await;
    let again = scene.imported(&[]).await;
    assert_eq!(again["wasFinished"], true, "{again}");
    assert_eq!(tasks_total(&scene.new).await, before, "nothing was written");
}

async fn tasks_total(api: &Api) -> u64 {
    api.get("/tasks?limit=1")
        .await
        .unwrap()
        .at("/total")
        .as_u64()
        .unwrap()
}

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
    let slowly = ["--batch-bytes", "4096", "--in-flight", "3"];
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
    assert!(killed >= 3, "it was killed {killed} times only");
    let report = scene.imported(&slowly).await;
    assert_eq!(report["problems"], json!([]), "{report}");
    scene.assert_equal().await;
}

#[tokio::test]
async fn a_dump_is_brought_over() {
    let scene = Scene::start().await;
    fill(&scene.old, 300).await;
    let all = everything(&scene.old).await;
    let root = scene.folder.path().join("dump");
    let write = |path: &str, text: String| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let metadata =
        json!({"dumpVersion": "V6", "dbVersion": "1.15.0", "dumpDate": "2026-11-30T10:00:00Z"});
    write("metadata.json", metadata.to_string());
    write("tasks/queue.jsonl", String::new());
    let key = json!({
        "uid": "6062abda-a5aa-4414-ac91-ecd7944c0f8d", "name": "shop", "description": null, "actions": ["search"],
        "indexes": ["things"], "expires_at": null, "created_at": "2026-01-01T00:00:00Z",
    });
    write("keys.jsonl", format!("{key}\n"));
    for (uid, index) in &all {
        let documents = index["documents"].as_object().unwrap().values();
        let lines: String = documents.map(|one| format!("{one}\n")).collect();
        write(&format!("indexes/{uid}/documents.jsonl"), lines);
        write(
            &format!("indexes/{uid}/settings.json"),
            index["settings"].to_string(),
        );
        let metadata = json!({"uid": uid, "primaryKey": index["primaryKey"]});
        write(
            &format!("indexes/{uid}/metadata.json"),
            metadata.to_string(),
        );
    }
    let file = scene.folder.path().join("a.dump");
    let packed = std::process::Command::new("tar")
        .arg("-czf")
        .arg(&file)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status()
        .unwrap();
    assert!(packed.success());

    let cut = scene.folder.path().join("cut.dump");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let refused = scene.command(&path_of(&cut), &[]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        everything(&scene.new).await.is_empty(),
        "nothing was written"
    );

    let arguments = ["--batch-bytes", "4096"];
    let output = scene
        .command(&path_of(&file), &arguments)
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    scene.assert_equal().await;
    let path = "/keys/6062abda-a5aa-4414-ac91-ecd7944c0f8d";
    let (old, new) = (
        scene.old.get(path).await.unwrap(),
        scene.new.get(path).await.unwrap(),
    );
    assert_eq!(old.at("/key"), new.at("/key"));
    let again = scene
        .command(&path_of(&file), &arguments)
        .output()
        .await
        .unwrap();
    assert!(
        said(&again).contains("finished already"),
        "{}",
        said(&again)
    );
}

fn path_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

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
