//! Compressed answers, and compressed requests.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{BEARER, JSON, ask, cluster, read_directly};

fn gunzip(body: &[u8]) -> Vec<u8> {
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
async fn answers_are_compressed_as_the_client_accepts() {
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
                let compressed = ask(&cluster.url(), "GET", path, &asks, "").await;
                assert_eq!(
                    compressed.all("content-encoding"),
                    coding,
                    "{path} {accept}"
                );
                if coding.is_empty() {
                    continue;
                }
                assert!(
                    compressed.body.len() * 3 < plain.body.len(),
                    "{path} {accept}: {} of {}",
                    compressed.body.len(),
                    plain.body.len()
                );
                assert!(
                    compressed.all("vary").join(",").contains("accept-encoding"),
                    "{path} {accept}"
                );
                if coding == ["gzip"] {
                    let hits = |body: &[u8]| {
                        let mut page: Value = serde_json::from_slice(body).unwrap();
                        page["processingTimeMs"].take();
                        page["requestUid"].take();
                        page
                    };
                    assert_eq!(hits(&gunzip(&compressed.body)), hits(&plain.body), "{path}");
                }
            }
        }
        // Nodes compress answers of any size, and the official Go client relies on that.
        for (method, path, body) in [
            ("GET", "/health", ""),
            ("GET", "/indexes/missing/search", ""),
            ("DELETE", "/indexes/missing", ""),
        ] {
            let asks = [BEARER, JSON, ("accept-encoding", "gzip")];
            let small = ask(&cluster.url(), method, path, &asks, body).await;
            assert_eq!(small.all("content-encoding"), ["gzip"], "{path}");
            let said: Value = serde_json::from_slice(&gunzip(&small.body)).unwrap();
            assert!(said.is_object(), "{path}: {said}");
        }
        let asks = [BEARER, ("accept-encoding", "*;q=0")];
        let none = ask(&cluster.url(), "GET", "/indexes/wide/search", &asks, "").await;
        assert_eq!(none.status, 406);
    }
}

fn gzip(text: &str) -> Vec<u8> {
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
async fn a_compressed_search_request_searches_all_shards() {
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
            let answer = ask(&cluster.url(), "POST", path, &headers, gzip(body)).await;
            let said: Value = serde_json::from_slice(&answer.body).unwrap();
            let all = if path.ends_with("fetch") { 300 } else { 60 };
            assert_eq!(said.pointer(total), Some(&json!(all)), "{path}: {said}");
            let broken = ask(&cluster.url(), "POST", path, &headers, body).await;
            assert_eq!(broken.status, 400, "{path}");
        }
    }
}

#[tokio::test]
async fn answers_directly_from_a_node_are_compressed_by_the_node() {
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
    assert_eq!(answer.body, of_node.body, "not compressed as by the node");
}
