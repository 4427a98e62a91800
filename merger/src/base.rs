//! The base of every part of the merger: timeouts, limits, the client for nodes, and metrics.
//!
//! Each part has its own `Context`, which holds the part's state and a reference to the context of the part below it, down to
//! [`Base`]. A part can't reach the parts above it.

use std::future::Future;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::bounds::Bounds;
use crate::call::{ForwardedHeaders, Pace};
use crate::spans::Spans;
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
    /// How fast a client must send the body of its request.
    pub pace: Pace,
    /// The largest body, in bytes, of a request that doesn't add documents.
    pub max_body_bytes: u64,
    /// The limits for all requests together.
    pub bounds: Bounds,
    /// The only client for nodes.
    pub upstream: Upstream,
    /// The metrics.
    pub metrics: Metrics,
    /// Spans of clients' requests.
    pub spans: Spans,
    /// The work that is [running to its end](Self::run_to_completion) now.
    pub begun: TaskTracker,
}

/// Work was cut short because the merger stops.
#[derive(Debug, thiserror::Error)]
#[error("the merger is stopping")]
pub struct Stopping;

impl Base {
    /// The headers with the master key, for requests that the merger makes on its own behalf.
    pub fn own_authority(&self) -> ForwardedHeaders {
        ForwardedHeaders::default().with_key(self.master_key.as_deref())
    }

    /// Runs a change to its end even if the client disconnects, because otherwise some nodes would have it and others not. A stop
    /// of the merger waits for it.
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

/// Implements `Deref` from a context to the context below it, which it holds in a field.
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
