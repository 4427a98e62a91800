//! Why a merger doesn't start.

use crate::cluster::ClusterError;
use crate::etcd::{EtcdError, OptionsError};
use crate::options::TlsOptionsError;
use crate::sockets::ListenError;
use crate::spans::CollectorError;
use crate::store::{IdentityError, StoreError};
use crate::tasks::TaskError;

/// Why the merger could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder can't be created.
    #[error("the data folder {0} can't be used")]
    DataDir(std::path::PathBuf, #[source] std::io::Error),
    /// A place can't be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Other mergers can't reach this one.
    #[error(
        "--etcd: other mergers must reach this one, so --listen needs an address beside the socket, or --advertise one"
    )]
    NoAddress,
    /// The store can't be opened, or failed.
    #[error("the store can't be opened (does another merger hold it?)")]
    Store(#[from] StoreError),
    /// A newer merger has written the store.
    #[error("{0}: {1}")]
    NewerFormat(std::path::PathBuf, StoreError),
    /// The options for etcd don't fit together, or a file can't be read.
    #[error(transparent)]
    Etcd(#[from] OptionsError),
    /// etcd doesn't let this merger in.
    #[error("etcd doesn't let this merger in: {0}")]
    Denied(EtcdError),
    /// etcd doesn't answer, or not now.
    #[error("etcd can't be read: {0}")]
    NoAnswer(#[from] EtcdError),
    /// What stands in etcd isn't for this merger.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The file with the cluster's id can't be read or written.
    #[error("the cluster's id can't be kept in {0}")]
    ClusterId(std::path::PathBuf, #[source] std::io::Error),
    /// Threads for a merger that begins to lead or to follow can't be had.
    #[error("the machine has no threads left")]
    Threads(#[source] std::io::Error),
    /// What another merger has stored can't be read.
    #[error("`{0}` is stored in a form that can't be read")]
    Unreadable(String),
    /// The options for TLS don't fit together, or a file can't be used.
    #[error(transparent)]
    Tls(#[from] TlsOptionsError),
    /// Writes can't go around the merger that leads.
    #[error(
        "--direct-writes is for a merger that is alone: with --etcd, all writes go through the one that leads"
    )]
    DirectWrites,
    /// The cluster's state can't be read.
    #[error("the cluster's state can't be read")]
    Cluster(#[from] ClusterError),
    /// The tasks can't be read.
    #[error("the tasks can't be read")]
    Tasks(#[from] TaskError),
    /// The metrics can't be registered.
    #[error("the metrics can't be registered")]
    Metrics(#[from] prometheus::Error),
    /// There is no way to the collector of traces.
    #[error(transparent)]
    Collector(#[from] CollectorError),
}

impl StartError {
    /// Whether it is the store's trouble, which may pass.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Store(_)
                | Self::NoAnswer(_)
                | Self::Identity(IdentityError::Etcd(_) | IdentityError::Store(_))
                | Self::Cluster(ClusterError::Store(_))
                | Self::Tasks(TaskError::Store(_))
        )
    }
}
