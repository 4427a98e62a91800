//! A node behind an Envoy of its own, whose filter is a guard: `weft config guard`.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_cluster::{
    Api, Binaries, Deadline, Lifetime, PortBlock, Process, Program, Reply, Single, StandIn, until,
};

use crate::support::ids;

const PATH: &str = "/indexes/films/documents";
const JSON: (&str, &str) = ("content-type", "application/json");

/// An Envoy in front of one node.
struct Guard {
    port: u16,
    envoy: Process,
    _folder: TempDir,
    _ports: PortBlock,
}

impl Guard {
    /// Starts it in front of the node at `host:port`, and waits until the node answers through it.
    async fn before(node: &str, more: &[&str]) -> Self {
        let binaries = Binaries::find().unwrap();
        let ports = PortBlock::claim(2).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let local = |port: u16| format!("127.0.0.1:{port}");
        let printed = Command::new(&binaries.weft)
            .args(["config", "guard", "--node", node])
            .args(["--listen", &local(ports.base())])
            .args(["--admin", &local(ports.base() + 1)])
            .arg("--wasm")
            .arg(&binaries.filter)
            .args(more)
            .output()
            .unwrap();
        assert!(printed.status.success(), "{printed:?}");
        let configuration = folder.path().join("guard.yaml");
        fs::write(&configuration, printed.stdout).unwrap();
        let program = Program {
            name: "guard".to_owned(),
            executable: binaries.envoy,
            arguments: vec![
                "--config-path".into(),
                configuration.into(),
                "--log-level".into(),
                "warning".into(),
                "--concurrency".into(),
                "2".into(),
                "--disable-hot-restart".into(),
            ],
            environment: Vec::new(),
            folder: folder.path().join("envoy"),
            log: folder.path().join("envoy.log"),
        };
        let guard = Self {
            port: ports.base(),
            envoy: Process::start(program, Lifetime::WithUs).unwrap(),
            _folder: folder,
            _ports: ports,
        };
        guard.wait_ready().await;
        guard
    }

    async fn wait_ready(&self) {
        let deadline = Deadline::after(Duration::from_secs(60));
        until("an answer through the guard", deadline, || async {
            self.envoy.check_alive().map_err(|error| error.line())?;
            match self.api().get("/health").await {
                Ok(reply) if reply.status == 200 => Ok(()),
                Ok(reply) => Err(reply.text),
                Err(error) => Err(error.line()),
            }
        })
        .await
        .unwrap();
    }

    /// A client with connections of its own, so that several meet both of Envoy's workers.
    fn api(&self) -> Api {
        Api::new(format!("http://127.0.0.1:{}", self.port), None)
    }

    /// Writes a document in a term.
    async fn write(&self, id: u64, term: &str) -> Reply {
        let headers = [JSON, ("x-weft-term", term)];
        let body = json!([{"id": id}]).to_string();
        let sent = self.api().send(Method::POST, PATH, &headers, body).await;
        sent.unwrap()
    }

    /// The value of a figure in Envoy's admin interface.
    async fn figure(&self, name: &str) -> u64 {
        let admin = Api::new(format!("http://127.0.0.1:{}", self.port + 1), None);
        let stats = admin.get("/stats").await.unwrap().text;
        let value = |line: &str| {
            line.split_once(": ")
                .filter(|(known, _)| known.ends_with(name))?
                .1
                .parse()
                .ok()
        };
        stats.lines().find_map(value).unwrap_or_default()
    }

    async fn wait_for(&self, name: &str, value: u64) {
        let deadline = Deadline::after(Duration::from_secs(20));
        until(name, deadline, || async {
            match self.figure(name).await {
                found if found == value => Ok(()),
                found => Err(format!("{found}, not {value}")),
            }
        })
        .await
        .unwrap();
    }
}

fn assert_refused(reply: &Reply, code: &str) {
    assert_eq!(reply.status, 412, "{}", reply.text);
    assert_eq!(reply.at("/code"), code, "{}", reply.text);
    for name in ["message", "type", "link"] {
        assert!(reply.body[name].is_string(), "{}", reply.text);
    }
    assert_eq!(reply.headers["content-type"], "application/json");
    assert!(reply.headers.contains_key("x-weft-guard"));
    assert!(!reply.headers.contains_key("x-weft-envoy"));
}

#[tokio::test]
async fn no_write_of_an_older_term_reaches_the_node() {
    let node = Single::start(None).await.unwrap();
    let guard = Guard::before(node.url().trim_start_matches("http://"), &[]).await;
    let api = guard.api();
    for (id, term) in [(1, "5"), (2, "6")] {
        let written = guard.write(id, term).await;
        api.succeed(&written).await.unwrap();
    }
    let late = (0..40).map(|_| guard.write(3, "5"));
    for refused in futures_util::future::join_all(late).await {
        assert_refused(&refused, "stale_term");
        assert_eq!(refused.headers["x-weft-guard"], "stale");
    }
    // A read of any term, and what people write by hand, still passes.
    let read = api.send(Method::GET, PATH, &[("x-weft-term", "5")], "");
    assert_eq!(read.await.unwrap().status, 200);
    let by_hand = api.post(PATH, &json!([{"id": 4}])).await.unwrap();
    api.succeed(&by_hand).await.unwrap();
    let direct = Api::new(node.url(), None);
    assert_eq!(ids(&direct, "films").await, [1, 2, 4]);
    assert_eq!(direct.get("/tasks").await.unwrap().at("/total"), 3);
    guard.wait_for("weft_filter_guard_refused", 40).await;
    guard.wait_for("weft_filter_guard_term", 6).await;
    // What it knows goes with the process, as the README says.
    guard.envoy.restart().unwrap();
    guard.wait_ready().await;
    assert_eq!(guard.write(5, "5").await.status, 202);
    // The cluster can tell this Envoy's own answers from the node's.
    node.process().kill().unwrap();
    let gone = guard.write(6, "6").await;
    assert_eq!(gone.status, 503, "{}", gone.text);
    assert!(gone.headers.contains_key("x-weft-envoy"), "{gone:?}");
}

/// A node that remembers what reached it, behind a guard.
async fn recorded(more: &[&str]) -> (Arc<StandIn>, Guard, PortBlock) {
    let ports = PortBlock::claim(1).unwrap();
    let node = Arc::new(StandIn::default());
    node.serve(ports.base()).await.unwrap();
    let guard = Guard::before(&format!("127.0.0.1:{}", ports.base()), more).await;
    node.take_seen();
    (node, guard, ports)
}

#[tokio::test]
async fn the_node_never_sees_the_header_and_nothing_of_what_is_refused() {
    let (node, guard, _ports) = recorded(&[]).await;
    assert_eq!(guard.write(1, "7").await.status, 202);
    let read = guard.api();
    let read = read.send(
        Method::GET,
        PATH,
        &[("x-weft-term", "7"), ("x-other", "1")],
        "",
    );
    assert_eq!(read.await.unwrap().status, 200);
    let seen = node.take_seen();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        let names = request.headers.keys().map(|name| name.as_str());
        let ours: Vec<&str> = names.filter(|name| name.starts_with("x-weft")).collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
    assert!(
        seen.iter()
            .any(|request| request.headers.contains_key("x-other"))
    );
    assert_refused(&guard.write(2, "6").await, "stale_term");
    for malformed in ["seven", "", "7,8", "-1"] {
        assert_refused(&guard.write(2, malformed).await, "invalid_term");
    }
    let twice = [JSON, ("x-weft-term", "7"), ("x-weft-term", "8")];
    let twice = guard.api().send(Method::POST, PATH, &twice, "[]").await;
    assert_refused(&twice.unwrap(), "invalid_term");
    assert!(node.take_seen().is_empty());
}

#[tokio::test]
async fn where_terms_are_required_nobody_writes_without_one() {
    let (node, guard, _ports) = recorded(&["--require-term"]).await;
    let api = guard.api();
    for (method, path) in [
        (Method::POST, PATH),
        (Method::DELETE, "/indexes/films"),
        (Method::PATCH, "/indexes/films/settings"),
        (Method::POST, "/nowhere"),
    ] {
        let refused = api.send(method, path, &[JSON], "[]").await.unwrap();
        assert_refused(&refused, "missing_term");
    }
    assert!(node.take_seen().is_empty());
    let search = api.post("/indexes/films/search", &json!({"q": "x"})).await;
    assert_eq!(search.unwrap().status, 200);
    assert_eq!(api.get("/stats").await.unwrap().status, 200);
    assert_eq!(guard.write(1, "1").await.status, 202);
    assert_eq!(node.take_seen().len(), 3);
}

/// A merger is stopped when half of its write has gone, and goes on when its successor has written.
#[tokio::test]
async fn a_write_that_stops_halfway_is_not_ended_after_a_newer_leader_was_heard() {
    let body = br#"[{"id": 1, "title": "the late one"}]"#;
    let (first, rest) = body.split_at(9);
    let sized = format!("content-length: {}\r\n\r\n", body.len());
    let chunk = |part: &[u8]| {
        let text = String::from_utf8(part.to_vec()).unwrap();
        format!("{:x}\r\n{text}\r\n", part.len())
    };
    let chunked = "transfer-encoding: chunked\r\n\r\n".to_owned();
    let ways = [
        (sized + std::str::from_utf8(first).unwrap(), rest.to_vec()),
        (
            chunked + &chunk(first),
            (chunk(rest) + "0\r\n\r\n").into_bytes(),
        ),
    ];
    let (node, guard, _ports) = recorded(&[]).await;
    for (round, (begin, end)) in (0..).zip(ways) {
        let (old, new) = (10 + round, 11 + round);
        let stream = TcpStream::connect(("127.0.0.1", guard.port)).await;
        let mut stream = stream.unwrap();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n\
             x-weft-term: {old}\r\nconnection: close\r\n{begin}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        guard.wait_for("cluster.node.upstream_rq_active", 1).await;
        assert_eq!(guard.write(2, &new.to_string()).await.status, 202);
        stream.write_all(&end).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
        assert!(answer.contains("x-weft-guard: stale"), "{answer}");
        guard.wait_for("cluster.node.upstream_rq_active", 0).await;
        let whole: Vec<u64> = node
            .take_seen()
            .iter()
            .map(|seen| seen.body_bytes)
            .collect();
        let successors = json!([{"id": 2}]).to_string().len() as u64;
        assert!(whole.contains(&successors));
        assert!(!whole.contains(&(body.len() as u64)), "{whole:?}");
    }
}
