//! `weft import`: a single node is brought into a cluster, by itself or by a dump, whatever happens on the way.

mod back;
mod compare;
mod dump;
mod follow;
mod trouble;

use std::collections::BTreeMap;
use std::process::{Output, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use weft_cluster::{Api, Binaries, Cluster, Single};

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
        self.command_to(&self.cluster.url(), source, arguments)
    }

    fn command_to(&self, target: &str, source: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(Binaries::find().unwrap().weft);
        command
            .args(["import", source, "--url", target])
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

    // The cluster has heard of it, and a single node, which knows no jobs, is no trouble: see `back`.
    let told = scene.new.get("/_cluster/jobs").await.unwrap();
    let job = told.at("/jobs/0");
    let wanted =
        json!({"kind": "import", "state": "done", "documents": 2_060, "documentsExpected": 2_060});
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&job[name], value, "{}", told.text);
    }

    let before = tasks_total(&scene.new).await;
    let again = scene.imported(&[]).await;
    assert_eq!(again["wasFinished"], true, "{again}");
    assert_eq!(tasks_total(&scene.new).await, before, "nothing was written");
    let told = scene.new.get("/_cluster/jobs").await.unwrap();
    assert_eq!(
        told.at("/jobs").as_array().map(Vec::len),
        Some(1),
        "nothing was done"
    );
}

async fn tasks_total(api: &Api) -> u64 {
    api.get("/tasks?limit=1")
        .await
        .unwrap()
        .at("/total")
        .as_u64()
        .unwrap()
}
