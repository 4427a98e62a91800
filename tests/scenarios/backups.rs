//! A cluster in a folder, and the folder in another cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use weft_cluster::{Api, Binaries, Cluster, Deadline, until};

use crate::support::{MASTER_KEY, documents, start};

const DOCUMENTS: u64 = 3_000;
const FIRST: u64 = 100_000;

fn weft(cluster: &Cluster, arguments: &[&str], folder: &Path) -> Child {
    let binaries = Binaries::find().unwrap();
    let (what, options) = arguments.split_first().unwrap();
    Command::new(&binaries.weft)
        .arg(what)
        .arg(folder)
        .args(options)
        .args(["--json", "--url", &cluster.url()])
        .env("WEFT_MASTER_KEY", MASTER_KEY)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Runs a command to its end. Returns its exit code, what it printed, and its complaint.
async fn run(cluster: &Cluster, arguments: &[&str], folder: &Path) -> (i32, Value, String) {
    let output = weft(cluster, arguments, folder).wait_with_output().await;
    let output = output.unwrap();
    let printed = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), printed, complaint)
}

pub(crate) async fn done(cluster: &Cluster, arguments: &[&str], folder: &Path) -> Value {
    let (code, printed, complaint) = run(cluster, arguments, folder).await;
    assert_eq!(code, 0, "{arguments:?}: {complaint}");
    printed
}

/// An index `x` with settings, vectors and documents; a key, a feature and a webhook.
async fn fill(api: &Api) -> String {
    let body = json!({"uid": "x", "primaryKey": "id"});
    let made = api.post("/indexes", &body).await.unwrap();
    api.succeed(&made).await.unwrap();
    let settings = json!({
        "filterableAttributes": ["group", "n"],
        "synonyms": {"amber": ["resin"]},
        "embedders": {"own": {"source": "userProvided", "dimensions": 2}},
    });
    let set = api.json(Method::PATCH, "/indexes/x/settings", &settings);
    api.succeed(&set.await.unwrap()).await.unwrap();
    let mut all = documents(0..DOCUMENTS);
    for (place, document) in all.as_array_mut().unwrap().iter_mut().enumerate() {
        document["_vectors"] = json!({"own": [0.25, f64::from(u32::try_from(place).unwrap())]});
    }
    let added = api.post("/indexes/x/documents", &all);
    api.succeed(&added.await.unwrap()).await.unwrap();
    let key = json!({"name": "k", "actions": ["search"], "indexes": ["x"], "expiresAt": null});
    let key = api.post("/keys", &key).await.unwrap();
    assert_eq!(key.status, 201, "{}", key.text);
    let hook =
        json!({"url": "http://127.0.0.1:9/hook", "headers": {"authorization": "Bearer a-secret"}});
    let hook = api.post("/webhooks", &hook).await.unwrap();
    assert_eq!(hook.status, 201, "{}", hook.text);
    let features = json!({"containsFilter": true});
    let set = api.json(Method::PATCH, "/experimental-features", &features);
    assert_eq!(set.await.unwrap().status, 200);
    key.at("/uid").as_str().unwrap().to_owned()
}

/// What a writer does in its n-th step: a new document in some slot, every third time a mark on the same old document, every
/// seventh time the deletion of an earlier one.
async fn step(api: &Api, n: u64) {
    let path = "/indexes/x/documents";
    let reply = match n {
        n if n % 7 == 0 => api.delete(&format!("{path}/{}", FIRST + n - 6)).await,
        n if n % 3 == 0 => {
            let mark = json!([{"id": 1, "n": n}]);
            api.json(Method::PUT, path, &mark).await
        }
        n => {
            // The embedder takes vectors from users, and wants to hear that there is none.
            let added = json!([{"id": FIRST + n, "n": n, "_vectors": {"own": null}}]);
            api.post(path, &added).await
        }
    };
    let reply = reply.unwrap();
    assert_eq!(reply.status, 202, "{n}: {}", reply.text);
}

/// What the first steps of a writer leave behind: `n` of each document that it wrote.
fn after(steps: u64) -> BTreeMap<u64, u64> {
    let mut left = BTreeMap::new();
    for n in 1..=steps {
        match n {
            n if n % 7 == 0 => drop(left.remove(&(FIRST + n - 6))),
            n if n % 3 == 0 => drop(left.insert(1, n)),
            n => drop(left.insert(FIRST + n, n)),
        }
    }
    left
}

async fn written(api: &Api) -> BTreeMap<u64, u64> {
    let list = api.get("/indexes/x/documents?limit=1000000").await.unwrap();
    let all = list.at("/results").as_array().unwrap();
    let pair = |document: &Value| Some((document["id"].as_u64()?, document["n"].as_u64()?));
    all.iter().filter_map(pair).collect()
}

/// A writer whose steps follow each other: the next one is sent when the last one was acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    slowest: tokio::task::JoinHandle<Duration>,
}

impl Writer {
    fn start(api: &Api) -> Self {
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let slowest = tokio::spawn({
            let (api, stop, acknowledged) =
                (api.clone(), Arc::clone(&stop), Arc::clone(&acknowledged));
            async move {
                let mut slowest = Duration::ZERO;
                for n in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let begun = Instant::now();
                    step(&api, n).await;
                    slowest = slowest.max(begun.elapsed());
                    acknowledged.store(usize::try_from(n).unwrap(), Ordering::SeqCst);
                }
                slowest
            }
        });
        Self {
            stop,
            acknowledged,
            slowest,
        }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst) as u64
    }

    async fn wait_for(&self, steps: u64) {
        let deadline = Deadline::after(Duration::from_secs(60));
        let written = || async {
            match self.acknowledged() {
                now if now >= steps => Ok(()),
                now => Err(format!("{now} steps")),
            }
        };
        until("the writer is at work", deadline, written)
            .await
            .unwrap();
    }

    async fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.slowest.await.unwrap()
    }
}

async fn json_of(api: &Api, path: &str) -> Value {
    let reply = api.get(path).await.unwrap();
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    reply.body
}

/// The steps of the writer whose result this is, among some.
fn steps_of(found: &BTreeMap<u64, u64>, from: u64, to: u64) -> Option<u64> {
    (from..=to).find(|steps| after(*steps) == *found)
}

#[tokio::test]
async fn what_is_restored_is_a_beginning_of_what_was_acknowledged() {
    let (cluster, api) = start(Cluster::builder().shards(3).replicas(2)).await;
    let key = fill(&api).await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    let writer = Writer::start(&api);
    writer.wait_for(30).await;
    let before = writer.acknowledged();
    let made = done(&cluster, &["backup"], &folder).await;
    let behind = writer.acknowledged() + 1;
    let slowest = writer.stop().await;
    println!("{made}, the slowest write took {slowest:?}");
    assert!(made["longestPauseMs"].as_u64().unwrap() <= 500, "{made}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");

    let (other, copy) = start(Cluster::builder().shards(2)).await;
    let restored = done(&other, &["restore"], &folder).await;
    assert_eq!(restored["checked"], true, "{restored}");
    let found = written(&copy).await;
    let steps = steps_of(&found, before, behind);
    assert!(
        steps.is_some(),
        "not the result of any {before}..={behind} steps: {found:?}"
    );
    let list = json_of(&copy, "/indexes/x/documents?limit=1000000").await;
    let list = list["results"].as_array().unwrap();
    let old = list
        .iter()
        .filter(|document| document["id"].as_u64() < Some(FIRST));
    assert_eq!(old.count() as u64, DOCUMENTS, "nothing else is missing");
    for path in [
        "/indexes/x/settings",
        "/indexes/x/documents/77?retrieveVectors=true",
        "/experimental-features",
    ] {
        assert_eq!(
            json_of(&copy, path).await,
            json_of(&api, path).await,
            "{path}"
        );
    }
    let path = format!("/keys/{key}");
    let (here, there) = (json_of(&api, &path).await, json_of(&copy, &path).await);
    for field in ["uid", "key", "name", "actions", "indexes", "expiresAt"] {
        assert_eq!(here[field], there[field], "{field}");
    }
    let hooks = json_of(&copy, "/webhooks").await;
    assert_eq!(
        hooks["results"][0]["url"], "http://127.0.0.1:9/hook",
        "{hooks}"
    );
    assert_eq!(
        hooks["results"][0]["headers"]["authorization"],
        "Bearer XXX..."
    );

    // Repeated, it finds everything. What the cluster has otherwise is not overwritten without being asked.
    let again = done(&other, &["restore"], &folder).await;
    assert_eq!(again["documentsWritten"], 0, "{again}");
    let change = json!([{"id": 5, "name": "another"}]);
    let changed = copy.post("/indexes/x/documents", &change).await.unwrap();
    copy.succeed(&changed).await.unwrap();
    let (code, _, complaint) = run(&other, &["restore"], &folder).await;
    assert!(
        code == 3 && complaint.contains("--replace"),
        "{code}: {complaint}"
    );
    done(&other, &["restore", "--replace", "--index", "x"], &folder).await;
    assert_eq!(written(&copy).await, found);
    let (code, _, complaint) = run(&other, &["restore", "--index", "y"], &folder).await;
    assert!(
        code == 2 && complaint.contains("no index `y`"),
        "{code}: {complaint}"
    );

    // A second backup into the folder takes only what has changed.
    let first = done(&cluster, &["backup"], &folder).await;
    let change = json!([{"id": 5, "name": "another"}]);
    let changed = api.post("/indexes/x/documents", &change).await.unwrap();
    api.succeed(&changed).await.unwrap();
    let second = done(&cluster, &["backup"], &folder).await;
    assert_eq!(second["copiedFiles"], 1, "{first} {second}");
    assert!(second["keptFiles"].as_u64().unwrap() >= 8, "{second}");
    let verified = done(&cluster, &["restore", "--verify-only"], &folder).await;
    assert_eq!(verified["id"], second["id"]);
    done(&other, &["restore", "--replace"], &folder).await;
    assert_eq!(written(&copy).await, written(&api).await);
    assert_eq!(
        json_of(&copy, "/indexes/x/documents/5").await["name"],
        "another"
    );
}

#[tokio::test]
async fn a_killed_backup_leaves_the_earlier_one_and_a_killed_restore_is_completed() {
    let (cluster, api) = start(Cluster::builder().shards(2)).await;
    fill(&api).await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    let first = done(&cluster, &["backup"], &folder).await;
    let mut more = documents(DOCUMENTS..DOCUMENTS + 2_000);
    for document in more.as_array_mut().unwrap() {
        document["_vectors"] = json!({"own": null});
    }
    let added = api.post("/indexes/x/documents", &more).await.unwrap();
    api.succeed(&added).await.unwrap();

    let mut killed = weft(&cluster, &["backup"], &folder);
    let copying = || async {
        let entries = std::fs::read_dir(folder.join("incomplete"));
        match entries.is_ok_and(|mut entries| entries.next().is_some()) {
            true => Ok(()),
            false => Err("nothing is copied yet".to_owned()),
        }
    };
    let deadline = Deadline::after(Duration::from_secs(60));
    until("the backup copies", deadline, copying).await.unwrap();
    killed.kill().await.unwrap();
    let verified = done(&cluster, &["restore", "--verify-only"], &folder).await;
    assert_eq!(verified["id"], first["id"], "the earlier one is whole");
    // The cluster forgets the killed one by itself, and the next one waits for that.
    let second = done(&cluster, &["backup"], &folder).await;
    assert_eq!(second["documents"], DOCUMENTS + 2_000, "{second}");

    let (other, copy) = start(Cluster::builder().shards(3)).await;
    let mut killed = weft(&other, &["restore"], &folder);
    let begun = || async {
        match copy.get("/indexes/x/stats").await {
            Ok(reply) if reply.status == 200 => Ok(()),
            reply => Err(format!("{reply:?}")),
        }
    };
    let deadline = Deadline::after(Duration::from_secs(60));
    until("the restore has begun", deadline, begun)
        .await
        .unwrap();
    killed.kill().await.unwrap();
    let restored = done(&other, &["restore"], &folder).await;
    assert_eq!(restored["documents"], DOCUMENTS + 2_000, "{restored}");
    let stats = json_of(&copy, "/indexes/x/stats").await;
    assert_eq!(stats["numberOfDocuments"], DOCUMENTS + 2_000);
}

#[tokio::test]
async fn a_damaged_backup_is_not_restored_and_a_newer_index_is_in_the_set() {
    let (cluster, api) = start(Cluster::builder().shards(2)).await;
    fill(&api).await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    done(&cluster, &["backup"], &folder).await;
    let added = api
        .post("/indexes/y/documents?primaryKey=id", &documents(0..10))
        .await;
    api.succeed(&added.unwrap()).await.unwrap();
    let made = done(&cluster, &["backup"], &folder).await;
    assert_eq!(made["indexes"], 2, "{made}");
    let files = std::fs::read_dir(folder.join("indexes/y/documents")).unwrap();
    let file = files.map(|file| file.unwrap().path()).next().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (other, copy) = start(Cluster::builder()).await;
    let (code, _, complaint) = run(&other, &["restore"], &folder).await;
    assert!(
        code == 1 && complaint.contains("is damaged"),
        "{code}: {complaint}"
    );
    let indexes = json_of(&copy, "/indexes").await;
    assert_eq!(indexes["total"], 0, "nothing was written: {indexes}");
    // What is whole can still be chosen.
    done(&other, &["restore", "--index", "x"], &folder).await;
    // The next backup copies the damaged file anew.
    done(&cluster, &["backup"], &folder).await;
    done(&other, &["restore", "--index", "y"], &folder).await;
    assert_eq!(
        json_of(&copy, "/indexes/y/stats").await["numberOfDocuments"],
        10
    );
}

#[tokio::test]
async fn indexes_by_range_and_by_field_come_back_whole_and_as_they_were() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    let (other, target) = start(Cluster::builder().shards(2)).await;
    let folder = tempfile::tempdir().unwrap();
    let shardings = [
        (
            "by-range",
            json!({"strategy": "range", "ranges": [100, 200]}),
        ),
        ("by-field", json!({"strategy": "field", "field": "group"})),
    ];
    let mut before = BTreeMap::new();
    for (uid, sharding) in &shardings {
        let body = json!({"uid": uid, "primaryKey": "id", "sharding": sharding});
        let made = api.post("/indexes", &body).await.unwrap();
        api.succeed(&made).await.unwrap();
        let path = format!("/indexes/{uid}/documents");
        let added = api.post(&path, &documents(0..300)).await.unwrap();
        api.succeed(&added).await.unwrap();
        before.insert(*uid, crate::support::ids(&api, uid).await);
    }
    let set = folder.path().join("set");
    done(&cluster, &["backup"], &set).await;
    done(&other, &["restore"], &set).await;
    for (uid, sharding) in &shardings {
        assert_eq!(
            crate::support::ids(&target, uid).await,
            before[uid],
            "{uid}"
        );
        let shards = target
            .get(&format!("/indexes/{uid}/_shards"))
            .await
            .unwrap();
        assert_eq!(
            shards.at("/strategy"),
            &sharding["strategy"],
            "{}",
            shards.text
        );
        assert_eq!(shards.at("/ranges"), &sharding["ranges"], "{}", shards.text);
        assert_eq!(shards.at("/field"), &sharding["field"], "{}", shards.text);
    }
}
