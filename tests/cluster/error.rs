//! What can go wrong while a cluster is started or broken.

use std::path::PathBuf;
use std::time::Duration;

/// Why the harness failed. The text is meant for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A program doesn't exist.
    #[error("{what} is missing: {} does not exist; {remedy}", path.display())]
    Missing {
        /// What the program is.
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
        /// What it was needed for.
        purpose: String,
    },
    /// The layout doesn't fit below port 65536.
    #[error(
        "PORT={port} leaves no room for the {needed} ports that {shards} shards of {replicas} need"
    )]
    PortRange {
        /// The base port.
        port: u16,
        /// How many ports are counted up from it.
        needed: u32,
        /// Number of shards.
        shards: u16,
        /// Nodes per shard.
        replicas: u16,
    },
    /// Several mergers leave too few ports for the nodes.
    #[error(
        "{nodes} nodes are too many for a cluster with several mergers: there are ports for {most}"
    )]
    TooManyNodes {
        /// How many nodes were asked for.
        nodes: u32,
        /// How many have a port.
        most: u32,
    },
    /// A line was to be cut that has no relay.
    #[error("this cluster was started without relays")]
    NoRelays,
    /// A request got no answer.
    #[error("no answer from {url}")]
    NoAnswer {
        /// The requested URL.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A write wasn't accepted as a task, or its task didn't succeed.
    #[error("status {status}: {text}")]
    NoTask {
        /// The answer's status.
        status: u16,
        /// The answer, or the task.
        text: String,
    },
    /// There is no block of free ports.
    #[error("no block of {0} free ports found on 127.0.0.1")]
    NoPorts(u16),
    /// A program could not be started.
    #[error("{name} could not be started")]
    Spawn {
        /// The program's name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `weft config envoy` refused.
    #[error("no configuration for Envoy: {0}")]
    EnvoyConfig(String),
    /// A program that should be running ended by itself.
    #[error("{name} ended by itself ({status}); the end of {}:\n{tail}", log.display())]
    Ended {
        /// The program's name.
        name: String,
        /// Its exit status.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The end of the log file.
        tail: String,
    },
    /// A condition did not become true in time.
    #[error("timed out after {} s, waiting for: {what}; last seen: {last}", after.as_secs())]
    Timeout {
        /// The condition.
        what: String,
        /// How long it was waited for.
        after: Duration,
        /// What was seen last.
        last: String,
    },
    /// A signal could not be sent.
    #[error("{name} could not be signalled: {reason}")]
    Signal {
        /// The program's name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A file or folder couldn't be used.
    #[error("{}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP client for readiness requests could not be made.
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
