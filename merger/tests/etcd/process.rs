//! `weft serve --etcd …` as processes. In the place of Envoy stands a server that knows one node, which has no task, and that reaches
//! no other merger.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_merger::etcd::{ANSWER_WITHIN, Action, Transaction};

use crate::members::{Members, free_ports, on_runtime, prefix, signal, until};

/// Answers as Envoy's admin interface and as its egress listener.
async fn envoy() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

async fn answer(mut stream: TcpStream) -> Option<()> {
    const NODE: &str = r#"{"cluster_statuses": [{"name": "shard-0", "host_statuses": [{"hostname": "a", "address":
        {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}]}]}"#;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let (status, body) = match head.split(' ').nth(1)? {
            path if path.starts_with("/clusters") => ("200 OK", NODE),
            path if path.starts_with("/tasks") => ("200 OK", r#"{"results": []}"#),
            "/stats" => ("200 OK", r#"{"indexes": {}}"#),
            path if path.starts_with("/indexes") => ("200 OK", r#"{"results": []}"#),
            _ => ("404 Not Found", "{}"),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

struct Merger {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Merger {
    fn start(urls: &[String], envoy: SocketAddr, more: &[&str]) -> Self {
        let [port] = free_ports();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let envoy = envoy.to_string();
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_weft"))
            .arg("serve")
            .args(["--listen", &address.to_string()])
            .args(["--egress", &envoy, "--envoy-admin", &envoy])
            .args(["--data-dir".as_ref(), folder.path().as_os_str()])
            .args(["--etcd", &urls.join(",")])
            .args(["--log-format", "text"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            child,
            address,
            folder,
        }
    }

    /// The status and the body of an answer; `None` if there is none.
    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    async fn status(&self, path: &str) -> Option<u16> {
        Some(self.get(path).await?.0)
    }

    /// How often it has begun to lead; 0 if it doesn't lead now.
    async fn terms(&self) -> u64 {
        let metrics = self.get("/_weft/metrics").await;
        let metrics = metrics.map(|(_, body)| body).unwrap_or_default();
        let figure = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|figure| figure.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        figure("weft_merger_leads ") * figure("weft_merger_terms_total ")
    }

    async fn leads(&self) -> bool {
        // A leader answers what a follower passes on.
        self.terms().await > 0 && self.status("/_cluster/health").await == Some(200)
    }

    /// Waits for the end; the exit code and what was said.
    fn end(&mut self) -> (Option<i32>, String) {
        let limit = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < limit, "it runs on");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut said = String::new();
        let stderr = self.child.stderr.take();
        stderr.unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn a_second_merger_follows_and_takes_over() {
    let members = Members::one();
    on_runtime(async {
        let envoy = envoy().await;
        let mut first = Merger::start(&members.urls(), envoy, &[]);
        until("the first leads", async || first.leads().await).await;
        let mut second = Merger::start(&members.urls(), envoy, &[]);
        // It answers its own Envoy by what the leader has stored.
        until("the second follows", async || {
            second.status("/_weft/ready").await == Some(200)
                && second.status("/_weft/table").await == Some(200)
        })
        .await;
        let (status, listed) = second.get("/_cluster/mergers").await.unwrap();
        assert_eq!(status, 200);
        assert!(
            listed.contains("\"leader\"") && listed.contains("\"follower\""),
            "{listed}"
        );
        // In good order: at once.
        let begun = Instant::now();
        signal(first.child.id(), "TERM");
        assert_eq!(first.end().0, Some(0));
        until("the second leads", async || second.leads().await).await;
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        let (_, listed) = second.get("/_cluster/mergers").await.unwrap();
        assert_eq!(
            listed.matches("\"leader\"").count(),
            1,
            "one leads: {listed}"
        );
        // And without notice: after the lease.
        let third = Merger::start(&members.urls(), envoy, &[]);
        until("the third follows", async || {
            third.status("/_weft/ready").await == Some(200)
        })
        .await;
        signal(second.child.id(), "KILL");
        let _ = second.end();
        let begun = Instant::now();
        until("the third leads", async || third.leads().await).await;
        assert!(
            begun.elapsed() < Duration::from_secs(7),
            "{:?}",
            begun.elapsed()
        );
    });
}

pub(crate) fn a_merger_whose_lease_is_over_calls_no_node_ready_and_begins_anew() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let merger = Merger::start(&members.urls(), envoy().await, &[]);
        until("it leads", async || merger.leads().await).await;
        // An operator deletes its key.
        let delete = Transaction {
            then: vec![Action::Delete(prefix().leader())],
            ..Transaction::default()
        };
        etcd.transact(delete, ANSWER_WITHIN).await.unwrap();
        until("it leads again", async || merger.terms().await >= 2).await;
        // It slept beyond its lease.
        signal(merger.child.id(), "STOP");
        tokio::time::sleep(Duration::from_secs(4)).await;
        signal(merger.child.id(), "CONT");
        until("it leads again", async || merger.terms().await >= 3).await;
        let mut said = None;
        let limit = Instant::now() + Duration::from_secs(30);
        while !matches!(said, Some((200, _))) {
            assert!(Instant::now() < limit, "the node is not ready: {said:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            said = merger.get("/_weft/ready").await;
        }
        // etcd hangs.
        let begun = Instant::now();
        members.0[0].signal("STOP");
        until("no node is ready", async || {
            merger.status("/_weft/ready").await == Some(503)
        })
        .await;
        assert!(
            begun.elapsed() < Duration::from_secs(6),
            "{:?}",
            begun.elapsed()
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(merger.status("/_weft/ready").await, Some(503));
        members.0[0].signal("CONT");
        until("it leads again", async || merger.terms().await >= 4).await;
    });
}

pub(crate) fn what_is_wrong_is_said_at_the_start_in_one_line() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let envoy = envoy().await;
        let merger = Merger::start(&members.urls(), envoy, &["--cluster-id", "shop"]);
        until("it leads", async || merger.leads().await).await;
        assert_eq!(
            std::fs::read_to_string(merger.folder.path().join("cluster-id")).unwrap(),
            "shop\n"
        );
        let refused = |more: &[&str], reason: &str| {
            let quiet = [&["--log=error"], more].concat();
            let mut merger = Merger::start(&members.urls(), envoy, &quiet);
            let (code, said) = merger.end();
            assert_eq!(code, Some(2), "{said}");
            let lines: Vec<&str> = said.lines().collect();
            assert!(lines.len() == 1 && lines[0].contains(reason), "{said}");
        };
        refused(&["--cluster-id", "blog"], "belongs to the cluster `shop`");
        refused(
            &["--direct-writes", "true"],
            "is for a merger that is alone",
        );
        refused(&["--etcd-user", "weft"], "go together");
        refused(&["--etcd-ca", "/nowhere"], "https://");
        let format = Action::put(prefix().format(), b"99".to_vec());
        let newer = Transaction {
            then: vec![format],
            ..Transaction::default()
        };
        etcd.transact(newer, ANSWER_WITHIN).await.unwrap();
        refused(&[], "it needs a newer merger");
        let foreign = Action::put("/other/x".into(), Vec::new());
        let foreign = Transaction {
            then: vec![foreign],
            ..Transaction::default()
        };
        etcd.transact(foreign, ANSWER_WITHIN).await.unwrap();
        refused(&["--etcd-prefix", "/other"], "no merger's");
    });
}
