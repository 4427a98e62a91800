//! Logs and metrics.

mod metrics;
mod openmetrics;
mod otlp;
mod register;

use tracing_subscriber::EnvFilter;

pub use metrics::Metrics;
pub use openmetrics::{Exemplars, OPEN_METRICS};
pub use otlp::Times;

/// Starts logging to standard error: as JSON lines, or as plain text if the format is `text`. A second call does nothing.
pub fn init_logs(filter: &str, format: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Otherwise such errors would be written with `eprintln`, which panics if stderr can't be written to, as on a full disk.
        .log_internal_errors(false);
    let started = if format == "text" {
        logs.try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
    if started.is_err() {
        tracing::debug!("logs are set up already");
        return;
    }
    // Panics must show up in the log.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let message = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!(place, message, "a panic");
    }));
}
