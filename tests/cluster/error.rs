//! What can go wrong while a cluster is started or broken.

use std::path::PathBuf;
use std::time::Duration;

/// Why the harness could not do as it was told; the text is for the person in front of the terminal.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A program is not there.
    #[error("{what} is missing: {} does not exist; {remedy}", path.display())]
    Missing {
        /// What it is.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// How to get it.
        remedy: &'static str,
    },
    /// A port is in use.
    #[error("port {port} on 127.0.0.1 is taken ({purpose}); choose another with PORT=…")]
    PortTaken {
        /// The port.
        port: u16,
        /// What it was wanted for.
        purpose: String,
    },
    /// The layout doesn't fit below port 65536.
    #[error(
        "PORT={port} leaves no room for the {needed} ports that {shards} shards of {replicas} need"
    )]
    PortRange {
        /// The base port.
        port: u16,
        /// How many ports follow from it.
        needed: u32,
        /// Number of shards.
        shards: u16,
        /// Nodes a shard.
        replicas: u16,
    },
    /// A request got no answer.
    #[error("{url} gives no answer")]
    NoAnswer {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A write that should have become a task, or a task that should have succeeded, did not.
    #[error("status {status}: {text}")]
    NoTask {
        /// The answer's status.
        status: u16,
        /// The answer, or the task.
        text: String,
    },
    /// No free ports anywhere.
    #[error("no block of {0} free ports found on 127.0.0.1")]
    NoPorts(u16),
    /// A program could not be started.
    #[error("{name} could not be started")]
    Spawn {
        /// Which one.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `weft config envoy` refused.
    #[error("no configuration for Envoy: {0}")]
    EnvoyConfig(String),
    /// A program ended by itself while it should run.
    #[error("{name} ended by itself ({status}); the end of {}:\n{tail}", log.display())]
    Ended {
        /// Which one.
        name: String,
        /// Its exit status.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The end of that.
        tail: String,
    },
    /// Something did not come true in time.
    #[error("{what} is still not so after {} s: {last}", after.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// What was seen last.
        last: String,
    },
    /// A signal could not be sent.
    #[error("{name} could not be signalled: {reason}")]
    Signal {
        /// To whom.
        name: String,
        /// Why.
        reason: String,
    },
    /// A file or folder.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The client that asks whether all is up could not be made.
    #[error("no HTTP client")]
    Client(#[from] reqwest::Error),
}

impl HarnessError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// The error and its causes, on one line.
    pub fn line(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}
