//! The README's table of metrics.

use std::collections::BTreeSet;

use prometheus::core::Collector;

use super::*;

const README: &str = include_str!("../../../README.md");

/// Every metric as the README writes it: the name, and the labels in braces.
fn registered() -> BTreeSet<String> {
    let Metrics {
        registry: _,
        exemplars: _,
        requests,
        request_seconds,
        degraded,
        fan_out,
        read_phase_seconds,
        shard_seconds,
        replicas,
        lag_writes,
        lag_seconds,
        shard_documents,
        imbalance,
        data_free,
        tasks,
        oldest_task,
        tasks_ended,
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
        move_phase_seconds,
        jobs,
        job_documents,
        job_bytes,
        jobs_ended,
        job_last_success,
        backup_pause_seconds,
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
        reports,
        spans,
    } = Metrics::new().unwrap();
    let metrics: [&dyn Collector; 53] = [
        &requests,
        &request_seconds,
        &degraded,
        &fan_out,
        &read_phase_seconds,
        &shard_seconds,
        &replicas,
        &lag_writes,
        &lag_seconds,
        &shard_documents,
        &imbalance,
        &data_free,
        &tasks,
        &oldest_task,
        &tasks_ended,
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
        &move_phase_seconds,
        &jobs,
        &job_documents,
        &job_bytes,
        &jobs_ended,
        &job_last_success,
        &backup_pause_seconds,
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
        &reports,
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
