//! The time in which a merger leads, or follows: its background work has threads of its own, which end with it.
//!
//! All that works in the background for a leader must end when it leads no more, whatever it waits for. Nothing is asked to stop: its
//! threads are given up. Requests to nodes and commits were refused from the end of the lease on anyway.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinError;

/// Threads for background work, until this is dropped.
pub(super) struct Phase(Option<Runtime>);

impl Phase {
    /// Starts threads.
    ///
    /// # Errors
    /// There are none left.
    pub(super) fn begin(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name(name)
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Does something on these threads: what it starts stays there.
    ///
    /// # Errors
    /// It panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        match &self.0 {
            Some(runtime) => runtime.spawn(work).await,
            None => tokio::spawn(work).await,
        }
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
