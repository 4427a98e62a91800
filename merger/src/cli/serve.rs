//! `weft serve`: runs the merger until it is told to stop.

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::options::ServeOptions;
use crate::runtime::{self, StartError};
use crate::telemetry;

/// Why the merger did not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// The merger could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No threads or signal handlers could be set up.
    #[error("the runtime can't be set up: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
pub(super) fn run(options: ServeOptions) -> Result<(), ServeError> {
    telemetry::init_logs(&options.log, &options.log_format);
    open_files(options.max_reading as u64);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
        };
        Ok(runtime::run(options, stop).await?)
    });
    if outcome.is_err() {
        // Waits for nothing: a merger that leads no more must not go on with anything.
        runtime.shutdown_background();
    }
    outcome
}

/// Raises the limit of open files to its maximum: each client's body needs a connection, and so does each request to a
/// node. With too few, clients could keep Envoy's readiness checks from reaching the merger.
fn open_files(bodies: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
    let limit = getrlimit(Resource::Nofile).current;
    if let Some(limit) = limit.filter(|limit| *limit < bodies.saturating_mul(2)) {
        tracing::warn!(
            limit,
            "few files may be open at once: lower --max-reading to less than half of that"
        );
    }
}
