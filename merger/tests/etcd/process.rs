//! `weft serve --etcd …` as processes. No Envoy runs, so that nothing reaches nodes, and nothing is passed on.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_merger::etcd::{ANSWER_WITHIN, Action, Transaction};

use crate::members::{Members, free_ports, on_runtime, prefix, signal, until};

struct Merger {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Merger {
    fn start(urls: &[String], more: &[&str]) -> Self {
        let [port, nobody] = free_ports();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let nobody = format!("127.0.0.1:{nobody}");
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_weft"))
            .arg("serve")
            .args(["--listen", &address.to_string()])
            .args(["--egress", &nobody, "--envoy-admin", &nobody])
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

    /// The status of an answer; `None` if there is none.
    async fn status(&self, path: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    async fn leads(&self) -> bool {
        self.status("/_weft/table").await == Some(200)
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

pub(crate) fn a_second_merger_stands_by_and_takes_over() {
    let members = Members::one();
    on_runtime(async {
        let mut first = Merger::start(&members.urls(), &[]);
        until("the first leads", async || first.leads().await).await;
        let mut second = Merger::start(&members.urls(), &[]);
        until("the second stands by", async || {
            second.status("/health").await == Some(200)
        })
        .await;
        assert_eq!(second.status("/_weft/ready").await, Some(503));
        assert_eq!(second.status("/_weft/table").await, Some(503));
        // There is no Envoy to pass it on.
        assert_eq!(second.status("/indexes").await, Some(503));
        // In good order: at once.
        let begun = Instant::now();
        signal(first.child.id(), "TERM");
        assert_eq!(first.end().0, Some(0));
        until("the second leads", async || second.leads().await).await;
        assert!(begun.elapsed() < Duration::from_secs(3));
        // And without notice: after the lease.
        let third = Merger::start(&members.urls(), &[]);
        until("the third stands by", async || {
            third.status("/health").await == Some(200)
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

pub(crate) fn a_merger_that_leads_no_more_ends_with_a_clear_line() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let ends = async |merger: &mut Merger| {
            let (code, said) = merger.end();
            assert_eq!(code, Some(2), "{said}");
            let last = said.lines().next_back().unwrap_or_default().to_owned();
            assert!(last.contains("this merger leads no more"), "{said}");
        };
        let mut merger = Merger::start(&members.urls(), &[]);
        until("it leads", async || merger.leads().await).await;
        let delete = Transaction {
            then: vec![Action::Delete(prefix().leader())],
            ..Transaction::default()
        };
        etcd.transact(delete, ANSWER_WITHIN).await.unwrap();
        ends(&mut merger).await;
        // It slept beyond its lease.
        let mut merger = Merger::start(&members.urls(), &[]);
        until("it leads", async || merger.leads().await).await;
        signal(merger.child.id(), "STOP");
        tokio::time::sleep(Duration::from_secs(4)).await;
        signal(merger.child.id(), "CONT");
        ends(&mut merger).await;
        // etcd hangs.
        let mut merger = Merger::start(&members.urls(), &[]);
        until("it leads", async || merger.leads().await).await;
        let begun = Instant::now();
        members.0[0].signal("STOP");
        ends(&mut merger).await;
        assert!(begun.elapsed() < Duration::from_secs(4));
        members.0[0].signal("CONT");
    });
}

pub(crate) fn what_is_wrong_is_said_at_the_start_in_one_line() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let merger = Merger::start(&members.urls(), &["--cluster-id", "shop"]);
        until("it leads", async || merger.leads().await).await;
        assert_eq!(
            std::fs::read_to_string(merger.folder.path().join("cluster-id")).unwrap(),
            "shop\n"
        );
        let refused = |more: &[&str], reason: &str| {
            let quiet = [&["--log=error"], more].concat();
            let mut merger = Merger::start(&members.urls(), &quiet);
            let (code, said) = merger.end();
            assert_eq!(code, Some(2), "{said}");
            let lines: Vec<&str> = said.lines().collect();
            assert!(lines.len() == 1 && lines[0].contains(reason), "{said}");
        };
        refused(&["--cluster-id", "blog"], "belongs to the cluster `shop`");
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
