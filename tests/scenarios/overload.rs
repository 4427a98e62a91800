//! Clients that send slowly or too much: other clients are served, and refused ones get the right error.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_cluster::{Api, Cluster, Deadline, until};

use crate::support::{MASTER_KEY, counter, documents, start};

const SLOTS: usize = 8;

/// Sends a request's head and one byte of its body.
async fn slow(cluster: &Cluster, path: &str, headers: &str) -> TcpStream {
    let address = cluster.url().replace("http://", "");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: weft\r\ncontent-type: application/json\r\n{headers}content-length: 1000\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

fn key() -> String {
    format!("authorization: Bearer {MASTER_KEY}\r\n")
}

/// The status and the error's code with which a slow request is answered.
async fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut text = String::new();
    let reading = async {
        let mut chunk = [0; 4096];
        loop {
            let read = stream.read(&mut chunk).await.unwrap_or(0);
            text.push_str(&String::from_utf8_lossy(&chunk[..read]));
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
            let json = body.and_then(|body| body.find('{').map(|at| &body[at..]));
            let json = json.and_then(|json| json.rfind('}').map(|end| &json[..=end]));
            if let Some(error) = json.and_then(|json| serde_json::from_str::<Value>(json).ok()) {
                let status = text.split(' ').nth(1).unwrap().parse().unwrap();
                return (status, error["code"].as_str().unwrap().to_owned());
            }
            assert!(read > 0, "the connection ended: {text}");
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), reading);
    waited.await.unwrap()
}

/// True if no answer has arrived.
async fn unanswered(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let peeked = tokio::time::timeout(Duration::from_millis(1), stream.peek(&mut byte));
    peeked.await.is_err()
}

/// An index on one shard, which is read directly, and one on both.
async fn fill(api: &Api) {
    let placed = json!({"uid": "tiny", "primaryKey": "id", "sharding": {"shardCount": 1}});
    let created = api.post("/indexes", &placed).await.unwrap();
    api.succeed(&created).await.unwrap();
    for index in ["tiny", "wide"] {
        let path = format!("/indexes/{index}/documents?primaryKey=id");
        let accepted = api.post(&path, &documents(0..40)).await.unwrap();
        api.succeed(&accepted).await.unwrap();
    }
}

async fn polls(cluster: &Cluster) -> u64 {
    let merger = cluster.merger_url();
    let metrics = Api::new(merger, None).get("/_weft/metrics").await.unwrap();
    let polls = metrics
        .text
        .lines()
        .filter(|line| line.starts_with("weft_merger_table_polls_total"));
    polls
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

async fn direct_reads(cluster: &Cluster) -> u64 {
    counter(cluster, &["weft_filter_requests_direct_read"]).await
}

/// Reads directly and through the merger until the filters have polled the table `more` times, which takes longer than a lease.
async fn read_until_polled(cluster: &Cluster, api: &Api, more: u64) {
    let (begun, direct) = (polls(cluster).await, direct_reads(cluster).await);
    let query = json!({"q": "amber"});
    let mut rounds = 0;
    while polls(cluster).await < begun + more {
        for path in ["/indexes/tiny/documents/7", "/indexes/wide/documents/7"] {
            let read = api.get(path).await.unwrap();
            assert_eq!(read.status, 200, "{path}: {}", read.text);
        }
        for path in ["/indexes/tiny/search", "/indexes/wide/search"] {
            let found = api.post(path, &query).await.unwrap();
            assert_eq!(found.status, 200, "{path}: {}", found.text);
            assert_eq!(found.at("/estimatedTotalHits"), 8, "{path}");
        }
        rounds += 1;
    }
    let deadline = Deadline::after(Duration::from_secs(10));
    // On a slow machine a lease may run out now and then; then the merger answers.
    until("direct reads", deadline, || async {
        let read = direct_reads(cluster).await - direct;
        let enough = read >= rounds;
        enough
            .then_some(())
            .ok_or(format!("{read} of {}", 3 * rounds))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn as_many_slow_clients_as_there_are_slots_do_not_block_others() {
    let builder = Cluster::builder()
        .shards(2)
        .merger_env("WEFT_MAX_REQUESTS", SLOTS.to_string())
        .merger_env("WEFT_LEASE_MS", "1000")
        .merger_env("WEFT_BODY_TIMEOUT_MS", "20000");
    let (cluster, api) = start(builder).await;
    fill(&api).await;
    let (mut clients, mut held) = (Vec::new(), Vec::new());
    for _ in 0..SLOTS {
        for path in [
            "/indexes/wide/search",
            "/indexes/wide/documents",
            "/multi-search",
        ] {
            clients.push(slow(&cluster, path, &key()).await);
        }
        // The filter sends this search to its shard once the body is complete.
        held.push(slow(&cluster, "/indexes/tiny/search", &key()).await);
    }
    read_until_polled(&cluster, &api, 24).await;
    let path = "/indexes/wide/documents?primaryKey=id";
    let written = api.post(path, &documents(40..60)).await.unwrap();
    api.succeed(&written).await.unwrap();
    for client in clients.iter_mut().chain(&mut held) {
        assert!(unanswered(client).await, "a slow client was answered");
    }
    // The merger stops waiting for the bodies that were sent to it.
    for client in &mut clients {
        assert_eq!(answer(client).await, (408, "bad_request".to_owned()));
    }
}

#[tokio::test]
async fn a_key_is_checked_before_the_body_arrives() {
    let (cluster, api) = start(Cluster::builder().shards(2)).await;
    fill(&api).await;
    let wrong = format!("authorization: Bearer {}\r\n", "0123456789abcdef".repeat(4));
    for path in [
        "/indexes/wide/documents",
        "/indexes/wide/documents/delete-batch",
        "/indexes/wide/search",
        "/multi-search",
        "/indexes",
        "/keys",
    ] {
        let mut stranger = slow(&cluster, path, "").await;
        let refused = answer(&mut stranger).await;
        let expected = (401, "missing_authorization_header".to_owned());
        assert_eq!(refused, expected, "{path}");
        let mut stranger = slow(&cluster, path, &wrong).await;
        let refused = answer(&mut stranger).await;
        assert_eq!(refused, (403, "invalid_api_key".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn bodies_over_the_limit_of_concurrent_bodies_are_refused_and_nothing_else_is() {
    let builder = Cluster::builder()
        .shards(2)
        .merger_env("WEFT_MAX_READING", "4")
        .merger_env("WEFT_LEASE_MS", "1000");
    let (cluster, api) = start(builder).await;
    fill(&api).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(slow(&cluster, "/indexes/wide/documents", &key()).await);
    }
    let begun = Instant::now();
    let refused = loop {
        let search = api.post("/indexes/wide/search", &json!({})).await.unwrap();
        if search.status == 503 {
            break search;
        }
        let late = begun.elapsed() > Duration::from_secs(20);
        assert!(!late, "no body is refused: {}", search.text);
        // The search may have been there before a slow client, which was refused in its place.
        for client in &mut clients {
            if !unanswered(client).await {
                *client = slow(&cluster, "/indexes/wide/documents", &key()).await;
            }
        }
    };
    assert_eq!(refused.at("/code"), "too_many_search_requests");
    assert_eq!(refused.at("/type"), "system");
    // Requests without a body are still served, directly and through the merger.
    let begun = polls(&cluster).await;
    while polls(&cluster).await < begun + 24 {
        for path in [
            "/indexes/tiny/documents/7",
            "/indexes/wide/search?q=amber",
            "/indexes",
        ] {
            let read = api.get(path).await.unwrap();
            assert_eq!(read.status, 200, "{path}: {}", read.text);
        }
    }
    drop(clients);
    let deadline = Deadline::after(Duration::from_secs(10));
    until("an accepted body", deadline, || async {
        let search = api.post("/indexes/wide/search", &json!({})).await.unwrap();
        (search.status == 200).then_some(()).ok_or(search.text)
    })
    .await
    .unwrap();
}
