//! Where traces go.

use clap::Args;

use super::ServeOptions;
use crate::spans::{Endpoint, SpanOptions};

/// Where traces go, and which requests have one.
#[derive(Debug, Clone, Args)]
pub struct OtlpArgs {
    /// Collector that gets the traces, by OTLP over gRPC (`http://127.0.0.1:4317`). Without it there are none.
    #[arg(long = "otlp-endpoint", env = "WEFT_OTLP_ENDPOINT")]
    pub endpoint: Option<Endpoint>,
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

impl ServeOptions {
    /// Where traces go; `None` if nobody wants any.
    pub fn spans(&self) -> Option<SpanOptions> {
        Some(SpanOptions {
            endpoint: self.otlp.endpoint.clone()?,
            ratio: self.otlp.sample_ratio,
            instance: match self.advertised() {
                Some(address) => address.to_string(),
                None => self.listens_on(),
            },
        })
    }
}
