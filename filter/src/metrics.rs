//! The filter's metrics, in Envoy's own stats (`/stats/prometheus`), named `weft_filter_…`.
//!
//! A host call for each count would cost a request several microseconds. So counts are kept here and sent to Envoy at each
//! tick of the root: Envoy's figures are at most `table_poll_ms` old.

use std::cell::Cell;

use crate::host::{Host, MetricKind};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Reads sent directly to a shard.
    DirectRead,
    /// Writes sent directly to a shard.
    DirectWrite,
    /// Requests left to the merger.
    Merged,
    /// Requests refused with 404: paths that aren't allowed for clients.
    Refused,
    /// Requests whose body was held and looked at.
    BodyLookedAt,
    /// Requests for an index when there was no table, or its lease had expired.
    TableStale,
    /// Headers removed that a client may not send.
    HeaderStripped,
    /// Failed requests for the table.
    PollFailed,
    /// New tables accepted.
    TableUpdated,
    /// Direct writes whose task was registered with the merger.
    Registered,
    /// Direct writes whose task could not be registered.
    RegisterFailed,
    /// Requests that a guard let not through.
    GuardRefused,
}

const COUNTERS: [(Counter, &str); 12] = [
    (Counter::DirectRead, "weft_filter_requests_direct_read"),
    (Counter::DirectWrite, "weft_filter_requests_direct_write"),
    (Counter::Merged, "weft_filter_requests_merged"),
    (Counter::Refused, "weft_filter_requests_refused"),
    (Counter::BodyLookedAt, "weft_filter_requests_body_looked_at"),
    (Counter::TableStale, "weft_filter_requests_table_stale"),
    (Counter::HeaderStripped, "weft_filter_headers_stripped"),
    (Counter::PollFailed, "weft_filter_table_poll_failed"),
    (Counter::TableUpdated, "weft_filter_table_updated"),
    (Counter::Registered, "weft_filter_registered"),
    (Counter::RegisterFailed, "weft_filter_register_failed"),
    (Counter::GuardRefused, "weft_filter_guard_refused"),
];

/// The ids under which Envoy knows the metrics; a metric that couldn't be defined is left out.
#[derive(Debug)]
pub struct Metrics {
    counters: [Pending; COUNTERS.len()],
    body_bytes: Option<u32>,
    register_ms: Option<u32>,
    table_epoch: Option<u32>,
    guard_term: Option<u32>,
}

/// A counter, and the amount that Envoy hasn't been told yet.
#[derive(Debug)]
struct Pending {
    counter: Counter,
    id: Option<u32>,
    amount: Cell<i64>,
}

impl Metrics {
    /// Defines all metrics.
    pub fn define(host: &impl Host) -> Self {
        let define = |kind, name| host.define_metric(kind, name);
        Self {
            counters: COUNTERS.map(|(counter, name)| Pending {
                counter,
                id: define(MetricKind::Counter, name),
                amount: Cell::new(0),
            }),
            body_bytes: define(MetricKind::Histogram, "weft_filter_body_bytes"),
            register_ms: define(MetricKind::Histogram, "weft_filter_register_ms"),
            table_epoch: define(MetricKind::Gauge, "weft_filter_table_epoch"),
            guard_term: define(MetricKind::Gauge, "weft_filter_guard_term"),
        }
    }

    /// Adds one to a counter.
    pub fn count(&self, counter: Counter) {
        if let Some(pending) = self
            .counters
            .iter()
            .find(|pending| pending.counter == counter)
        {
            pending.amount.set(pending.amount.get().saturating_add(1));
        }
    }

    /// Sends Envoy everything counted since the last time.
    pub fn hand_over(&self, host: &impl Host) {
        for pending in &self.counters {
            let amount = pending.amount.take();
            if let Some(id) = pending.id
                && amount != 0
            {
                host.add_to_metric(id, amount);
            }
        }
    }

    /// Records the size of a body that was looked at.
    pub fn body_bytes(&self, host: &impl Host, bytes: u64) {
        record(host, self.body_bytes, bytes);
    }

    /// Records how long a registration took.
    pub fn register_ms(&self, host: &impl Host, milliseconds: u64) {
        record(host, self.register_ms, milliseconds);
    }

    /// Sets the epoch of the newest table.
    pub fn table_epoch(&self, host: &impl Host, epoch: u64) {
        record(host, self.table_epoch, epoch);
    }

    /// Sets the newest term that a guard has seen.
    pub fn guard_term(&self, host: &impl Host, term: u64) {
        record(host, self.guard_term, term);
    }
}

fn record(host: &impl Host, id: Option<u32>, value: u64) {
    if let Some(id) = id {
        host.record_metric(id, value);
    }
}
