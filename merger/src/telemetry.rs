//! Logs and metrics.

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use tracing_subscriber::EnvFilter;

/// The histogram's buckets in seconds: from half a millisecond to a minute.
const BUCKETS: [f64; 15] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 4.0, 15.0, 60.0,
];

/// Everything that `/metrics` shows. Clones are the same metrics.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Client requests by operation and status.
    pub requests: IntCounterVec,
    /// Time of client requests by operation, in seconds.
    pub request_seconds: HistogramVec,
    /// Time of the parts of reads, in seconds.
    pub phase_seconds: HistogramVec,
    /// Client requests that are being handled.
    pub under_way: IntGauge,
    /// Polls of the routing table by filters, by whether it had changed.
    pub table_polls: IntCounterVec,
    /// Direct writes that filters have registered.
    pub registered: IntCounter,
    /// Searches whose answers may be remembered or shared, by outcome.
    pub remembered: IntCounterVec,
    /// Memory that remembered answers take, in bytes.
    pub remembered_bytes: IntGauge,
    /// Small writes that could be sent together with others.
    pub small_writes: IntCounter,
    /// Node tasks in which small writes were sent.
    pub small_write_groups: IntCounter,
    /// Replicas removed from the in-sync set.
    pub taken_out: IntCounter,
    /// Staggered writes: large writes that one half of a shard's replicas applied after the other.
    pub staggered: IntCounter,
    /// Resyncs, by outcome.
    pub resyncs: IntCounterVec,
    /// Resyncs that stopped because of unexplained deletions, and wait for an operator.
    pub stopped_resyncs: IntGauge,
    /// Documents that resyncs copied or deleted.
    pub resynced_documents: IntCounter,
    /// Moves that have not ended.
    pub moves: IntGauge,
    /// Documents that moves brought to another shard.
    pub moved_documents: IntCounter,
    /// Bytes that moves copied.
    pub moved_bytes: IntCounter,
    /// Attempts to hand a batch over while writers wait, by outcome.
    pub move_turns: IntCounterVec,
    /// How long writers waited for such an attempt.
    pub move_turn_seconds: HistogramVec,
    /// Spare nodes that answer and are free.
    pub spares: IntGauge,
    /// Replicas whose place a spare node has taken.
    pub replaced: IntCounter,
    /// Documents and settings in which replicas in sync were found to differ.
    pub differences: IntCounter,
    /// Calls of webhooks, by outcome; retries don't count.
    pub webhook_calls: IntCounterVec,
    /// Panics of background work.
    pub panics: IntCounterVec,
    /// Nodes whose settings of an index differed from the desired ones, by outcome.
    pub settings_drift: IntCounterVec,
    /// Whether this merger leads.
    pub leads: IntGauge,
    /// How often this merger has begun to lead.
    pub terms: IntCounter,
    /// What this merger's lease has left, in milliseconds: the leader's, or a follower's.
    pub lease_left: IntGauge,
    /// How long ago a follower last knew that it had the newest state, in milliseconds.
    pub state_age: IntGauge,
    /// How long etcd takes, by what is asked, in seconds.
    pub store_seconds: HistogramVec,
    /// Requests that went on to the leader, by outcome.
    pub passed_on: IntCounterVec,
    /// Spans of traces, by what became of them.
    pub spans: IntCounterVec,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// A name is already taken or invalid.
    pub fn new() -> Result<Self, prometheus::Error> {
        let new = Registering(Registry::new());
        Ok(Self {
            requests: new.counter_vec(
                "weft_merger_requests_total",
                "Client requests by operation and status.",
                &["operation", "status"],
            )?,
            request_seconds: new.histogram_vec(
                "weft_merger_request_seconds",
                "Time of client requests by operation.",
                &["operation"],
                &BUCKETS,
            )?,
            phase_seconds: new.histogram_vec(
                "weft_merger_read_phase_seconds",
                "Time of the parts of reads: plan, scatter, gather, merge.",
                &["phase"],
                &BUCKETS,
            )?,
            under_way: new.gauge(
                "weft_merger_requests_under_way",
                "Client requests under way.",
            )?,
            table_polls: new.counter_vec(
                "weft_merger_table_polls_total",
                "Polls of the routing table by filters.",
                &["outcome"],
            )?,
            registered: new.counter(
                "weft_merger_direct_writes_total",
                "Direct writes registered by filters.",
            )?,
            remembered: new.counter_vec(
                "weft_merger_remembered_answers_total",
                "Searches whose answers may be remembered: hit, miss, joined (an identical one under way).",
                &["outcome"],
            )?,
            remembered_bytes: new.gauge(
                "weft_merger_remembered_answers_bytes",
                "Memory that remembered answers take, in bytes.",
            )?,
            small_writes: new.counter(
                "weft_merger_small_writes_total",
                "Small writes that could go to their shard together with others.",
            )?,
            small_write_groups: new.counter(
                "weft_merger_small_write_groups_total",
                "Node tasks that small writes went as.",
            )?,
            taken_out: new.counter(
                "weft_merger_replicas_taken_out_total",
                "Replicas taken out of the in-sync set.",
            )?,
            staggered: new.counter(
                "weft_merger_staggered_total",
                "Large writes or settings that began to be applied by one half of a shard's replicas after the other.",
            )?,
            resyncs: new.counter_vec(
                "weft_merger_resyncs_total",
                "Resyncs by outcome.",
                &["outcome"],
            )?,
            stopped_resyncs: new.gauge(
                "weft_merger_resyncs_stopped",
                "Resyncs that would delete more than they can explain, and wait for an operator.",
            )?,
            resynced_documents: new.counter(
                "weft_merger_resynced_documents_total",
                "Documents that resyncs brought to a replica or removed from it.",
            )?,
            moves: new.gauge("weft_merger_moves", "Moves of slots that have not ended.")?,
            spares: new.gauge("weft_merger_spares", "Spare nodes that answer and are free.")?,
            replaced: new.counter(
                "weft_merger_replicas_replaced_total",
                "Replicas that stayed away and whose place a spare node has taken.",
            )?,
            moved_documents: new.counter(
                "weft_merger_moved_documents_total",
                "Documents that moves of slots brought to another shard.",
            )?,
            moved_bytes: new.counter(
                "weft_merger_moved_bytes_total",
                "Bytes of documents that moves of slots copied.",
            )?,
            move_turns: new.counter_vec(
                "weft_merger_move_turns_total",
                "Attempts to hand a batch of slots over while writers wait, by outcome: over, too-soon.",
                &["outcome"],
            )?,
            move_turn_seconds: new.histogram_vec(
                "weft_merger_move_turn_seconds",
                "How long writers to the two shards waited while a batch of slots was handed over, or an attempt was made.",
                &["outcome"],
                &BUCKETS,
            )?,
            differences: new.counter(
                "weft_merger_replica_differences_total",
                "Documents and settings in which replicas in sync were found to differ.",
            )?,
            webhook_calls: new.counter_vec(
                "weft_merger_webhook_calls_total",
                "Calls of webhooks, tries counted once, by outcome.",
                &["outcome"],
            )?,
            panics: new.counter_vec(
                "weft_merger_panics_total",
                "Panics of background work.",
                &["work"],
            )?,
            settings_drift: new.counter_vec(
                "weft_merger_settings_drift_total",
                "Nodes whose settings of an index were not what was last set, by what became of it.",
                &["outcome"],
            )?,
            leads: new.gauge(
                "weft_merger_leads",
                "1 if this merger leads, 0 if it follows.",
            )?,
            terms: new.counter(
                "weft_merger_terms_total",
                "How often this merger has begun to lead.",
            )?,
            lease_left: new.gauge(
                "weft_merger_lease_left_ms",
                "What this merger's lease in etcd has left, in milliseconds.",
            )?,
            state_age: new.gauge(
                "weft_merger_state_age_ms",
                "How long ago this merger last had the newest state for sure, in milliseconds; 0 if it leads.",
            )?,
            store_seconds: new.histogram_vec(
                "weft_merger_etcd_seconds",
                "Time of requests to etcd, by what is asked and whether there was an answer.",
                &["request", "outcome"],
                &BUCKETS,
            )?,
            passed_on: new.counter_vec(
                "weft_merger_passed_on_total",
                "Requests that a follower passed on to the leader, by outcome.",
                &["outcome"],
            )?,
            spans: new.counter_vec(
                "weft_merger_spans_total",
                "Spans of traces, by what became of them: sent, no-room, not-taken.",
                &["outcome"],
            )?,
            registry: new.0,
        })
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics can't be rendered");
        }
        text
    }
}

/// Makes metrics and registers them.
struct Registering(Registry);

impl Registering {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counter_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, labels)?)
    }

    fn add<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const README: &str = include_str!("../README.md");

    /// Every metric as the README writes it: the name, and the labels in braces.
    fn registered() -> BTreeSet<String> {
        let Metrics {
            registry: _,
            requests,
            request_seconds,
            phase_seconds,
            under_way,
            table_polls,
            registered,
            remembered,
            remembered_bytes,
            small_writes,
            small_write_groups,
            taken_out,
            staggered,
            resyncs,
            stopped_resyncs,
            resynced_documents,
            moves,
            moved_documents,
            moved_bytes,
            move_turns,
            move_turn_seconds,
            spares,
            replaced,
            differences,
            webhook_calls,
            panics,
            settings_drift,
            leads,
            terms,
            lease_left,
            state_age,
            store_seconds,
            passed_on,
            spans,
        } = Metrics::new().unwrap();
        let metrics: [&dyn Collector; 33] = [
            &requests,
            &request_seconds,
            &phase_seconds,
            &under_way,
            &table_polls,
            &registered,
            &remembered,
            &remembered_bytes,
            &small_writes,
            &small_write_groups,
            &taken_out,
            &staggered,
            &resyncs,
            &stopped_resyncs,
            &resynced_documents,
            &moves,
            &moved_documents,
            &moved_bytes,
            &move_turns,
            &move_turn_seconds,
            &spares,
            &replaced,
            &differences,
            &webhook_calls,
            &panics,
            &settings_drift,
            &leads,
            &terms,
            &lease_left,
            &state_age,
            &store_seconds,
            &passed_on,
            &spans,
        ];
        let described = metrics.iter().flat_map(|metric| metric.desc());
        let shown = described.map(|desc| match desc.variable_labels.as_slice() {
            [] => desc.fq_name.clone(),
            labels => format!("{}{{{}}}", desc.fq_name, labels.join(",")),
        });
        shown.collect()
    }

    #[test]
    fn the_readme_lists_every_metric_with_its_labels_and_no_other() {
        let rows = README
            .lines()
            .filter(|line| line.starts_with("| `weft_merger_"));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        let listed: BTreeSet<String> = cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .map(str::to_owned)
            .collect();
        assert_eq!(listed, registered());
    }
}
