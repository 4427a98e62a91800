//! `weft serve`: the merger, until it is told to stop.

use tokio::signal::unix::{SignalKind, signal};

use crate::app::{self, StartError};
use crate::options::ServeOptions;
use crate::telemetry;

/// Why the merger did not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No threads, or no signals.
    #[error("the runtime can't be set up: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
pub(super) fn run(options: ServeOptions) -> Result<(), ServeError> {
    telemetry::init_logs(&options);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
        };
        Ok(app::run(options, stop).await?)
    })
}
