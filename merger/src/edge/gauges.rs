//! Metrics that are read when somebody asks for them: how replicas stand, and what waits.

use rustix::fs::statvfs;

use crate::clock::now_utc;
use crate::cluster::{self, JobKind, JobState, SyncState, note_vanished_jobs};
use crate::edge::{Context, Role};
use crate::telemetry::Metrics;

/// The metrics, with what is read only when somebody asks.
pub fn measure(role: &Role) -> Metrics {
    match role {
        Role::Leads(ctx) => {
            of_tasks(ctx);
            of_jobs(ctx);
            of_replicas(ctx);
        }
        Role::Follows(follower) => {
            of_replicas(&follower.reading);
            of_no_jobs(&follower.reading);
        }
    }
    role.reading().metrics.clone()
}

/// How each replica stands, as this merger knows it.
pub(super) fn of_replicas(ctx: &cluster::Context) {
    let (cluster, metrics) = (&ctx.cluster, &ctx.metrics);
    // A node that is gone has no series any more.
    metrics.replicas.reset();
    metrics.lag_writes.reset();
    metrics.lag_seconds.reset();
    for (shard, node) in cluster.topology().all_nodes() {
        let shard = shard.0.to_string();
        let is = match cluster.in_sync.sync_state(&node.id) {
            Some(SyncState::InSync { .. }) => "in-sync",
            Some(SyncState::Out { .. }) => "out",
            Some(SyncState::Drained { .. }) => "drained",
            None => "unknown",
        };
        for standing in ["in-sync", "out", "drained", "unknown"] {
            let replicas = metrics.replicas.with_label_values(&[&shard, standing]);
            replicas.add(i64::from(standing == is));
        }
        let name = node.id.to_string();
        let lag = i64::try_from(cluster.queues.lag(&node.id).writes).unwrap_or(i64::MAX);
        metrics.lag_writes.with_label_values(&[&name]).set(lag);
        let behind = cluster.queues.behind_for(&node.id).as_secs_f64();
        metrics.lag_seconds.with_label_values(&[&name]).set(behind);
    }
}

/// Which tasks wait, and how much room there is for more, as the merger that leads knows.
pub(super) fn of_tasks(ctx: &Context) {
    if let Ok(disk) = statvfs(&ctx.broadcast.write.options.spool_folder) {
        #[allow(
            clippy::cast_precision_loss,
            reason = "a share needs no more than 52 bits"
        )]
        let free = disk.f_bavail as f64 / disk.f_blocks.max(1) as f64;
        ctx.metrics.data_free.set(free);
    }
    let backlog = ctx.tasks.backlog();
    for (status, count) in [
        ("enqueued", backlog.enqueued),
        ("processing", backlog.processing),
    ] {
        ctx.metrics.tasks.with_label_values(&[status]).set(count);
    }
    let waited = backlog.oldest.map(|at| (now_utc() - at).whole_seconds());
    ctx.metrics.oldest_task.set(waited.unwrap_or(0).max(0));
}

/// Only the merger that leads hears of backups and imports: what this one once knew is nothing to go by.
pub(super) fn of_no_jobs(ctx: &cluster::Context) {
    ctx.metrics.jobs.reset();
    ctx.metrics.job_last_success.reset();
}

/// Backups, restores and imports, as the merger that leads has heard of them.
pub(super) fn of_jobs(ctx: &cluster::Context) {
    let (jobs, metrics) = (&ctx.cluster.jobs, &ctx.metrics);
    note_vanished_jobs(ctx);
    for kind in JobKind::ALL {
        let name = kind.as_str();
        let running = i64::try_from(jobs.running(kind)).unwrap_or(i64::MAX);
        metrics.jobs.with_label_values(&[name]).set(running);
        // A series that begins with 1 has not grown.
        metrics.job_documents.with_label_values(&[name]);
        metrics.job_bytes.with_label_values(&[name]);
        for state in JobState::ENDS {
            metrics
                .jobs_ended
                .with_label_values(&[name, state.as_str()]);
        }
        // Without a success there is no series: nobody may want backups.
        if let Some(success) = jobs.last(kind).success {
            let gauge = metrics.job_last_success.with_label_values(&[name]);
            gauge.set(success.unix_timestamp());
        }
    }
}
