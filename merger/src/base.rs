//! What every part of the merger stands on: timeouts, limits, the way to the nodes, and its counters.
//!
//! Each part has a `Context` of its own, which holds what the part keeps and leads down to the contexts of the parts below it, and
//! to [`Base`] in the end. A part can't reach what is above it.

use std::future::Future;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::bounds::Bounds;
use crate::call::{ForwardedHeaders, Pace};
use crate::supervise::note_panic;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;

/// The foundation of all contexts.
pub struct Base {
    /// The nodes' master key, if they have one.
    pub master_key: Option<String>,
    /// How long a node may take to answer a read.
    pub search_timeout: Duration,
    /// How long a node may take to accept a write.
    pub write_timeout: Duration,
    /// How fast a client must send its body.
    pub pace: Pace,
    /// The largest body of a request that is no import of documents.
    pub max_body_bytes: u64,
    /// What all requests together may take.
    pub bounds: Bounds,
    /// The only way to a node.
    pub upstream: Upstream,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// Work that runs [to its end](Self::run_to_completion) at this moment.
    pub begun: TaskTracker,
}

/// Work was cut short because the merger stops.
#[derive(Debug, thiserror::Error)]
#[error("the merger is stopping")]
pub struct Stopping;

impl Base {
    /// The merger's own authority, for requests that no client stands behind.
    pub fn own_authority(&self) -> ForwardedHeaders {
        ForwardedHeaders::default().with_key(self.master_key.as_deref())
    }

    /// Runs a change to its end even if the client disconnects: otherwise some nodes would have it and others not. A stop of the
    /// merger waits for it.
    ///
    /// # Errors
    /// The merger stops before the work has ended.
    pub async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Stopping> {
        self.begun.spawn(work).await.map_err(|error| {
            note_panic(&self.metrics.panics, "run-to-completion", error);
            Stopping
        })
    }
}

/// Lets a context be used as the one below it, which it holds in a field.
macro_rules! stands_on {
    ($context:ty, $field:ident, $below:ty) => {
        impl std::ops::Deref for $context {
            type Target = $below;

            fn deref(&self) -> &$below {
                &self.$field
            }
        }
    };
}
pub(crate) use stands_on;
