//! Pages: the root path, a node's dashboard, and a search page in a real browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use weft_cluster::{Cluster, StandInCluster};

use super::{BEARER, ask};
use crate::support::{MASTER_KEY, start};

#[tokio::test]
async fn the_root_path_shows_what_a_node_shows() {
    let (cluster, _) = start(Cluster::builder().shards(2)).await;
    let root = ask(&cluster.url(), "GET", "/", &[], "").await;
    assert_eq!(root.status, 200);
    let of_node = ask(&cluster.node_url(0, 0), "GET", "/", &[], "").await;
    assert_eq!(root.body, of_node.body);
    for (method, path, status) in [
        ("HEAD", "/", 405),
        ("POST", "/", 405),
        ("GET", "/no-such-file.js", 404),
        ("POST", "/no-such-file.js", 404),
        ("GET", "/nothing", 404),
    ] {
        let answer = ask(&cluster.url(), method, path, &[], "").await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
    cluster.node(0, 0).kill().unwrap();
    let alone = ask(&cluster.url(), "GET", "/", &[], "").await;
    let said: Value = serde_json::from_slice(&alone.body).unwrap();
    assert_eq!(said, json!({"status": "Meilisearch is running"}));
}

#[tokio::test]
async fn a_nodes_dashboard_is_served_with_its_files_and_without_the_clients_key() {
    let cluster = StandInCluster::start(2, true, Vec::new()).await.unwrap();
    let page = "<!doctype html><script src=/assets/app-1f.js></script>";
    let files = [
        ("/", "text/html; charset=utf-8", page),
        ("/assets/app-1f.js", "text/javascript", "alert(1)"),
        ("/logo.svg?v=1", "image/svg+xml", "<svg/>"),
    ];
    for (path, content_type, text) in files {
        cluster.nodes[0].add_file(path, content_type, text);
    }
    cluster.nodes[0].take_seen();
    for (path, content_type, text) in files {
        let answer = ask(&cluster.url(), "GET", path, &[BEARER], "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.all("content-type"), [content_type], "{path}");
        assert_eq!(answer.body, text.as_bytes(), "{path}");
    }
    let seen = cluster.nodes[0].take_seen();
    for (path, _, _) in files {
        let asked = seen.iter().find(|seen| seen.path == path).unwrap();
        assert!(!asked.headers.contains_key("authorization"), "{path}");
    }
}

/// The browser; where there is none, a line says what was left out.
#[allow(
    clippy::print_stdout,
    reason = "a test that is left out says so in the run's output"
)]
pub(crate) fn chromium_for(what: &str) -> Option<PathBuf> {
    let found = chromium();
    if found.is_none() {
        let line = format!("LEFT OUT: there is no chromium here, so {what}");
        // On both: cargo shows one of them only where tests pass.
        println!("{line}");
        eprintln!("{line}");
    }
    found
}

/// The browser: `CHROMIUM`, or the first that is installed.
fn chromium() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM").filter(|path| !path.is_empty()) {
        return Some(named.into());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).flat_map(|folder| {
        ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name))
    });
    found.into_iter().find(|program| program.is_file())
}

#[tokio::test]
async fn a_search_page_works_in_a_browser() {
    let Some(chromium) = chromium_for("no search page was opened in a browser") else {
        return;
    };
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap();
    let installed = checkout.join(".weft/page");
    assert!(
        installed.join("node_modules/playwright-core").is_dir(),
        "`make clients` installs the library that controls the browser"
    );
    let pictures = checkout.join("target/browser");
    std::fs::create_dir_all(&pictures).unwrap();
    for filter in [true, false] {
        let (cluster, _) = start(Cluster::builder().shards(3).filter(filter)).await;
        let picture = pictures.join(format!(
            "search-{}.png",
            if filter { "filter" } else { "merger" }
        ));
        let output = Command::new("node")
            .arg(checkout.join("tests/clients/browser.mjs"))
            .args([&cluster.url(), MASTER_KEY])
            .arg(&picture)
            .env("CHROMIUM", &chromium)
            .current_dir(&installed)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let picture = std::fs::metadata(&picture).unwrap();
        assert!(picture.len() > 10_000, "the page was empty");
    }
}
