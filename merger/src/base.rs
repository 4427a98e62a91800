//! What every part of the merger stands on: its options, its limits, the way to the nodes, and its counters.
//!
//! Each part has a `Context` of its own, which holds what the part keeps and leads down to the contexts of the parts below it, and
//! to [`Base`] in the end. A part can't reach what is above it.

use std::future::Future;

use tokio_util::task::TaskTracker;

use crate::bounds::Bounds;
use crate::call::Along;
use crate::options::ServeOptions;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;

/// The foundation of all contexts.
pub struct Base {
    /// The options of `weft serve`.
    pub options: ServeOptions,
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
    pub fn own_authority(&self) -> Along {
        Along::default().with_key(self.options.master_key.as_deref())
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
        self.begun.spawn(work).await.map_err(|_| Stopping)
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
