//! A webhook is called once for each ended task of the cluster, and not for the task's parts on the nodes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, Single, until};

use crate::support::{MASTER_KEY, documents, start};

/// A server that records the calls that it receives, after it has refused the first few.
struct Listener {
    port: u16,
    received: Arc<Mutex<Vec<Call>>>,
}

struct Call {
    headers: String,
    tasks: Vec<Value>,
}

impl Listener {
    fn start(mut failures: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received: Arc<Mutex<Vec<Call>>> = Arc::default();
        let noted = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let Some((headers, body)) = request(&mut stream) else {
                    continue;
                };
                let status = if failures > 0 { "503 Busy" } else { "200 OK" };
                let told = failures == 0;
                failures = failures.saturating_sub(1);
                if told {
                    let tasks = gunzip(&body)
                        .lines()
                        .map(|line| serde_json::from_str(line).unwrap())
                        .collect();
                    let call = Call { headers, tasks };
                    noted
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(call);
                }
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { port, received }
    }

    /// How often each task was received, by uid.
    fn counts(&self) -> BTreeMap<u64, usize> {
        let mut told = BTreeMap::new();
        for call in self
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            for task in &call.tasks {
                *told.entry(task["uid"].as_u64().unwrap()).or_default() += 1;
            }
        }
        told
    }
}

/// The head and the body of one request that has a `content-length`.
fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
            if bytes.len() >= end + 4 + length {
                return Some((head, bytes[end + 4..end + 4 + length].to_vec()));
            }
        }
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Decompresses with `gzip -d`.
fn gunzip(body: &[u8]) -> String {
    let mut gzip = std::process::Command::new("gzip")
        .arg("-dc")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    gzip.stdin.take().unwrap().write_all(body).unwrap();
    String::from_utf8(gzip.wait_with_output().unwrap().stdout).unwrap()
}

async fn wait_for_calls(listener: &Listener, uids: &[u64]) {
    until(
        "the calls",
        Deadline::after(Duration::from_secs(30)),
        || async {
            let told = listener.counts();
            if uids.iter().all(|uid| told.contains_key(uid)) {
                Ok(())
            } else {
                Err(format!("{told:?} of {uids:?}"))
            }
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn each_ended_task_is_sent_once_with_the_webhooks_headers_even_after_failures_and_a_crash() {
    let builder = Cluster::builder()
        .shards(3)
        .merger_env("WEFT_WEBHOOK_ALLOWED_IP_NETWORKS", "127.0.0.0/8");
    let (cluster, api) = start(builder).await;
    let listener = Listener::start(2);
    let hook = json!({
        "url": format!("http://localhost:{}/ended?x=1", listener.port),
        "headers": {"Authorization": "Bearer a-secret-token", "x-mine": "yes"},
    });
    let made = api.post("/webhooks", &hook).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.at("/headers/Authorization"), "Bearer a-XXXX...");
    let mut uids = Vec::new();
    for part in 0..5 {
        let path = "/indexes/x/documents?primaryKey=id";
        let accepted = api
            .post(path, &documents(part * 100..part * 100 + 100))
            .await
            .unwrap();
        uids.push(
            api.succeed(&accepted).await.unwrap()["uid"]
                .as_u64()
                .unwrap(),
        );
    }
    wait_for_calls(&listener, &uids).await;
    {
        let received = listener.received.lock().unwrap();
        let call = received.first().unwrap();
        assert!(
            call.headers.starts_with("post /ended?x=1 "),
            "{}",
            call.headers
        );
        for line in [
            "content-type: application/x-ndjson",
            "content-encoding: gzip",
            "authorization: bearer a-secret-token",
            "x-mine: yes",
        ] {
            assert!(call.headers.contains(line), "{line} in {}", call.headers);
        }
        let task = call.tasks.first().unwrap();
        assert_eq!(task["status"], "succeeded");
        assert_eq!(
            task["details"],
            json!({"receivedDocuments": 100, "indexedDocuments": 100})
        );
    }
    // A merger that is killed right after its answer still calls the webhook for the task.
    let accepted = api.delete("/indexes/x/documents").await.unwrap();
    let uid = accepted.at("/taskUid").as_u64().unwrap();
    cluster.merger().kill().unwrap();
    cluster.merger().restart().unwrap();
    cluster.wait_ready().await.unwrap();
    wait_for_calls(&listener, &[uid]).await;
    let told = listener.counts();
    let times: Vec<usize> = uids.iter().map(|uid| told[uid]).collect();
    assert_eq!(times, [1; 5], "{told:?}");
}

#[tokio::test]
async fn a_webhook_in_a_private_network_is_not_called_unless_it_is_allowed() {
    let (cluster, api) = start(Cluster::builder().shards(1)).await;
    let listener = Listener::start(0);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let hook = json!({"url": format!("http://{host}:{}/", listener.port)});
        assert_eq!(api.post("/webhooks", &hook).await.unwrap().status, 201);
    }
    let accepted = api.post("/indexes", &json!({"uid": "x"})).await.unwrap();
    api.succeed(&accepted).await.unwrap();
    let merger = Api::new(cluster.merger_url(), None);
    until(
        "the refusals",
        Deadline::after(Duration::from_secs(90)),
        || async {
            let metrics = merger
                .get("/_weft/metrics")
                .await
                .map_err(|error| error.line())?
                .text;
            let given_up = "weft_merger_webhook_calls_total{outcome=\"given_up\"} 3";
            if metrics.contains(given_up) {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        },
    )
    .await
    .unwrap();
    assert!(listener.counts().is_empty());
}

/// An answer without its uuids, which each side generates itself.
fn comparable(text: &str) -> String {
    let is_uuid = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
    let words = text.split_inclusive(['`', '"', '/']);
    words
        .map(|word| {
            if is_uuid(word.trim_end_matches(['`', '"', '/'])) {
                "<uuid>"
            } else {
                word
            }
        })
        .collect()
}

#[tokio::test]
async fn webhooks_are_created_changed_and_refused_as_on_a_node() {
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let one = Api::new(single.url(), Some(MASTER_KEY));
    let (_cluster, many) = start(Cluster::builder().shards(2)).await;
    if one.get("/webhooks").await.unwrap().status == 501 {
        // The embedded node has no webhooks. Then only the form of the answers is checked here; unit tests check their texts.
        let made = many
            .post("/webhooks", &json!({"url": "http://a.example/x"}))
            .await
            .unwrap();
        assert_eq!(made.status, 201);
        let path = format!("/webhooks/{}", made.at("/uuid").as_str().unwrap());
        assert_eq!(many.get(&path).await.unwrap().body, made.body);
        assert_eq!(many.delete(&path).await.unwrap().status, 204);
        assert_eq!(
            many.get(&path).await.unwrap().at("/code"),
            "webhook_not_found"
        );
        return;
    }
    let mut uuids = [String::new(), String::new()];
    let url = "http://a.example/x";
    let many_headers: serde_json::Map<String, Value> =
        (0..201).map(|n| (format!("h{n}"), json!("v"))).collect();
    let steps: Vec<(Method, &str, Option<Value>)> = vec![
        (Method::GET, "", None),
        (
            Method::POST,
            "",
            Some(json!({"url": url, "headers": {"Authorization": "Bearer abc", "x": "y"}})),
        ),
        (Method::GET, "/{uuid}", None),
        (
            Method::PATCH,
            "/{uuid}",
            Some(json!({"headers": {"x": null, "z": "1"}})),
        ),
        (
            Method::PATCH,
            "/{uuid}",
            Some(json!({"url": "http://b.example"})),
        ),
        (Method::PATCH, "/{uuid}", Some(json!({"url": null}))),
        (Method::PATCH, "/{uuid}", Some(json!({"url": "nope"}))),
        (Method::PATCH, "/{uuid}", Some(json!({"uuid": "x"}))),
        (Method::PATCH, "/{uuid}", Some(json!({"isEditable": true}))),
        (
            Method::PATCH,
            "/{uuid}",
            Some(json!({"headers": {"a b": "c"}})),
        ),
        (Method::PATCH, "/{uuid}", Some(json!({"headers": {"a": 1}}))),
        (
            Method::PATCH,
            "/00000000-0000-0000-0000-000000000000",
            Some(json!({"url": url})),
        ),
        (
            Method::DELETE,
            "/00000000-0000-0000-0000-000000000000",
            None,
        ),
        (Method::GET, "/11111111-1111-4111-8111-111111111111", None),
        (
            Method::DELETE,
            "/11111111-1111-4111-8111-111111111111",
            None,
        ),
        (Method::GET, "/nonsense", None),
        (Method::POST, "", Some(json!({}))),
        (Method::POST, "", Some(json!([]))),
        (Method::POST, "", Some(json!({"url": 3}))),
        (Method::POST, "", Some(json!({"urll": url}))),
        (
            Method::POST,
            "",
            Some(json!({"url": url, "headers": many_headers})),
        ),
        (Method::GET, "", None),
        (Method::DELETE, "/{uuid}", None),
        (Method::GET, "/{uuid}", None),
    ];
    for (method, path, body) in steps {
        let mut shown = Vec::new();
        for (api, uuid) in [&one, &many].into_iter().zip(&mut uuids) {
            let path = format!("/webhooks{}", path.replace("{uuid}", uuid));
            let reply = match &body {
                Some(body) => api.json(method.clone(), &path, body).await,
                None => api.send(method.clone(), &path, &[], Vec::new()).await,
            };
            let reply = reply.unwrap();
            if reply.status == 201 {
                *uuid = reply.at("/uuid").as_str().unwrap().to_owned();
            }
            shown.push((reply.status, comparable(&reply.text)));
        }
        assert_eq!(shown[1], shown[0], "{method} {path} {body:?}");
    }
}
