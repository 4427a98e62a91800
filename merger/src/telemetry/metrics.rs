//! Everything that `/metrics` shows of the merger.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry, TextEncoder,
};

use super::openmetrics::{self, Exemplars};
use super::otlp::{self, Times};
use super::register::Registering;

/// The histogram's buckets in seconds: from half a millisecond to a minute.
pub(super) const BUCKETS: [f64; 15] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 4.0, 15.0, 60.0,
];

/// The buckets of numbers of shards.
const SHARDS: [f64; 10] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0];

/// Everything that `/metrics` shows. Clones are the same metrics.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Client requests by operation and status.
    pub requests: IntCounterVec,
    /// Time of client requests by operation, in seconds.
    pub request_seconds: HistogramVec,
    /// Answers that lack a shard, by operation.
    pub degraded: IntCounterVec,
    /// How many shards a round of a read asks.
    pub fan_out: Histogram,
    /// Time of the parts of reads, in seconds.
    pub read_phase_seconds: HistogramVec,
    /// Time of requests to each shard, reads and writes, in seconds.
    pub shard_seconds: HistogramVec,
    /// Replicas of each shard by their standing.
    pub replicas: IntGaugeVec,
    /// Acknowledged writes that each replica has yet to take.
    pub lag_writes: IntGaugeVec,
    /// For how long each replica has had some to take, in seconds.
    pub lag_seconds: GaugeVec,
    /// Documents on each shard.
    pub shard_documents: IntGaugeVec,
    /// How much fuller than the mean the fullest shard is.
    pub imbalance: Gauge,
    /// The free share of the disk with the data folder.
    pub data_free: Gauge,
    /// Tasks that have not ended, by status.
    pub tasks: IntGaugeVec,
    /// How long the oldest of them has waited, in seconds.
    pub oldest_task: IntGauge,
    /// Tasks that have ended, by status.
    pub tasks_ended: IntCounterVec,
    /// Traced requests, for the format that shows some.
    pub exemplars: Exemplars,
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
    /// What moves spend their time on, by phase.
    pub move_phase_seconds: HistogramVec,
    /// Backups, restores and imports that are running, by kind.
    pub jobs: IntGaugeVec,
    /// Documents that they have brought over, by kind.
    pub job_documents: IntCounterVec,
    /// Bytes that they have brought over, by kind.
    pub job_bytes: IntCounterVec,
    /// Those that have ended, by kind and outcome.
    pub jobs_ended: IntCounterVec,
    /// When the last one of a kind ended well, in seconds since 1970.
    pub job_last_success: IntGaugeVec,
    /// How long writers waited for a backup's moment, in seconds.
    pub backup_pause_seconds: Histogram,
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
    /// Reports of these metrics to a collector, by what became of them.
    pub reports: IntCounterVec,
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
            degraded: new.counter_vec(
                "weft_merger_degraded_answers_total",
                "Answers that lack what a shard holds, by operation.",
                &["operation"],
            )?,
            fan_out: new.histogram(
                "weft_merger_fan_out_shards",
                "How many shards a round of a read asks.",
                &SHARDS,
            )?,
            read_phase_seconds: new.histogram_vec(
                "weft_merger_read_phase_seconds",
                "Time of the parts of reads: scatter, gather, merge.",
                &["phase"],
                &BUCKETS,
            )?,
            shard_seconds: new.histogram_vec(
                "weft_merger_shard_seconds",
                "Time of reads from each shard and of writes to it.",
                &["shard", "flow"],
                &BUCKETS,
            )?,
            replicas: new.gauge_vec(
                "weft_merger_replicas",
                "Replicas of each shard by their standing: in-sync, out, drained, unknown.",
                &["shard", "standing"],
            )?,
            lag_writes: new.gauge_vec(
                "weft_merger_replica_lag_writes",
                "Acknowledged writes that a replica has yet to take.",
                &["node"],
            )?,
            lag_seconds: new.fraction_vec(
                "weft_merger_replica_lag_seconds",
                "For how long a replica has had acknowledged writes to take, without a pause.",
                &["node"],
            )?,
            shard_documents: new.gauge_vec(
                "weft_merger_shard_documents",
                "Documents on each shard, as last measured by the merger that leads.",
                &["shard"],
            )?,
            imbalance: new.fraction(
                "weft_merger_imbalance_ratio",
                "How much fuller than the mean the fullest shard is, as a share of the mean.",
            )?,
            data_free: new.fraction(
                "weft_merger_data_dir_free_ratio",
                "Free share of the disk with the data folder of the merger that leads.",
            )?,
            tasks: new.gauge_vec(
                "weft_merger_tasks",
                "Tasks that have not ended, by status: enqueued, processing.",
                &["status"],
            )?,
            oldest_task: new.gauge(
                "weft_merger_oldest_task_seconds",
                "How long ago the oldest task that has not ended was acknowledged.",
            )?,
            tasks_ended: new.counter_vec(
                "weft_merger_tasks_ended_total",
                "Tasks that have ended: succeeded, failed, canceled.",
                &["status"],
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
            jobs: new.gauge_vec(
                "weft_merger_jobs",
                "Backups, restores and imports that are running.",
                &["kind"],
            )?,
            job_documents: new.counter_vec(
                "weft_merger_job_documents_total",
                "Documents that backups, restores and imports have brought over, as they say themselves.",
                &["kind"],
            )?,
            job_bytes: new.counter_vec(
                "weft_merger_job_bytes_total",
                "Bytes of documents that they have brought over, as they say themselves.",
                &["kind"],
            )?,
            jobs_ended: new.counter_vec(
                "weft_merger_jobs_ended_total",
                "Backups, restores and imports that have ended: done, failed, stopped, vanished.",
                &["kind", "outcome"],
            )?,
            job_last_success: new.gauge_vec(
                "weft_merger_job_last_success_timestamp_seconds",
                "When the last backup, restore or import ended well, in seconds since 1970.",
                &["kind"],
            )?,
            backup_pause_seconds: new.histogram(
                "weft_merger_backup_pause_seconds",
                "How long all writers waited while a backup looked for its moment.",
                &BUCKETS,
            )?,
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
            move_phase_seconds: new.histogram_vec(
                "weft_merger_move_phase_seconds",
                "What moves of slots spend their time on.",
                &["phase"],
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
            reports: new.counter_vec(
                "weft_merger_metrics_reports_total",
                "Reports of metrics to a collector, by what became of them: sent, not-taken.",
                &["outcome"],
            )?,
            spans: new.counter_vec(
                "weft_merger_spans_total",
                "Spans of traces, by what became of them: sent, no-room, not-taken.",
                &["outcome"],
            )?,
            exemplars: Exemplars::default(),
            registry: new.0,
        })
    }

    /// The metrics for a collector, by OTLP.
    pub fn report(&self, instance: &str, times: Times) -> ExportMetricsServiceRequest {
        otlp::report(&self.registry.gather(), instance, times)
    }

    /// The metrics in OpenMetrics' format, with exemplars.
    pub fn render_open(&self) -> Vec<u8> {
        openmetrics::render(&self.registry.gather(), &self.exemplars).into_bytes()
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

#[cfg(test)]
mod tests;
