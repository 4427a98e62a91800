//! Envoy itself validates the files that `weft config envoy` prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use weft_cluster::{Api, Binaries, Cluster, Deadline, until};

use crate::support::{MASTER_KEY, counter, documents, start};

/// The oldest Envoy and the newest.
pub(crate) fn envoys() -> [PathBuf; 2] {
    [
        Binaries::oldest_envoy().unwrap(),
        Binaries::find().unwrap().envoy,
    ]
}

/// Both Envoys' verdict on the file for these options.
fn validate(options: &str) -> Result<(), String> {
    validate_file("envoy", options)
}

/// Both Envoys' verdict on the file that `weft config` prints under this name for these options.
fn validate_file(name: &str, options: &str) -> Result<(), String> {
    let binaries = Binaries::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.yaml");
    let printed = Command::new(&binaries.weft)
        .args(["config", name, "--wasm"])
        .arg(&binaries.filter)
        .args(options.split_whitespace())
        .output()
        .unwrap();
    assert!(
        printed.status.success(),
        "{options}: {}",
        String::from_utf8_lossy(&printed.stderr)
    );
    fs::write(&file, printed.stdout).unwrap();
    envoys()
        .iter()
        .try_for_each(|envoy| validate_with(envoy, &file))
}

fn validate_with(envoy: &Path, file: &Path) -> Result<(), String> {
    let output = Command::new(envoy)
        .args([
            "--mode",
            "validate",
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
            "--config-path",
        ])
        .arg(file)
        .output()
        .unwrap();
    let output_text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(output_text.into_owned());
    }
    // A field that is deprecated, and so will be removed from Envoy, already counts as an error.
    if output_text.to_lowercase().contains("deprecated") {
        Err(output_text.into_owned())
    } else {
        Ok(())
    }
}

#[test]
fn envoy_accepts_what_weft_prints() {
    for options in [
        "",
        "--shards 1 --replicas 1",
        "--shards 3 --replicas 2",
        "--shards 40 --replicas 3",
        "--no-filter",
        "--body-routing false",
        "--access-log failed",
        "--access-log detailed",
        "--access-log detailed --no-filter",
        "--access-log off",
        "--several-mergers --replicas 2",
        "--several-mergers --other-merger 10.0.0.2:7703 --other-merger 10.0.0.3:7703",
        "--several-mergers --other-merger merger-1.weft.svc.cluster.local:7703",
        "--sockets /run/weft --replicas 2",
        "--sockets /run/weft --socket-mode 660 --several-mergers --other-merger 10.0.0.2:7703",
        "--sockets /run/weft --node-host shard-{shard}-node-{replica}:7700",
        "--node-host shard-{shard}-node-{replica}:7700",
        "--merger merger.weft.svc.cluster.local:7703",
        "--node 0=10.0.0.1:7700 --node 0=10.0.0.2:7700 --node 1=[fd00::3]:7700 --edge [::]:7700",
    ] {
        assert_eq!(validate(options), Ok(()), "{options}");
    }
}

#[test]
fn envoy_accepts_traces_and_tls() {
    let folder = tempfile::tempdir().unwrap();
    let sds = format!("--sds-dir {}", folder.path().display());
    let edge = "--tls-cert tls.crt --tls-key tls.key";
    let nodes = "--tls-nodes-ca ca.pem --tls-nodes-cert tls.crt --tls-nodes-key tls.key";
    for options in [
        "--otlp-tracing 127.0.0.1:4317".to_owned(),
        "--otlp-tracing collector.weft.svc.cluster.local:4317 --otlp-sampling 0.5".to_owned(),
        format!("{edge} {sds}"),
        format!("{edge} --tls-clients-ca ca.pem {sds}"),
        format!("--tls-nodes-ca ca.pem --replicas 2 {sds}"),
        format!("{edge} {nodes} --node 0=a:1 --node 0=10.0.0.1:7700 --node 1=b:1 {sds}"),
        format!(
            "{nodes} --tls-nodes-name node.weft --merger merger.weft.svc.cluster.local:7703 {sds}"
        ),
    ] {
        assert_eq!(validate(&options), Ok(()), "{options}");
    }
}

#[test]
fn envoy_accepts_a_configuration_whose_shards_are_in_files() {
    let binaries = Binaries::find().unwrap();
    for options in [
        "--shards 3 --replicas 2",
        "--several-mergers --merger merger.weft.svc.cluster.local:7703 --node-host n-{shard}-{replica}:7700",
        "--shards 2 --eds",
        "--shards 2 --replicas 2 --eds --spare 127.0.0.1:7790",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("{options} --dynamic {}", folder.path().display());
        let written = Command::new(&binaries.weft)
            .args(["config", "shards"])
            .args(options.split_whitespace())
            .output()
            .unwrap();
        assert!(written.status.success(), "{options}: {written:?}");
        assert_eq!(validate(&options), Ok(()), "{options}");
    }
}

#[test]
fn envoy_accepts_the_file_for_a_nodes_own_envoy() {
    for options in [
        "--node 127.0.0.1:7710 --listen 127.0.0.1:7700",
        "--node node.weft.svc.cluster.local:7700 --listen [::]:7700 --admin 127.0.0.1:7701 --require-term",
    ] {
        assert_eq!(validate_file("guard", options), Ok(()), "{options}");
    }
}

#[test]
fn envoy_accepts_the_committed_files() {
    let binaries = Binaries::find().unwrap();
    for name in ["envoy.yaml", "envoy-several-mergers.yaml"] {
        let path = format!("{}/../envoy/{name}", env!("CARGO_MANIFEST_DIR"));
        let committed = fs::read_to_string(path).unwrap();
        // Only the path of the filter is different here.
        let here = committed.replace(
            "/etc/weft/weft_filter.wasm",
            &binaries.filter.display().to_string(),
        );
        assert_ne!(here, committed);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("envoy.yaml");
        fs::write(&file, here).unwrap();
        for envoy in envoys() {
            let verdict = validate_with(&envoy, &file);
            assert_eq!(verdict, Ok(()), "{name}: {}", envoy.display());
        }
    }
}

/// An Envoy's version, from the output of `--version`: `…/1.36.2/…`.
fn version(envoy: &Path) -> String {
    let output = Command::new(envoy).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text
        .split('/')
        .find(|part| part.starts_with(|first: char| first.is_ascii_digit()) && part.contains('.'));
    version.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[tokio::test]
async fn the_oldest_envoy_and_the_newest_serve_with_the_filter() {
    let [oldest, newest] = envoys();
    assert!(
        version(&oldest).starts_with("1.36."),
        "{}",
        version(&oldest)
    );
    assert_ne!(version(&oldest), version(&newest));
    for envoy in [oldest, newest] {
        let version = version(&envoy);
        let builder = Cluster::builder()
            .shards(2)
            .replicas(2)
            .access_log("all")
            .envoy(envoy);
        let (cluster, api) = start(builder).await;
        let index = json!({"uid": "tiny", "primaryKey": "id", "sharding": {"shardCount": 1}});
        let made = api.post("/indexes", &index).await.unwrap();
        api.succeed(&made).await.unwrap();
        for uid in ["tiny", "wide"] {
            let path = format!("/indexes/{uid}/documents");
            let added = api.post(&path, &documents(0..50)).await.unwrap();
            api.succeed(&added).await.unwrap();
            let found = api
                .get(&format!("/indexes/{uid}/search?q=amber"))
                .await
                .unwrap();
            assert_eq!(
                found.at("/estimatedTotalHits"),
                10,
                "{version}: {}",
                found.text
            );
            let one = api.get(&format!("{path}/7")).await.unwrap();
            assert_eq!(one.status, 200, "{version}: {}", one.text);
        }
        let deadline = Deadline::after(Duration::from_secs(20));
        until("a read directly from a node", deadline, || async {
            api.get("/indexes/tiny/documents").await.unwrap();
            match counter(&cluster, &["weft_filter_requests_direct_read"]).await {
                0 => Err("the filter sent nothing directly to a shard".to_owned()),
                _ => Ok(()),
            }
        })
        .await
        .unwrap();
        let unknown = Api::new(cluster.url(), Some(MASTER_KEY))
            .get("/_weft/table")
            .await;
        assert_eq!(unknown.unwrap().status, 404, "{version}");
        // The log's fields are filled in.
        let log = cluster.folder().join("logs/envoy.log");
        let deadline = Deadline::after(Duration::from_secs(10));
        until("a line of the access log", deadline, || async {
            let text = fs::read_to_string(&log).unwrap();
            let direct = |line: &str| {
                line.contains("/indexes/tiny/documents")
                    && line.contains(r#""method":"GET""#)
                    && line.contains(r#""cluster":"shard-"#)
            };
            match text.lines().any(direct) {
                true => Ok(()),
                false => Err(text),
            }
        })
        .await
        .unwrap();
    }
}
