//! The way of spans to a collector, where there is one.

use crate::options::ServeOptions;
use crate::spans::{Collector, CollectorError, Spans};
use crate::telemetry::Metrics;

/// The collector's end of all traces; nothing, if nobody asked for traces.
pub(super) struct Traces(Option<Collector>);

impl Traces {
    /// Begins to send spans, on the threads of the caller.
    pub(super) fn begin(options: &ServeOptions, metrics: &Metrics) -> Result<Self, CollectorError> {
        let start = |options| Collector::start(&options, metrics.spans.clone());
        options.spans().map(start).transpose().map(Self)
    }

    /// What makes the spans.
    pub(super) fn spans(&self) -> Spans {
        self.0.as_ref().map(Collector::spans).unwrap_or_default()
    }

    /// Sends the last spans, within a bounded time.
    pub(super) async fn finish(self) {
        if let Some(collector) = self.0 {
            collector.finish().await;
        }
    }
}
