//! What a browser meets: it asks before it sends, reads answers only where it is told that it may, and wants them
//! compressed. With and without the filter, on every way that an answer takes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, ClusterBuilder, Deadline, Single, StandInCluster, until};

use crate::support::{MASTER_KEY, counter, documents, start};

const PAGE: &str = "https://shop.example";
const ALLOWED: &str = "access-control-allow-origin";

/// An answer as it came over the wire.
struct Raw {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Raw {
    fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    /// What it says to a browser: each header of CORS, and what caches must know.
    fn to_browsers(&self) -> Vec<(String, Vec<String>)> {
        let mut said: Vec<_> = self
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("access-control-") || *name == "vary")
            .map(|name| {
                let mut values: Vec<String> = self
                    .all(name.as_str())
                    .iter()
                    .flat_map(|value| value.split(','))
                    .map(|value| value.trim().to_ascii_lowercase())
                    .collect();
                // A node lists methods in another order after each start.
                values.sort();
                (name.to_string(), values)
            })
            .collect();
        said.sort();
        said
    }
}

async fn ask(
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Raw {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        all.append(name, HeaderValue::from_str(value).unwrap());
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let answer = Client::new()
        .request(method, format!("{base}{path}"))
        .headers(all)
        .body(body)
        .send()
        .await
        .unwrap();
    Raw {
        status: answer.status(),
        headers: answer.headers().clone(),
        body: answer.bytes().await.unwrap().to_vec(),
    }
}

/// `wide` on all shards, `tiny` on one, with the same documents.
async fn filled(api: &Api) {
    for (uid, shards) in [("wide", 3), ("tiny", 1)] {
        let index = json!({"uid": uid, "primaryKey": "id", "sharding": {"shardCount": shards}});
        let made = api.post("/indexes", &index).await.unwrap();
        api.succeed(&made).await.unwrap();
        fill(api, uid).await;
    }
}

async fn fill(api: &Api, uid: &str) {
    let added = api
        .post(&format!("/indexes/{uid}/documents"), &documents(0..300))
        .await
        .unwrap();
    api.succeed(&added).await.unwrap();
}

async fn cluster(filter: bool, change: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Cluster {
    let builder = change(Cluster::builder().shards(3).filter(filter));
    let (cluster, api) = start(builder).await;
    filled(&api).await;
    cluster
}

/// Reads until a read went straight to a node: from then on the filter has the table.
async fn read_directly(cluster: &Cluster) {
    let deadline = Deadline::after(Duration::from_secs(20));
    until("a read straight from a node", deadline, || async {
        ask(
            &cluster.url(),
            "GET",
            "/indexes/tiny/documents",
            &[BEARER],
            "",
        )
        .await;
        match counter(cluster, &["weft_filter_requests_direct_read"]).await {
            0 => Err("no read went straight to a node".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
}

const BEARER: (&str, &str) = ("authorization", "Bearer a-master-key-for-tests");
const JSON: (&str, &str) = ("content-type", "application/json");

/// Method, path, headers, body.
type Asked = (
    &'static str,
    &'static str,
    Vec<(&'static str, &'static str)>,
    &'static str,
);

/// Requests on every way that an answer takes.
fn requests() -> Vec<Asked> {
    vec![
        ("GET", "/health", vec![], ""),
        ("GET", "/", vec![], ""),
        ("GET", "/indexes/wide/search?q=amber", vec![BEARER], ""),
        (
            "POST",
            "/indexes/wide/search",
            vec![BEARER, JSON],
            r#"{"q":"cedar"}"#,
        ),
        (
            "POST",
            "/indexes/tiny/search",
            vec![BEARER, JSON],
            r#"{"q":"cedar"}"#,
        ),
        ("GET", "/indexes/tiny/search?q=dune", vec![BEARER], ""),
        ("GET", "/indexes/wide/documents/7", vec![BEARER], ""),
        (
            "POST",
            "/multi-search",
            vec![BEARER, JSON],
            r#"{"queries":[{"indexUid":"wide"}]}"#,
        ),
        (
            "PUT",
            "/indexes/wide/documents",
            vec![BEARER, JSON],
            r#"[{"id":7}]"#,
        ),
        ("GET", "/tasks?limit=1", vec![BEARER], ""),
        // What goes wrong.
        ("POST", "/indexes/wide/search", vec![JSON], "{}"),
        ("POST", "/indexes/tiny/search", vec![JSON], "{}"),
        ("GET", "/indexes/wide/documents/none", vec![BEARER], ""),
        ("GET", "/indexes/none/search", vec![BEARER], ""),
        ("POST", "/indexes/wide/search", vec![BEARER, JSON], "{"),
        (
            "POST",
            "/indexes/wide/search",
            vec![BEARER, ("content-type", "text/plain")],
            "{}",
        ),
        ("GET", "/nothing/of/the/kind", vec![BEARER], ""),
        ("PATCH", "/health", vec![], ""),
        ("OPTIONS", "/indexes/wide/search", vec![], ""),
        ("HEAD", "/", vec![], ""),
    ]
}

#[tokio::test]
async fn a_page_of_any_origin_reads_every_answer_as_it_reads_a_nodes() {
    let node = Single::start(Some(MASTER_KEY)).await.unwrap();
    let api = Api::new(node.url(), Some(MASTER_KEY));
    for uid in ["wide", "tiny"] {
        fill(&api, uid).await;
    }
    for filter in [true, false] {
        let cluster = cluster(filter, |builder| builder).await;
        if filter {
            read_directly(&cluster).await;
        }
        for (method, path, mut headers, body) in requests() {
            let plain = ask(&cluster.url(), method, path, &headers, body).await;
            let of_node = ask(&node.url(), method, path, &headers, body).await;
            assert_eq!(
                plain.to_browsers(),
                of_node.to_browsers(),
                "{method} {path}"
            );
            headers.push(("origin", PAGE));
            let answer = ask(&cluster.url(), method, path, &headers, body).await;
            let of_node = ask(&node.url(), method, path, &headers, body).await;
            // The embedded node answers HEAD where a real one doesn't.
            if method != "HEAD" {
                assert_eq!(answer.status, of_node.status, "{method} {path}");
            }
            assert_eq!(answer.all(ALLOWED), ["*"], "{method} {path}");
            assert_eq!(
                answer.to_browsers(),
                of_node.to_browsers(),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn a_browser_that_asks_whether_it_may_is_told_what_a_node_tells_it() {
    let node = Single::start(Some(MASTER_KEY)).await.unwrap();
    let wanted = "authorization,content-type,x-meilisearch-client,meili-include-metadata,x-weft-partial,x-own";
    for filter in [true, false] {
        let cluster = cluster(filter, |builder| builder).await;
        for path in [
            "/indexes/wide/search",
            "/indexes/tiny/documents/7?x=1",
            "/multi-search",
            "/nothing",
            "/",
        ] {
            for method in [
                "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "put", "FETCH",
            ] {
                for more in [None, Some(("access-control-request-headers", wanted))] {
                    let mut headers =
                        vec![("origin", PAGE), ("access-control-request-method", method)];
                    headers.extend(more);
                    let answer = ask(&cluster.url(), "OPTIONS", path, &headers, "").await;
                    let of_node = ask(&node.url(), "OPTIONS", path, &headers, "").await;
                    let what = format!("{method} {path}");
                    assert_eq!(answer.status, of_node.status, "{what}");
                    assert_eq!(answer.to_browsers(), of_node.to_browsers(), "{what}");
                    assert_eq!(answer.body, of_node.body, "{what}");
                    if answer.status == 200 {
                        assert_eq!(answer.all("access-control-max-age"), ["86400"], "{what}");
                    }
                }
            }
        }
    }
}

/// An answer that Envoy gives itself, to a page.
async fn of_envoy(cluster: &Cluster, method: &str, path: &str, headers: &[(&str, &str)]) -> Raw {
    let headers = [headers, &[("origin", PAGE)]].concat();
    ask(&cluster.url(), method, path, &headers, "").await
}

#[tokio::test]
async fn a_page_can_read_what_envoy_answers_itself() {
    for filter in [true, false] {
        let (cluster, _) = start(Cluster::builder().filter(filter)).await;
        let hidden = of_envoy(&cluster, "GET", "/_weft/table", &[]).await;
        assert_eq!(
            (hidden.status.as_u16(), hidden.all(ALLOWED)),
            (404, vec!["*"])
        );
        let hidden = of_envoy(&cluster, "GET", "/%5Fweft/table", &[]).await;
        assert_eq!(
            (hidden.status.as_u16(), hidden.all(ALLOWED)),
            (404, vec!["*"])
        );
        let long = "x".repeat(200 << 10);
        let long = of_envoy(&cluster, "GET", "/health", &[("x-long", &long)]).await;
        assert_eq!((long.status.as_u16(), long.all(ALLOWED)), (431, vec!["*"]));
        cluster.merger().kill().unwrap();
        let down = of_envoy(&cluster, "GET", "/version", &[]).await;
        assert_eq!((down.status.as_u16(), down.all(ALLOWED)), (503, vec!["*"]));
        let said: Value = serde_json::from_slice(&down.body).unwrap();
        assert_eq!(said["code"], "internal");
    }
}

/// What the listed page and another one are told, on each way.
async fn for_listed_pages_only(cluster: &Cluster, page: &str) {
    let preflight = ("access-control-request-method", "POST");
    for (origin, allowed) in [(page, vec![page]), ("https://evil.example", vec![])] {
        for (method, path, mut headers, body) in requests() {
            headers.push(("origin", origin));
            let answer = ask(&cluster.url(), method, path, &headers, body).await;
            assert_eq!(answer.all(ALLOWED), allowed, "{origin} {method} {path}");
        }
        let asks = [("origin", origin), preflight];
        let answer = ask(&cluster.url(), "OPTIONS", "/indexes/tiny/search", &asks, "").await;
        assert_eq!(answer.all(ALLOWED), allowed, "{origin}");
    }
}

#[tokio::test]
async fn only_the_listed_pages_read_answers() {
    let page = "https://a.shop.example";
    for filter in [true, false] {
        let cluster = cluster(filter, |builder| {
            builder.merger_env(
                "WEFT_CORS_ORIGINS",
                "https://x.example,https://*.shop.example",
            )
        })
        .await;
        if filter {
            // From now on the filter has the table.
            read_directly(&cluster).await;
        }
        for_listed_pages_only(&cluster, page).await;
    }
}

#[tokio::test]
async fn envoys_own_cors_filter_can_take_over() {
    for filter in [true, false] {
        let cluster = cluster(filter, |builder| {
            builder
                .merger_env("WEFT_CORS_ORIGINS", "none")
                .edit_envoy(|printed| {
                    assert!(printed.contains("#cors: "), "nothing to uncomment");
                    printed.replace("#cors: ", "")
                })
        })
        .await;
        if filter {
            read_directly(&cluster).await;
        }
        for_listed_pages_only(&cluster, PAGE).await;
    }
}

fn unpacked(body: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let body = body.to_vec();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut input, &body));
    let plain = gzip.wait_with_output().unwrap().stdout;
    writing.join().unwrap().unwrap();
    plain
}

#[tokio::test]
async fn a_page_of_hits_comes_as_the_client_wants_it_packed() {
    for filter in [true, false] {
        let cluster = cluster(filter, |builder| builder).await;
        for path in [
            "/indexes/wide/search?limit=100&showRankingScore=true",
            "/indexes/tiny/search?limit=100&showRankingScore=true",
            "/indexes/wide/documents?limit=100",
            "/indexes/tiny/documents?limit=100",
        ] {
            let plain = ask(&cluster.url(), "GET", path, &[BEARER], "").await;
            assert!(plain.all("content-encoding").is_empty(), "{path}");
            assert!(plain.body.len() > 4_000, "{path}: {}", plain.body.len());
            for (accept, coding) in [
                ("gzip, deflate, br, zstd", vec!["br"]),
                ("gzip", vec!["gzip"]),
                ("deflate", vec!["deflate"]),
                ("br;q=0.1, gzip;q=0.9", vec!["gzip"]),
                ("identity", vec![]),
                ("gzip;q=0", vec![]),
            ] {
                let asks = [BEARER, ("accept-encoding", accept)];
                let packed = ask(&cluster.url(), "GET", path, &asks, "").await;
                assert_eq!(packed.all("content-encoding"), coding, "{path} {accept}");
                if coding.is_empty() {
                    continue;
                }
                assert!(
                    packed.body.len() * 3 < plain.body.len(),
                    "{path} {accept}: {} of {}",
                    packed.body.len(),
                    plain.body.len()
                );
                assert!(
                    packed.all("vary").join(",").contains("accept-encoding"),
                    "{path} {accept}"
                );
                if coding == ["gzip"] {
                    let hits = |body: &[u8]| {
                        let mut page: Value = serde_json::from_slice(body).unwrap();
                        page["processingTimeMs"].take();
                        page["requestUid"].take();
                        page
                    };
                    assert_eq!(hits(&unpacked(&packed.body)), hits(&plain.body), "{path}");
                }
            }
        }
        // A node packs whatever it says, and the official Go client relies on it.
        for (method, path, body) in [
            ("GET", "/health", ""),
            ("GET", "/indexes/nobodys/search", ""),
            ("DELETE", "/indexes/nobodys", ""),
        ] {
            let asks = [BEARER, JSON, ("accept-encoding", "gzip")];
            let small = ask(&cluster.url(), method, path, &asks, body).await;
            assert_eq!(small.all("content-encoding"), ["gzip"], "{path}");
            let said: Value = serde_json::from_slice(&unpacked(&small.body)).unwrap();
            assert!(said.is_object(), "{path}: {said}");
        }
        let asks = [BEARER, ("accept-encoding", "*;q=0")];
        let none = ask(&cluster.url(), "GET", "/indexes/wide/search", &asks, "").await;
        assert_eq!(none.status, 406);
    }
}

fn packed(text: &str) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = gzip.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, text.as_bytes()).unwrap();
    drop(input);
    gzip.wait_with_output().unwrap().stdout
}

#[tokio::test]
async fn a_search_that_comes_packed_searches_all_shards() {
    for filter in [true, false] {
        let cluster = cluster(filter, |builder| builder).await;
        let headers = [BEARER, JSON, ("content-encoding", "gzip")];
        for (path, body, total) in [
            (
                "/indexes/wide/search",
                r#"{"q":"cedar"}"#,
                "/estimatedTotalHits",
            ),
            (
                "/indexes/tiny/search",
                r#"{"q":"cedar"}"#,
                "/estimatedTotalHits",
            ),
            ("/indexes/wide/documents/fetch", r#"{"limit":1}"#, "/total"),
            (
                "/multi-search",
                r#"{"queries":[{"indexUid":"wide","q":"cedar"}]}"#,
                "/results/0/estimatedTotalHits",
            ),
        ] {
            let answer = ask(&cluster.url(), "POST", path, &headers, packed(body)).await;
            let said: Value = serde_json::from_slice(&answer.body).unwrap();
            let all = if path.ends_with("fetch") { 300 } else { 60 };
            assert_eq!(said.pointer(total), Some(&json!(all)), "{path}: {said}");
            let broken = ask(&cluster.url(), "POST", path, &headers, body).await;
            assert_eq!(broken.status, 400, "{path}");
        }
    }
}

#[tokio::test]
async fn the_address_itself_shows_what_a_node_shows() {
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
        cluster.nodes[0].show(path, content_type, text);
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
    let Some(chromium) = chromium() else {
        println!("LEFT OUT: there is no chromium here, so no search page was opened in a browser");
        eprintln!("LEFT OUT: there is no chromium here, so no search page was opened in a browser");
        return;
    };
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap();
    let installed = checkout.join(".weft/page");
    assert!(
        installed.join("node_modules/playwright-core").is_dir(),
        "`make clients` installs what drives the browser"
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

#[tokio::test]
async fn answers_that_come_straight_from_a_node_are_packed_by_it() {
    let cluster = cluster(true, |builder| builder).await;
    let asks = [BEARER, ("accept-encoding", "gzip, br")];
    let path = "/indexes/tiny/documents?limit=100";
    let mut of_node = None;
    for shard in 0..3 {
        let answer = ask(&cluster.node_url(shard, 0), "GET", path, &asks, "").await;
        of_node = of_node.or((answer.status == 200).then_some(answer));
    }
    let of_node = of_node.expect("a node with the index");
    read_directly(&cluster).await;
    let answer = ask(&cluster.url(), "GET", path, &asks, "").await;
    assert_eq!(answer.all("content-encoding"), ["br"]);
    assert_eq!(answer.body, of_node.body, "not as the node packed it");
}
