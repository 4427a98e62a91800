//! Why an import ended, with the exit code and a word on how to go on.

use std::path::PathBuf;

use crate::cli::remote::RemoteError;

/// Why the command ended early, or didn't begin.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ImportError {
    /// No threads or signal handlers could be set up.
    #[error("the runtime can't be set up: {0}")]
    Runtime(#[source] std::io::Error),
    /// The source is no URL.
    #[error("`{text}` is no URL: {cause}")]
    SourceUrl {
        /// What was given.
        text: String,
        /// Why not.
        cause: String,
    },
    /// The options don't go together.
    #[error("{0}")]
    Usage(&'static str),
    /// The source gave no answer that can be used.
    #[error("the source: {0}")]
    Source(#[source] RemoteError),
    /// The cluster gave no answer that can be used.
    #[error("the cluster: {0}")]
    Target(#[source] RemoteError),
    /// The source's key may read documents and not keys.
    #[error(
        "the source doesn't show its keys to this key: give its master key, or leave keys out (--no-keys)"
    )]
    KeysRefused,
    /// An answer lacks what it must have.
    #[error("{server} answered {path} without `{field}`: is it a Meilisearch?")]
    Shape {
        /// Who answered.
        server: String,
        /// What was asked.
        path: String,
        /// What is missing.
        field: &'static str,
    },
    /// The dump can't be read.
    #[error("the dump {}: {reason}", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A chosen index isn't there.
    #[error("the source has no index `{0}`")]
    NoSuchIndex(String),
    /// The cluster has documents where the import would write.
    #[error(
        "the cluster already has documents in {}: choose others with --index, delete them, or say --into-existing",
        indexes.join(", ")
    )]
    NotEmpty {
        /// The indexes.
        indexes: Vec<String>,
    },
    /// An index of the cluster has another primary key.
    #[error("`{index}` has the primary key `{there}` in the cluster and `{here}` in the source")]
    PrimaryKey {
        /// The index.
        index: String,
        /// The source's.
        here: String,
        /// The cluster's.
        there: String,
    },
    /// A task of the cluster failed.
    #[error(
        "the cluster refused {what} of `{index}` (task {task}): {error}; what was taken before stays, and the same command \
         goes on there"
    )]
    Refused {
        /// The index.
        index: String,
        /// Which documents, or what else.
        what: String,
        /// The cluster's task.
        task: u64,
        /// Its error.
        error: String,
    },
    /// One document is larger than what can be sent.
    #[error("a document of `{index}` has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// The index.
        index: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The journal can't be read or written.
    #[error("the journal {}: {reason}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The journal belongs to something else.
    #[error(
        "the journal {} is of an import from {source_name} into {target}: name another one with --journal",
        path.display()
    )]
    OtherJournal {
        /// The file.
        path: PathBuf,
        /// Its source.
        source_name: String,
        /// Its target.
        target: String,
    },
    /// The source isn't what it was.
    #[error("{0}; nothing was deleted. Remove the journal to begin anew")]
    SourceChanged(String),
    /// What was brought over doesn't become equal.
    #[error(
        "`{index}` stays different however often it is brought over: {count} documents, such as {examples}; do both servers \
         have the same version?"
    )]
    StaysDifferent {
        /// The index.
        index: String,
        /// How many documents differ.
        count: u64,
        /// Some of their ids.
        examples: String,
    },
    /// A file of queries can't be used.
    #[error("the queries in {}: {reason}", path.display())]
    Queries {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The person stopped it.
    #[error("stopped; the same command goes on from here (journal: {})", journal.display())]
    Interrupted {
        /// The journal.
        journal: PathBuf,
    },
    /// The person stopped a comparison.
    #[error("the comparison was stopped")]
    ComparisonStopped,
}

impl ImportError {
    /// The exit code: see the table of the command line.
    pub(in crate::cli) fn code(&self) -> u8 {
        match self {
            Self::NotEmpty { .. }
            | Self::PrimaryKey { .. }
            | Self::Refused { .. }
            | Self::SourceChanged(_)
            | Self::StaysDifferent { .. }
            | Self::Interrupted { .. }
            | Self::ComparisonStopped => 1,
            Self::Runtime(_)
            | Self::SourceUrl { .. }
            | Self::Usage(_)
            | Self::Dump { .. }
            | Self::NoSuchIndex(_)
            | Self::TooLarge { .. }
            | Self::Journal { .. }
            | Self::OtherJournal { .. }
            | Self::Queries { .. } => 2,
            Self::Source(error) | Self::Target(error) => match error {
                RemoteError::KeyFile { .. } | RemoteError::Key | RemoteError::Url(_) => 2,
                _ => 3,
            },
            Self::Shape { .. } | Self::KeysRefused => 3,
        }
    }
}
