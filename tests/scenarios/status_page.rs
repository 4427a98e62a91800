//! The status page: what the merger serves, and what a browser makes of it while a cluster breaks and mends.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use weft_cluster::{Api, Cluster, ClusterBuilder};

use crate::browsers::chromium_for;
use crate::support::{MASTER_KEY, documents, start};

const PAGE: &str = "/_cluster/ui";
const TRAFFIC: &str = "/_cluster/traffic";

/// Every search goes to the shards: none is answered by what is remembered.
fn asked_each_time() -> ClusterBuilder {
    Cluster::builder().merger_env("WEFT_ANSWER_CACHE_BYTES", "0")
}

#[tokio::test]
async fn the_page_needs_no_key_and_what_it_asks_for_does() {
    for filter in [true, false] {
        let (cluster, api) = start(asked_each_time().shards(2).filter(filter)).await;
        for key in [None, Some("a-wrong-key-for-tests"), Some(MASTER_KEY)] {
            let page = api.with_key(key).get(PAGE).await.unwrap();
            assert_eq!(page.status, 200, "{}", page.text);
            assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
            let policy = page.headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"));
            assert_eq!(page.headers["x-content-type-options"], "nosniff");
            assert!(!page.text.contains("shard-0-node-0"), "it holds data");
        }
        let version = api.get(PAGE).await.unwrap().headers["etag"].clone();
        let known = [("if-none-match", version.to_str().unwrap())];
        let again = api.send(reqwest::Method::GET, PAGE, &known, Vec::new());
        assert_eq!(again.await.unwrap().status, 304);
        for path in [TRAFFIC, "/_cluster/ui/other", "/_cluster/uid"] {
            let without = api.with_key(None).get(path).await.unwrap();
            assert_eq!(without.status, 401, "{path}");
        }
        let wrong = api.with_key(Some("a-wrong-key-for-tests"));
        assert_eq!(wrong.get(TRAFFIC).await.unwrap().status, 403);
        let posted = api.with_key(None).post(PAGE, &json!({})).await.unwrap();
        assert_eq!(posted.status, 401);
        let posted = api.post(PAGE, &json!({})).await.unwrap();
        assert_eq!(posted.status, 405);
        drop(cluster);
    }
}

#[tokio::test]
async fn traffic_counts_what_went_to_each_shard() {
    let (_cluster, api) = start(asked_each_time().shards(3)).await;
    fill(&api, "films").await;
    let shards = |reply: &weft_cluster::Reply| reply.at("/shards").as_array().unwrap().clone();
    let sum = |reply: &weft_cluster::Reply, path: &str| -> Vec<u64> {
        let all = shards(reply);
        let one = |shard: &serde_json::Value| shard.pointer(path).unwrap().as_u64().unwrap();
        all.iter().map(one).collect()
    };
    let before = api.get(TRAFFIC).await.unwrap();
    assert_eq!(before.status, 200, "{}", before.text);
    assert_eq!(before.at("/merger"), "alone");
    assert!(sum(&before, "/writes/count").iter().all(|count| *count > 0));
    for _ in 0..20 {
        let found = api.get("/indexes/films/search?q=amber").await.unwrap();
        assert_eq!(found.status, 200, "{}", found.text);
    }
    let after = api.get(TRAFFIC).await.unwrap();
    let (then, now) = (sum(&before, "/reads/count"), sum(&after, "/reads/count"));
    for (then, now) in then.iter().zip(&now) {
        assert!(now - then >= 20, "{then} {now}");
    }
    for shard in shards(&after) {
        let reads = &shard["reads"];
        let buckets = reads["buckets"].as_array().unwrap();
        assert_eq!(
            buckets.len(),
            after.at("/bucketsMs").as_array().unwrap().len() + 1
        );
        let all: u64 = buckets.iter().map(|bucket| bucket.as_u64().unwrap()).sum();
        assert_eq!(reads["count"], all);
        assert!(reads["sumMs"].as_f64().unwrap() > 0.0);
        assert_eq!(reads["failed"], 0);
    }
}

#[tokio::test]
async fn each_of_several_mergers_serves_the_page_and_counts_its_own_traffic() {
    let builder = asked_each_time().shards(2).mergers(3);
    let (cluster, api) = start(builder).await;
    fill(&api, "films").await;
    let mut mergers = std::collections::BTreeSet::new();
    for (pair, edge) in cluster.edges().iter().enumerate() {
        let page = edge.with_key(None).get(PAGE).await.unwrap();
        assert_eq!(page.status, 200, "{}", page.text);
        let without = edge.with_key(None).get(TRAFFIC).await.unwrap();
        assert_eq!(without.status, 401);
        // Asked directly, because Envoy may have sent the request to another merger just after the start.
        let merger = Api::new(cluster.pair(pair).merger_url(), cluster.master_key());
        let traffic = merger.get(TRAFFIC).await.unwrap();
        assert_eq!(traffic.status, 200, "{}", traffic.text);
        mergers.insert(traffic.at("/merger").as_str().unwrap().to_owned());
    }
    assert_eq!(mergers.len(), 3);
    // Without a leader, and without etcd, it is there too.
    for member in cluster.etcd() {
        member.kill().unwrap();
    }
    for edge in cluster.edges() {
        let page = edge.with_key(None).get(PAGE).await.unwrap();
        assert_eq!(page.status, 200, "{}", page.text);
    }
}

/// An index on all shards, with documents.
async fn fill(api: &Api, uid: &str) {
    let index = json!({"uid": uid, "primaryKey": "id"});
    let made = api.post("/indexes", &index).await.unwrap();
    api.succeed(&made).await.unwrap();
    let path = format!("/indexes/{uid}/documents");
    let added = api.post(&path, &documents(0..300)).await.unwrap();
    api.succeed(&added).await.unwrap();
}

#[tokio::test]
async fn the_page_shows_what_breaks_and_what_mends() {
    let builder = asked_each_time().shards(3).replicas(2);
    let (cluster, api) = start(builder).await;
    fill(&api, "films").await;
    let tiny = json!({"uid": "tiny", "primaryKey": "id", "sharding": {"shardCount": 1}});
    let made = api.post("/indexes", &tiny).await.unwrap();
    api.succeed(&made).await.unwrap();
    let bad = json!([{"id": "<img src=x onerror=alert(1)>"}]);
    let failed = api.post("/indexes/films/documents", &bad).await.unwrap();
    api.settle(&failed).await.unwrap();
    browse(&cluster, "breaks", Some(MASTER_KEY)).await;
}

#[tokio::test]
async fn the_page_needs_no_form_where_the_cluster_has_no_key() {
    let cluster = asked_each_time().shards(2).start().await.unwrap();
    fill(&Api::new(cluster.url(), None), "films").await;
    browse(&cluster, "open", None).await;
}

/// Runs the script in a browser. It asks in lines for what it can't do itself: `want kill shard-1-node-1`.
async fn browse(cluster: &Cluster, part: &str, key: Option<&str>) {
    let Some(chromium) = chromium_for("the status page was not opened in a browser") else {
        return;
    };
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap();
    let installed = checkout.join(".weft/page");
    assert!(
        installed.join("node_modules/axe-core").is_dir(),
        "`make clients` installs what looks at the page"
    );
    let pictures = checkout.join("target/browser");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut child = Command::new("node")
        .arg(checkout.join("tests/clients/status_page.mjs"))
        .args([part, &cluster.url(), key.unwrap_or_default()])
        .arg(&pictures)
        .env("CHROMIUM", &chromium)
        .current_dir(&installed)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said.push_str(&line);
        said.push('\n');
        if let Some(wish) = line.strip_prefix("want ") {
            grant(cluster, wish);
            input.write_all(b"done\n").await.unwrap();
        }
    }
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.ends_with("ok the end\n"), "{said}{errors}");
}

fn grant(cluster: &Cluster, wish: &str) {
    let (what, which) = wish.split_once(' ').unwrap();
    let process = match which {
        "merger" => cluster.merger(),
        name => {
            let named = |process: &&weft_cluster::Process| process.name() == name;
            cluster.processes().find(named).unwrap()
        }
    };
    match what {
        "kill" => process.kill().unwrap(),
        "restart" => process.restart().unwrap(),
        _ => panic!("the script wants something unknown: {wish}"),
    }
}
