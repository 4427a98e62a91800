//! `weft backup` and `weft restore`: a cluster in a folder, and a folder in a cluster.
//!
//! ```text
//! backup:   every index ─► notebooks (incomplete/) ─► rounds until a moment is found ─► files named for their SHA-256 ─► manifest.json
//! restore:  manifest.json ─► every SHA-256 ─► features ─► index, settings ─► documents ─► counts and digests ─► keys, webhooks
//! ```
//!
//! Which moment that is, and why the set is consistent, stands in `repair/backup`. Invariants: the manifest is written last and in one
//! step, and names only files that were read back, so an interrupted backup leaves the earlier one whole. Nothing is sent to a
//! cluster before every file that will be needed was verified. A document that is in a cluster already is overwritten only with
//! `--replace`.

mod copy;
mod documents;
mod folder;
mod manifest;
mod progress;
mod restore;
mod session;
mod take;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::job::{End, Job, JobKind};
use super::output::{Mood, OutputOptions, Rows, json};
use super::remote::{ConnectOptions, Remote, RemoteError};
use manifest::Damage;

/// The options of `weft backup`.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The folder. If it holds a backup already, only what has changed since is copied, and the new backup replaces the old one.
    dir: PathBuf,
    /// How long writers may wait while the backup looks for its moment, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    max_pause_ms: u64,
    /// How long to look for a moment, in seconds, once everything is copied.
    #[arg(long, value_name = "S", default_value_t = 900)]
    give_up_after_s: u64,
    #[command(flatten)]
    connect: ConnectOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// The options of `weft restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup's folder.
    dir: PathBuf,
    /// Restore only this index, and neither keys, features nor webhooks; may be given several times.
    #[arg(long = "index", value_name = "UID")]
    indexes: Vec<String>,
    /// Delete indexes of these names that hold something else.
    #[arg(long)]
    replace: bool,
    /// Only verify every file of the backup; no cluster is asked.
    #[arg(long)]
    verify_only: bool,
    #[command(flatten)]
    connect: ConnectOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// Why a backup was not made, or not restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackupError {
    /// The cluster gave no answer that can be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The backup in the folder can't be used.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The disk failed.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No threads could be set up.
    #[error("the runtime can't be set up: {0}")]
    Runtime(#[source] std::io::Error),
    /// The folder holds something else.
    #[error("{} isn't empty, and holds no backup", .0.display())]
    NotOurs(PathBuf),
    /// Another backup writes to the folder.
    #[error("another backup writes to {}", .0.display())]
    Taken(PathBuf),
    /// The nodes have work for long.
    #[error("the nodes are busy with what they have taken: try again later")]
    Busy,
    /// The same documents were written all the time.
    #[error(
        "no moment was found in {rounds} rounds and {seconds} s: the same documents are written all the time, and nodes need longer for them than --max-pause-ms allows. The earlier backup, if any, is whole"
    )]
    Restless {
        /// How many rounds there were.
        rounds: usize,
        /// For how long.
        seconds: u64,
    },
    /// An index was changed as a whole all the time.
    #[error(
        "`{0}` was changed as a whole all the time (settings, deletions by filter, edits, swaps): try again when that has ended. The earlier backup, if any, is whole"
    )]
    ChangesAllTheTime(String),
    /// The backup has no such index.
    #[error("the backup has no index `{0}`")]
    NoSuchIndex(String),
    /// The cluster holds something that a restore would touch.
    #[error("{0}")]
    NotEmpty(String),
    /// A task of the restore failed.
    #[error("the task {uid} on `{index}` {status}: {message}")]
    Task {
        /// The index.
        index: String,
        /// The task's uid.
        uid: u64,
        /// Its status.
        status: String,
        /// Its error.
        message: String,
    },
    /// What was restored isn't what the backup holds.
    #[error("`{index}` is not what the backup holds: {detail}")]
    Differs {
        /// The index.
        index: String,
        /// How it differs.
        detail: String,
    },
}

impl BackupError {
    fn disk(path: &Path, source: std::io::Error) -> Self {
        Self::Disk {
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the cluster has ended the backup, which may begin anew.
    fn is_broken(&self) -> bool {
        matches!(self, Self::Remote(error) if session::is_broken(error))
    }

    /// What the shell gets; the table stands in `cli`.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Damage(_) | Self::Differs { .. } => 1,
            Self::Disk { .. }
            | Self::Runtime(_)
            | Self::NotOurs(_)
            | Self::Taken(_)
            | Self::NoSuchIndex(_) => 2,
            Self::Remote(_)
            | Self::Busy
            | Self::Restless { .. }
            | Self::ChangesAllTheTime(_)
            | Self::NotEmpty(_)
            | Self::Task { .. } => 3,
        }
    }
}

/// How many files were written and kept.
#[derive(Debug, Default)]
struct Counts {
    copied: usize,
    kept: usize,
    bytes: u64,
}

/// Makes a backup, and says what was done.
pub(super) fn run_backup(args: &BackupArgs) -> Result<String, BackupError> {
    let remote = Remote::connect(&args.connect)?;
    let done = runtime()?.block_on(async {
        let job = Job::new(&remote, JobKind::Backup);
        job.begin();
        told(&job, take::take(&remote, args, &job).await).await
    })?;
    Ok(shown(&done, &args.output))
}

/// Restores a backup, and says what was done.
pub(super) fn run_restore(args: &RestoreArgs) -> Result<String, BackupError> {
    let remote = Remote::connect(&args.connect)?;
    let done = runtime()?.block_on(async {
        let job = Job::new(&remote, JobKind::Restore);
        if !args.verify_only {
            job.begin();
        }
        told(&job, restore::restore(&remote, args, &job).await).await
    })?;
    Ok(shown(&done, &args.output))
}

/// Tells the cluster how it ended.
async fn told(job: &Job, done: Result<Value, BackupError>) -> Result<Value, BackupError> {
    let end = match &done {
        Ok(_) => End::Done,
        Err(error) => End::Failed(error.to_string()),
    };
    job.end(end).await;
    done
}

fn runtime() -> Result<tokio::runtime::Runtime, BackupError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().map_err(BackupError::Runtime)
}

fn shown(done: &Value, output: &OutputOptions) -> String {
    if output.json {
        return json(done);
    }
    let mut rows = Rows::new(&["what", "value"]);
    for (name, value) in done.as_object().into_iter().flatten() {
        let texts = match value {
            Value::Array(list) => list.iter().map(text).collect(),
            value => vec![text(value)],
        };
        let mood = if name == "warnings" {
            Mood::Warning
        } else {
            Mood::Plain
        };
        for value in texts {
            rows.add([(name.clone(), Mood::Plain), (value, mood)]);
        }
    }
    rows.text()
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
