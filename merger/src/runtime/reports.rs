//! Metrics on their way to a collector, where there is one that wants them.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::clock::now_utc;
use crate::edge::{self, Role};
use crate::options::ReportOptions;
use crate::spans::CollectorError;
use crate::telemetry::Times;

/// How long the collector may take for a report.
const WITHIN: Duration = Duration::from_secs(5);

/// Begins to report, on the threads of the caller, as long as there is a role. A collector that is slow or gone costs the reports
/// that it doesn't take.
///
/// # Errors
/// The collector's address can't be used.
pub(super) fn begin(
    options: Option<ReportOptions>,
    roles: watch::Receiver<Role>,
) -> Result<(), CollectorError> {
    let Some(options) = options else {
        return Ok(());
    };
    let channel = options.endpoint.channel(options.certificates.clone())?;
    let mut collector = MetricsServiceClient::new(channel);
    tokio::spawn(async move {
        let begun = now();
        let mut ticks = interval(options.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while roles.has_changed().is_ok() {
            ticks.tick().await;
            let role = roles.borrow().clone();
            let metrics = edge::measure(&role);
            let times = Times { begun, now: now() };
            let report = metrics.report(&options.instance, times);
            let taken = timeout(WITHIN, collector.export(report)).await;
            let outcome = match taken {
                Ok(Ok(_)) => "sent",
                Ok(Err(_)) | Err(_) => "not-taken",
            };
            metrics.reports.with_label_values(&[outcome]).inc();
        }
    });
    Ok(())
}

fn now() -> u64 {
    u64::try_from(now_utc().unix_timestamp_nanos()).unwrap_or_default()
}
