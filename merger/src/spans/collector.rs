//! The way of ended spans to the collector: a bounded queue, one task that empties it in batches, and a count of what became of
//! them.
//!
//! A collector that is slow, silent or gone costs the spans that no room is left for, and nothing else. A stop waits for it no
//! longer than [`FLUSH`].

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{
    ExporterBuildError, RetryPolicy, SpanExporter, WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use prometheus::IntCounterVec;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{Spans, Tracing};
use crate::tls::{self, Certificates};

/// How many ended spans wait for the collector at most.
const QUEUE: usize = 4096;
/// How many go at once.
const BATCH: usize = 512;
/// How long the first of a batch waits for company.
const COMPANY: Duration = Duration::from_millis(500);
/// How long the collector may take for a batch.
const EXPORT: Duration = Duration::from_secs(5);
/// How long a stop waits until what is left has gone.
const FLUSH: Duration = Duration::from_secs(2);

/// The address of a collector: `http://HOST:PORT`, or `https://` for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

/// A text isn't the address of a collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It has another form.
    #[error("`{0}` is not http://HOST:PORT or https://HOST:PORT")]
    Form(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || EndpointError::Form(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| form())?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(form()),
        }
        let has_no_path = matches!(uri.path(), "" | "/") && uri.query().is_none();
        match uri.port_u16() {
            Some(1..) if has_no_path => Ok(Self(text.to_owned())),
            _ => Err(form()),
        }
    }
}

impl Endpoint {
    /// The way there, which opens connections when they are needed: by TLS, with the certificates of that moment, or plain.
    ///
    /// # Errors
    /// It is none for gRPC.
    pub fn channel(
        &self,
        certificates: Option<Arc<Certificates>>,
    ) -> Result<Channel, EndpointError> {
        let form = || EndpointError::Form(self.0.clone());
        let plain = self.0.replacen("https://", "http://", 1);
        let channel = Channel::from_shared(plain).map_err(|_| form())?;
        let channel = channel.timeout(EXPORT);
        let Some(certificates) = certificates else {
            return Ok(channel.connect_lazy());
        };
        // Tonic is told of a plain address, because its own TLS reads certificates once; the origin is what requests name.
        let origin = Uri::try_from(self.0.as_str()).map_err(|_| form())?;
        let connector = tls::Collector::new(certificates);
        Ok(channel
            .origin(origin)
            .connect_with_connector_lazy(connector))
    }

    /// Whether it is reached by TLS.
    pub fn is_encrypted(&self) -> bool {
        tls::Way::is_encrypted(&self.0)
    }
}

/// Where spans go, and which requests have some.
#[derive(Debug, Clone)]
pub struct SpanOptions {
    /// The collector.
    pub endpoint: Endpoint,
    /// What its connections are encrypted with; `None` for plain ones.
    pub certificates: Option<Arc<Certificates>>,
    /// The share of requests without a `traceparent` that are traced, from 0 to 1.
    pub ratio: f64,
    /// The name by which this merger is told apart from others.
    pub instance: String,
}

/// No way to the collector could be made.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The exporter can't be made.
    #[error("spans can't be sent: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The address is none of a collector.
    #[error("spans can't be sent: {0}")]
    Address(#[from] EndpointError),
}

/// The way to the collector, as long as the process runs.
#[derive(Debug)]
pub struct Collector {
    spans: Spans,
    stop: CancellationToken,
    sending: JoinHandle<()>,
}

impl Collector {
    /// Begins to send spans, on the threads of the caller. `counts` counts them by what became of them. Needs no collector yet.
    ///
    /// # Errors
    /// The address can't be used.
    pub fn start(options: &SpanOptions, counts: IntCounterVec) -> Result<Self, CollectorError> {
        let mut exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(options.endpoint.channel(options.certificates.clone())?)
            .with_timeout(EXPORT)
            // While a batch waits, others gather behind it: a collector that is restarted loses one batch.
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        let resource = Resource::builder()
            .with_service_name("weft-merger")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", options.instance.clone()),
            ])
            .build();
        exporter.set_resource(&resource);
        let (queue, ended) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let counts = Counts(counts);
        let sending = tokio::spawn(send(ended, exporter, counts.clone(), stop.clone()));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                options.ratio,
            ))))
            .with_span_processor(Queue { queue, counts })
            .build();
        Ok(Self {
            spans: Spans(Some(Tracing {
                tracer: provider.tracer("weft"),
                begins_traces: options.ratio > 0.0,
            })),
            stop,
            sending,
        })
    }

    /// What makes spans for this collector.
    pub fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Sends what has ended so far, as long as that takes no longer than [`FLUSH`].
    pub async fn finish(mut self) {
        self.stop.cancel();
        if timeout(FLUSH, &mut self.sending).await.is_err() {
            self.sending.abort();
            tracing::warn!("the collector did not take the last spans before the stop");
        }
    }
}

/// What became of spans.
#[derive(Debug, Clone)]
struct Counts(IntCounterVec);

impl Counts {
    fn add(&self, outcome: &str, spans: usize) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        self.0.with_label_values(&[outcome]).inc_by(spans);
    }
}

/// Puts ended spans into the queue.
#[derive(Debug)]
struct Queue {
    queue: Sender<SpanData>,
    counts: Counts,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.counts.add("no-room", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends spans until the queue is closed, or empty after `stop`.
async fn send(
    mut ended: Receiver<SpanData>,
    exporter: SpanExporter,
    counts: Counts,
    stop: CancellationToken,
) {
    let mut takes_them = true;
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            () = stop.cancelled(), if !ended.is_closed() => {
                ended.close();
                continue;
            }
            received = ended.recv_many(&mut batch, BATCH) => if received == 0 {
                return;
            },
        }
        let until = Instant::now() + COMPANY;
        while batch.len() < BATCH && !stop.is_cancelled() {
            let room = BATCH - batch.len();
            let more = tokio::select! {
                () = stop.cancelled() => break,
                more = timeout_at(until, ended.recv_many(&mut batch, room)) => more,
            };
            if !matches!(more, Ok(1..)) {
                break;
            }
        }
        let spans = batch.len();
        let why = match timeout(EXPORT, exporter.export(batch)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} ms", EXPORT.as_millis())),
        };
        counts.add(if why.is_none() { "sent" } else { "not-taken" }, spans);
        match why {
            None => takes_them = true,
            // Said once, not with every batch.
            Some(error) if std::mem::replace(&mut takes_them, false) => {
                tracing::warn!(error, spans, "the collector takes no spans");
            }
            Some(error) => tracing::debug!(error, spans, "the collector takes no spans"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn spans_for_which_there_is_no_room_are_counted_and_nobody_waits() {
        let metrics = Metrics::new().unwrap();
        let (queue, mut ended) = mpsc::channel(2);
        let counts = Counts(metrics.spans.clone());
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_span_processor(Queue { queue, counts })
            .build();
        let spans = Spans(Some(Tracing {
            tracer: provider.tracer("weft"),
            begins_traces: true,
        }));
        for _ in 0..5 {
            drop(spans.server(&Method::GET, &HeaderMap::new()));
        }
        let dropped = metrics.spans.with_label_values(&["no-room"]).get();
        let mut kept = Vec::new();
        assert_eq!((ended.recv_many(&mut kept, 10).await, dropped), (2, 3));
    }
}
