//! A node as its own process, with a folder that is deleted when the test ends.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test fails where something is missing, and none uses all of this"
)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The master key of every node here.
pub const MASTER_KEY: &str = "a master key for tests";

/// Headers of a request.
pub type Headers = BTreeMap<String, String>;

/// A running node.
pub struct Node {
    process: Child,
    url: String,
    port: u16,
    folder: tempfile::TempDir,
}

impl Node {
    /// Starts a node on a free port and waits until it answers.
    pub fn start() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = spawn(port, folder.path());
        let node = Node {
            process,
            url: format!("http://127.0.0.1:{port}"),
            port,
            folder,
        };
        node.wait();
        node
    }

    /// Kills the node, as a crash would, and starts it again on the same folder.
    pub fn crash_and_restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = spawn(self.port, self.folder.path());
        self.wait();
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.send("GET", "/health", &Headers::new(), None).is_none() {
            assert!(Instant::now() < deadline, "the node does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The status and the body of the answer; `None` if no node answers.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &Headers,
        body: Option<&[u8]>,
    ) -> Option<(u16, Option<Value>)> {
        let mut request = ureq::request(method, &format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.set(name, value);
        }
        let answer = match body {
            Some(body) => {
                if !headers.contains_key("Content-Type") {
                    // The recording's client adds this header by itself.
                    request = request.set("Content-Type", "application/x-www-form-urlencoded");
                }
                request.send_bytes(body)
            }
            None => request.call(),
        };
        let answer = match answer {
            Ok(answer) | Err(ureq::Error::Status(_, answer)) => answer,
            Err(ureq::Error::Transport(_)) => return None,
        };
        let status = answer.status();
        let body = answer.into_string().unwrap();
        let body =
            (!body.is_empty()).then(|| serde_json::from_str(&body).unwrap_or(Value::String(body)));
        Some((status, body))
    }

    /// Sends a request with the master key, with a JSON body or none.
    pub fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut headers = owner();
        let body = body.map(|body| body.to_string());
        if body.is_some() {
            headers.insert("Content-Type".to_owned(), "application/json".to_owned());
        }
        let (status, body) = self
            .send(method, path, &headers, body.as_deref().map(str::as_bytes))
            .unwrap();
        (status, body.unwrap_or(Value::Null))
    }

    /// Sends a write and waits for the end of its task.
    pub fn write(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, summary) = self.ask(method, path, body);
        assert!(
            status == 202 || status == 200,
            "{method} {path}: {status} {summary}"
        );
        self.settled(&summary)
    }

    /// Waits for the end of a task that was just accepted.
    pub fn settled(&self, summary: &Value) -> Value {
        let uid = summary["taskUid"].as_u64().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let (_, task) = self.ask("GET", &format!("/tasks/{uid}"), None);
            if task["status"] != "enqueued" && task["status"] != "processing" {
                return task;
            }
            assert!(Instant::now() < deadline, "task {uid} does not end: {task}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The headers with the master key.
pub fn owner() -> Headers {
    bearer(MASTER_KEY)
}

/// The headers with a key or token.
pub fn bearer(key: &str) -> Headers {
    Headers::from([("Authorization".to_owned(), format!("Bearer {key}"))])
}

fn spawn(port: u16, folder: &std::path::Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_weft-node"))
        .args([
            "--http-addr",
            &format!("127.0.0.1:{port}"),
            "--master-key",
            MASTER_KEY,
            "--no-analytics",
        ])
        .arg("--db-path")
        .arg(folder)
        .spawn()
        .unwrap()
}
