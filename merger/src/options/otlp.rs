//! Where traces go.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::ServeOptions;
use crate::spans::{Endpoint, SpanOptions};
use crate::tls::Certificates;

/// Where traces go, and which requests have one.
#[derive(Debug, Clone, Args)]
pub struct OtlpArgs {
    /// Collector that gets the traces, by OTLP over gRPC (`http://127.0.0.1:4317`, or `https://` for TLS). Without it there are none.
    #[arg(long = "otlp-endpoint", env = "WEFT_OTLP_ENDPOINT")]
    pub endpoint: Option<Endpoint>,
    /// File with the authorities (PEM) by which the collector's certificate is judged, if not by those of `--tls-ca`.
    #[arg(long = "otlp-ca", env = "WEFT_OTLP_CA", requires = "endpoint")]
    pub otlp_ca: Option<PathBuf>,
    /// Whether the merger's metrics go to that collector, too.
    #[arg(long = "otlp-metrics", env = "WEFT_OTLP_METRICS", default_value_t = false, action = ArgAction::Set, requires = "endpoint")]
    pub metrics: bool,
    /// How often they do, in milliseconds.
    #[arg(
        long = "otlp-metrics-interval-ms",
        env = "WEFT_OTLP_METRICS_INTERVAL_MS",
        default_value_t = 15_000,
        value_parser = clap::value_parser!(u64).range(100..=3_600_000)
    )]
    pub metrics_interval_ms: u64,
    #[arg(skip)]
    pub(super) certificates: Option<Arc<Certificates>>,
    /// Share of the requests that come without `traceparent` that are traced, from 0 to 1; for the others, the sender has decided.
    #[arg(
        long = "otlp-sample-ratio",
        env = "WEFT_OTLP_SAMPLE_RATIO",
        default_value_t = 0.0,
        value_parser = ratio
    )]
    pub sample_ratio: f64,
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text
        .parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| format!("`{text}` is not a number from 0 to 1"))
}

/// Where metrics go, and how often.
#[derive(Debug, Clone)]
pub struct ReportOptions {
    /// The collector.
    pub endpoint: Endpoint,
    /// What its connections are encrypted with; `None` for plain ones.
    pub certificates: Option<Arc<Certificates>>,
    /// How often.
    pub every: Duration,
    /// The name by which this merger is told apart from others.
    pub instance: String,
}

impl ServeOptions {
    /// Where metrics go; `None` if nobody wants any there.
    pub fn reports(&self) -> Option<ReportOptions> {
        Some(ReportOptions {
            endpoint: self.otlp.endpoint.clone().filter(|_| self.otlp.metrics)?,
            certificates: self.otlp.certificates.clone(),
            every: Duration::from_millis(self.otlp.metrics_interval_ms),
            instance: self.instance(),
        })
    }

    /// Where traces go; `None` if nobody wants any.
    pub fn spans(&self) -> Option<SpanOptions> {
        Some(SpanOptions {
            endpoint: self.otlp.endpoint.clone()?,
            certificates: self.otlp.certificates.clone(),
            ratio: self.otlp.sample_ratio,
            instance: self.instance(),
        })
    }

    /// The name by which a collector tells this merger from others.
    fn instance(&self) -> String {
        match self.advertised() {
            Some(address) => address.to_string(),
            None => self.listens_on(),
        }
    }
}
