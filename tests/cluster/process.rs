//! One program that can be started, broken and started again.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
#[cfg(target_os = "linux")]
use rustix::process::{Resource, Rlimit, prlimit};

use crate::{HarnessError, spawner};

/// How many lines of a log an error shows.
const TAIL_LINES: usize = 25;

/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Program {
    /// The name in messages, and of the log file.
    pub name: String,
    /// The file to run.
    pub executable: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Environment variables in addition to those of this process.
    pub environment: Vec<(String, String)>,
    /// The program's working folder, which also holds its data; created if missing.
    pub folder: PathBuf,
    /// The log file, to which output is appended.
    pub log: PathBuf,
}

/// Whether a process ends with its handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// The process ends with its handle, and with this process.
    WithUs,
    /// The process continues in the background.
    Detached,
}

/// A program with at most one running process.
#[derive(Debug)]
pub struct Process {
    program: Program,
    lifetime: Lifetime,
    child: Mutex<Option<Child>>,
    /// Set when the program is ended on purpose, so that [`Process::revive`] leaves it alone.
    ended_on_purpose: AtomicBool,
}

impl Process {
    /// Starts the program.
    pub fn start(program: Program, lifetime: Lifetime) -> Result<Self, HarnessError> {
        let process = Self {
            program,
            lifetime,
            child: Mutex::new(None),
            ended_on_purpose: AtomicBool::new(false),
        };
        process.launch()?;
        Ok(process)
    }

    /// The program's name.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// The log file, with the output of this and earlier runs.
    pub fn log(&self) -> &Path {
        &self.program.log
    }

    /// The id of the running process.
    pub fn id(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Resident memory in bytes, if the program is running (Linux).
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    }

    /// Ends the program at once, as a crash would (SIGKILL), and waits until it is gone.
    pub fn kill(&self) -> Result<(), HarnessError> {
        let mut child = self.child();
        self.ended_on_purpose.store(true, Ordering::SeqCst);
        // One that has ended by itself can get no signal.
        if !has_ended(child.as_mut()) {
            self.signal_to(child.as_ref(), Signal::KILL)?;
        }
        reap(&mut child);
        Ok(())
    }

    /// Asks the program to end (SIGTERM), and kills it if it hasn't ended after ten seconds.
    pub fn terminate(&self) -> Result<(), HarnessError> {
        self.ended_on_purpose.store(true, Ordering::SeqCst);
        self.signal(Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if self.exited()?.is_some() {
                reap(&mut self.child());
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill()
    }

    /// Makes the program hang: it keeps its connections and answers nothing (SIGSTOP).
    pub fn pause(&self) -> Result<(), HarnessError> {
        self.signal(Signal::STOP)
    }

    /// Lets a hanging program continue (SIGCONT).
    pub fn resume(&self) -> Result<(), HarnessError> {
        self.signal(Signal::CONT)
    }

    /// Makes every write of the program beyond this many bytes of a file fail with `EFBIG`, which is the closest equivalent
    /// of a full disk without root rights; `None` removes the limit. A restarted process has no limit. Linux only.
    pub fn limit_file_size(&self, bytes: Option<u64>) -> Result<(), HarnessError> {
        let fail = |reason: String| HarnessError::Signal {
            name: self.program.name.clone(),
            reason,
        };
        let pid = self
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| fail("it is not running".to_owned()))?;
        limit_file_size(pid, bytes).map_err(fail)
    }

    /// Starts the program again with the data on its disk; kills it first if it is running.
    pub fn restart(&self) -> Result<(), HarnessError> {
        if self.id().is_some() {
            self.kill()?;
        }
        self.launch()
    }

    /// Starts the program again if it has ended by itself, as a supervisor would; `true` if it had.
    pub fn revive(&self) -> Result<bool, HarnessError> {
        let mut child = self.child();
        if self.ended_on_purpose.load(Ordering::SeqCst) || !has_ended(child.as_mut()) {
            return Ok(false);
        }
        *child = Some(self.spawn()?);
        Ok(true)
    }

    /// Empties the program's folder, as if the disk had been replaced; kills the program first if it is running.
    pub fn wipe(&self) -> Result<(), HarnessError> {
        if self.id().is_some() {
            self.kill()?;
        }
        match fs::remove_dir_all(&self.program.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(HarnessError::File {
                path: self.program.folder.clone(),
                source: error,
            }),
            _ => Ok(()),
        }
    }

    /// Fails with the end of the log if the program ended by itself.
    pub fn check_alive(&self) -> Result<(), HarnessError> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => Err(HarnessError::Ended {
                name: self.program.name.clone(),
                status: status.to_string(),
                log: self.program.log.clone(),
                tail: self.tail(),
            }),
        }
    }

    /// The last lines of the log.
    pub fn tail(&self) -> String {
        let text = fs::read(&self.program.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines
            .iter()
            .skip(lines.len().saturating_sub(TAIL_LINES))
            .map(|line| format!("    {line}\n"))
            .collect()
    }

    fn launch(&self) -> Result<(), HarnessError> {
        let mut child = self.child();
        *child = Some(self.spawn()?);
        self.ended_on_purpose.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn spawn(&self) -> Result<Child, HarnessError> {
        let Program {
            name,
            executable,
            arguments,
            environment,
            folder,
            log,
        } = &self.program;
        fs::create_dir_all(folder).map_err(HarnessError::file(folder))?;
        if let Some(parent) = log.parent() {
            fs::create_dir_all(parent).map_err(HarnessError::file(parent))?;
        }
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(HarnessError::file(log))?;
        let errors = output.try_clone().map_err(HarnessError::file(log))?;
        let mut command = Command::new(executable);
        command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // A process group of its own: Ctrl-C in the terminal then reaches only this process, and the program's children
            // can be ended with it.
            .process_group(0);
        let started = match self.lifetime {
            Lifetime::WithUs => spawner::spawn(command),
            Lifetime::Detached => command.spawn(),
        };
        started.map_err(|source| HarnessError::Spawn {
            name: name.clone(),
            source,
        })
    }

    fn signal(&self, signal: Signal) -> Result<(), HarnessError> {
        self.signal_to(self.child().as_ref(), signal)
    }

    fn signal_to(&self, child: Option<&Child>, signal: Signal) -> Result<(), HarnessError> {
        let fail = |reason: String| HarnessError::Signal {
            name: self.program.name.clone(),
            reason,
        };
        let id = child
            .map(Child::id)
            .ok_or_else(|| fail("it is not running".to_owned()))?;
        let group = i32::try_from(id)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| fail(format!("process {id}")))?;
        kill_process_group(group, signal).map_err(|error| fail(error.to_string()))
    }

    /// The exit status, if the program has ended.
    fn exited(&self) -> Result<Option<ExitStatus>, HarnessError> {
        match self.child().as_mut() {
            Some(child) => child.try_wait().map_err(|source| HarnessError::Spawn {
                name: self.program.name.clone(),
                source,
            }),
            None => Ok(None),
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::WithUs && self.id().is_some() {
            // An error means that the program is already gone, which is the goal.
            drop(self.kill());
            reap(&mut self.child());
        }
    }
}

fn has_ended(child: Option<&mut Child>) -> bool {
    child.is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
}

fn reap(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // Nothing can be done about a child that can't be waited for.
        drop(child.wait());
    }
}

#[cfg(target_os = "linux")]
fn limit_file_size(pid: Pid, bytes: Option<u64>) -> Result<(), String> {
    // Only the soft limit: a hard limit can't be raised again.
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(Some(pid), Resource::Fsize, limit)
        .map(drop)
        .map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
fn limit_file_size(_: Pid, _: Option<u64>) -> Result<(), String> {
    Err("only Linux can limit the files of a running process".to_owned())
}
