//! Starts members of an etcd.

use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_merger::etcd::{Etcd, EtcdClient, EtcdOptions, Prefix};
use weft_merger::leadership::{Candidate, Election, Leadership};
use weft_merger::store::EtcdStore;

/// The program, if there is one.
pub(crate) fn etcd() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ETCD_BIN").filter(|path| !path.is_empty()) {
        return Some(named.into());
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.weft/etcd/usr/bin");
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&folders).chain([fetched]);
    let mut found = folders.map(|folder| folder.join("etcd"));
    found.find(|program| program.is_file())
}

/// Ports that nobody uses at the moment.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    std::array::from_fn(|n| listeners[n].local_addr().unwrap().port())
}

/// The files for TLS.
#[derive(Clone, Copy)]
pub(crate) struct Tls<'a> {
    pub(crate) ca: &'a Path,
    pub(crate) certificate: &'a Path,
    pub(crate) key: &'a Path,
}

/// A running member.
pub(crate) struct Member {
    child: Child,
    pub(crate) url: String,
    pub(crate) port: u16,
    folder: TempDir,
}

/// A cluster; its members end with it.
pub(crate) struct Members(pub(crate) Vec<Member>);

impl Members {
    /// One member without TLS.
    pub(crate) fn one() -> Self {
        Self::start::<1, 2>(None)
    }

    /// Three members without TLS.
    pub(crate) fn three() -> Self {
        Self::start::<3, 6>(None)
    }

    /// One member with TLS, which wants certificates of its clients.
    pub(crate) fn with_tls(tls: Tls<'_>) -> Self {
        Self::start::<1, 2>(Some(tls))
    }

    fn start<const N: usize, const PORTS: usize>(tls: Option<Tls<'_>>) -> Self {
        let ports = free_ports::<PORTS>();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let peer = |n: usize| format!("http://127.0.0.1:{}", ports[N + n]);
        let all: Vec<String> = (0..N).map(|n| format!("m{n}={}", peer(n))).collect();
        let member = |n: usize| {
            let url = format!("{scheme}://127.0.0.1:{}", ports[n]);
            let folder = tempfile::tempdir().unwrap();
            let mut command = Command::new(etcd().unwrap());
            let own = peer(n);
            command
                .args(["--name", &format!("m{n}")])
                .args([
                    "--data-dir".as_ref(),
                    folder.path().join("data").as_os_str(),
                ])
                .args(["--listen-client-urls", &url])
                .args(["--advertise-client-urls", &url])
                .args(["--listen-peer-urls", &own])
                .args(["--initial-advertise-peer-urls", &own])
                .args(["--initial-cluster", &all.join(",")])
                .args(["--logger", "zap"])
                .args([
                    "--log-outputs".as_ref(),
                    folder.path().join("log").as_os_str(),
                ])
                // Tests don't wait for disks.
                .arg("--unsafe-no-fsync");
            if let Some(tls) = tls {
                command
                    .args(["--cert-file".as_ref(), tls.certificate.as_os_str()])
                    .args(["--key-file".as_ref(), tls.key.as_os_str()])
                    .args(["--trusted-ca-file".as_ref(), tls.ca.as_os_str()])
                    .arg("--client-cert-auth");
            }
            let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
            let child = quiet.stderr(Stdio::null()).spawn().unwrap();
            Member {
                child,
                url,
                port: ports[n],
                folder,
            }
        };
        let mut members = Self((0..N).map(member).collect());
        members.wait();
        members
    }

    /// Waits until all members listen.
    fn wait(&mut self) {
        let until = Instant::now() + Duration::from_secs(30);
        for member in &mut self.0 {
            while std::net::TcpStream::connect(("127.0.0.1", member.port)).is_err() {
                let ended = member.child.try_wait().unwrap();
                if ended.is_some() || Instant::now() > until {
                    let log = std::fs::read_to_string(member.folder.path().join("log"));
                    panic!("etcd doesn't start: {ended:?}\n{}", log.unwrap_or_default());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// The members' URLs.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.0.iter().map(|member| member.url.clone()).collect()
    }

    /// A client that has heard from etcd.
    pub(crate) async fn client(&self) -> Arc<dyn Etcd> {
        client(&self.urls()).await
    }
}

impl Member {
    /// Sends a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // SIGKILL ends what is stopped, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that the test has started.
pub(crate) fn signal(process: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(sent.unwrap().success());
    // Under load its threads may run on for a while.
    let limit = Instant::now() + Duration::from_secs(10);
    while name == "STOP" && !is_stopped(process) {
        assert!(Instant::now() < limit, "it doesn't stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_stopped(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state stands after the name, which is in brackets.
        let state = stat.rsplit(')').next().unwrap_or_default();
        state.trim_start().starts_with('T')
    })
}

/// A client of these endpoints that has heard from etcd.
pub(crate) async fn client(urls: &[String]) -> Arc<dyn Etcd> {
    let client = EtcdClient::new(EtcdOptions::at(urls).unwrap());
    until("etcd answers", async || client.check("/").await.is_ok()).await;
    Arc::new(client)
}

/// Waits for a condition, half a minute at most.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(Instant::now() < limit, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a test on a runtime of its own.
pub(crate) fn on_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(test);
}

pub(crate) fn prefix() -> Prefix {
    "/weft/".parse().unwrap()
}

pub(crate) fn election(etcd: &Arc<dyn Etcd>, name: &str, lease: Duration) -> Election {
    let me = Candidate {
        id: name.to_owned(),
        address: ([127, 0, 0, 1], 7703).into(),
    };
    Election::new(Arc::clone(etcd), &prefix(), me, lease)
}

/// A leader with its store, whose lease is long.
pub(crate) async fn leader(etcd: &Arc<dyn Etcd>) -> (Leadership, EtcdStore) {
    let leadership = election(etcd, "one", Duration::from_secs(60))
        .win(|| true)
        .await;
    let term = leadership.term().clone();
    let store = EtcdStore::open(Arc::clone(etcd), prefix(), term).await;
    (leadership, store.unwrap())
}
