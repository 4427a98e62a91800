//! `weft import`: brings what a single Meilisearch holds into the cluster, and what is written there afterwards.
//!
//! | stage | module |
//! |---|---|
//! | what is read: a running server, or a dump | `source`, `dump` |
//! | features, keys, settings | `keys`, `settings` |
//! | documents, in batches, several under way | `batch`, `pipeline`, `pace`, `copy` |
//! | how far it is, so that it can go on | `journal` |
//! | what was written to the source meanwhile | `changes`, `digest`, `equalise`, `follow` |
//! | whether both answer alike | `compare` |
//!
//! # Invariants
//!
//! * Nothing is written to the source.
//! * The journal says no more than what the cluster's tasks have confirmed. So an import that was killed sends some batches again,
//!   which changes nothing, and leaves out none.
//! * Nothing is deleted in the cluster unless the source was asked for it by name, or a task of the source names it.

mod args;
mod batch;
mod changes;
mod compare;
mod copy;
mod digest;
mod dump;
mod equalise;
mod error;
mod follow;
mod journal;
mod keys;
mod pace;
mod pipeline;
mod progress;
mod report;
mod session;
mod settings;
mod source;
mod target;

use tokio::signal::unix::{SignalKind, signal};

pub(super) use args::ImportArgs;
pub(super) use error::ImportError;

use super::job::{End, Job, JobKind};
use super::remote::Remote;

/// What a command that ran to its end has to say.
#[derive(Debug)]
pub(super) struct Done {
    /// For standard output.
    pub text: String,
    /// False if what was looked at isn't well: exit code 1.
    pub well: bool,
}

/// Runs the command until it is done or interrupted.
///
/// # Errors
/// Each says how to go on; [`ImportError::code`] is the process's exit code.
pub(super) fn run(arguments: &ImportArgs) -> Result<Done, ImportError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ImportError::Runtime)?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(ImportError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ImportError::Runtime)?;
        let remote = Remote::connect(&arguments.connect).map_err(ImportError::Target)?;
        let job = Job::new(&remote, JobKind::Import);
        let done = tokio::select! {
            done = work(arguments, &job) => done,
            _ = terminate.recv() => interrupted(arguments),
            _ = interrupt.recv() => interrupted(arguments),
        };
        job.end(match &done {
            Ok(_) => End::Done,
            Err(ImportError::Interrupted { .. }) => End::Stopped,
            Err(error) => End::Failed(error.to_string()),
        })
        .await;
        done
    });
    // A thread that reads a dump is left to its end; nothing waits for it.
    runtime.shutdown_background();
    outcome
}

async fn work(arguments: &ImportArgs, job: &Job) -> Result<Done, ImportError> {
    match &arguments.compare {
        Some(file) => compare::run(arguments, file.as_deref()).await,
        None => session::run(arguments, job).await,
    }
}

/// Whoever follows or compares ends it so; an import goes on later.
fn interrupted(arguments: &ImportArgs) -> Result<Done, ImportError> {
    if arguments.compare.is_some() {
        return Err(ImportError::ComparisonStopped);
    }
    let journal = arguments.journal.clone();
    match journal::is_finished(&journal) && arguments.follow && !arguments.until_caught_up {
        true => Ok(Done {
            text: "Stopped following. The same command goes on from here.\n".to_owned(),
            well: true,
        }),
        false => Err(ImportError::Interrupted { journal }),
    }
}
