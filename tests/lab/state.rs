//! The file that `up` leaves for `down` and `status`: `.weft/up-<port>/state.json`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use weft_cluster::Layout;

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// A cluster that runs in the background.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) layout: Layout,
    pub(crate) folder: PathBuf,
    pub(crate) filter: bool,
    pub(crate) body_routing: bool,
    pub(crate) processes: Vec<Background>,
}

/// One of its processes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Background {
    pub(crate) name: String,
    pub(crate) id: u32,
    /// When the process started, according to the kernel: another process with the same id isn't part of the cluster.
    pub(crate) began: Option<u64>,
}

impl Background {
    pub(crate) fn of(name: &str, id: u32) -> Self {
        Self {
            name: name.to_owned(),
            id,
            began: began(id),
        }
    }

    /// True if the process is running and is the one that was started.
    pub(crate) fn runs(&self) -> bool {
        match self.began {
            Some(began_then) => began(self.id) == Some(began_then),
            // Without /proc, any process with this id counts.
            None => self
                .pid()
                .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()),
        }
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.id).ok().and_then(Pid::from_raw)
    }

    fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.runs(), self.pid()) {
            // An error means that the process ended between the check and the signal.
            let _ended = kill_process_group(pid, signal);
        }
    }
}

impl State {
    /// The folder for the cluster at this port.
    pub(crate) fn home(port: u16) -> PathBuf {
        root().join(format!("up-{port}"))
    }

    /// Every cluster for which `up` has left a state file.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let Ok(entries) = fs::read_dir(root()) else {
            return Ok(Vec::new());
        };
        let mut states = Vec::new();
        for entry in entries {
            let path = entry?.path().join("state.json");
            if path.is_file() {
                states.push(Self::read(&path)?);
            }
        }
        states.sort_by_key(|state| state.layout.edge());
        Ok(states)
    }

    /// The state of the cluster at this port, if there is one.
    pub(crate) fn at(port: u16) -> Result<Option<Self>> {
        let path = Self::home(port).join("state.json");
        if path.is_file() {
            Self::read(&path).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Writes the state file, where `down` will look for it.
    pub(crate) fn write(&self) -> Result<()> {
        let home = Self::home(self.layout.edge());
        fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        let path = home.join("state.json");
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| path.display().to_string())
    }

    /// True if at least one of its processes is running.
    pub(crate) fn runs(&self) -> bool {
        self.processes.iter().any(Background::runs)
    }

    /// Ends all processes, Envoy first, so that no client meets a half-stopped cluster; then removes the state file.
    pub(crate) fn end(&self) -> Result<()> {
        // Mergers still need etcd to step down in good order.
        let (etcd, others): (Vec<_>, Vec<_>) = self
            .processes
            .iter()
            .rev()
            .partition(|process| process.name.starts_with("etcd"));
        end(&others);
        end(&etcd);
        let path = Self::home(self.layout.edge()).join("state.json");
        fs::remove_file(&path).with_context(|| path.display().to_string())
    }

    fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} can't be read; remove it", path.display()))
    }
}

/// Asks these processes to end, in this order, and kills those that don't.
fn end(processes: &[&Background]) {
    for process in processes {
        process.signal(Signal::CONT);
        process.signal(Signal::TERM);
    }
    let asked = Instant::now();
    while processes.iter().any(|process| process.runs()) && asked.elapsed() < GRACE {
        std::thread::sleep(Duration::from_millis(20));
    }
    for process in processes {
        process.signal(Signal::KILL);
    }
}

/// `.weft` in the checkout.
fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).join(".weft")
}

/// When a process started, in clock ticks since the machine's start; `None` for a zombie, or without /proc.
fn began(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the name in parentheses, which may contain anything; all later fields are numbers.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    // Field 22 of the file: the 19th after the state.
    fields.nth(18)?.parse().ok()
}
