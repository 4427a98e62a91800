//! How long `GET /tasks/{uid}` takes: waiting clients send it every few milliseconds. And what many finished tasks cost: memory, and
//! the time of a list.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster};
use weft_merger::store::{Change, RedbStore, Store};

use super::Row;
use super::load::{Shot, fire};

const KEY: &str = "bench-master-key";
/// What the merger's keys of tasks begin with.
const PREFIX: &str = "task/";
/// How many tasks are written in one commit.
const AT_ONCE: usize = 10_000;
/// The number of finished tasks in addition to the requested one.
const TASKS: usize = 500;

pub(super) async fn measure(seconds: u64, many: u32) -> Result<Vec<Row>> {
    let cluster = Cluster::builder()
        .shards(3)
        .master_key(KEY)
        .access_log("off")
        .start()
        .await?;
    let api = Api::new(cluster.url(), Some(KEY));
    let mut last = None;
    for id in 0..TASKS {
        let path = "/indexes/tasks/documents?primaryKey=id";
        last = Some(api.post(path, &json!([{"id": id}])).await?);
    }
    let mut uid = 0;
    if let Some(last) = last {
        let task = api.settle(&last).await?;
        uid = task.get("uid").and_then(Value::as_u64).unwrap_or_default();
    }
    let shot = |port: u16, path: String| Shot {
        port,
        method: "GET",
        path,
        key: Some(KEY.to_owned()),
        body: Bytes::new(),
    };
    let (edge, node) = (cluster.layout().edge(), cluster.layout().node(0, 0));
    let seconds = Duration::from_secs(seconds).as_secs_f64() / 2.0;
    let mut rows = Vec::new();
    for clients in [1, 16] {
        let weft = fire(&shot(edge, format!("/tasks/{uid}")), clients, seconds).await?;
        let direct = fire(&shot(node, "/tasks/0".to_owned()), clients, seconds).await?;
        rows.push(
            Row::compared(
                format!("GET /tasks/{{uid}}, median, {clients} clients vs. one node's"),
                weft.quantile_ms(0.5),
                direct.quantile_ms(0.5),
                "ms",
            )
            .goal("1 ms or less with one client"),
        );
    }
    let lists = [
        ("GET /tasks?limit=20", ""),
        ("GET /tasks of one index", "&indexUids=tasks"),
        ("GET /tasks of an index without any", "&indexUids=none"),
        ("GET /tasks of a status", "&statuses=succeeded"),
        ("GET /tasks of a type", "&types=documentAdditionOrUpdate"),
        ("GET /tasks after a time", "&afterEnqueuedAt=2020-01-01"),
        ("GET /tasks before a time", "&beforeFinishedAt=2020-01-01"),
    ];
    let list = |query: &str| shot(edge, format!("/tasks?limit=20{query}"));
    let mut before = Vec::new();
    for (_, query) in lists {
        let load = fire(&list(query), 1, seconds / 2.0).await?;
        before.push(load.quantile_ms(0.5));
    }
    let small = restarted(&cluster).await?;
    cluster.merger().terminate()?;
    let file = cluster.folder().join("data/merger/weft.redb");
    multiply(&file, many).await?;
    let large = restarted(&cluster).await?;
    rows.push(
        Row::compared(
            format!("memory of a merger that was just started, with {many} tasks vs. {TASKS}"),
            large,
            small,
            "MiB",
        )
        .goal("150 MiB more, or less"),
    );
    for ((what, query), before) in lists.into_iter().zip(before) {
        let after = fire(&list(query), 1, seconds).await?.quantile_ms(0.5);
        let name = format!("{what}, median, {many} tasks vs. {TASKS}");
        rows.push(Row::compared(name, after, before, "ms").goal("≤ 2 ms for the first page"));
    }
    Ok(rows)
}

/// Starts the merger anew, and returns the memory that it takes when it answers, in MiB.
async fn restarted(cluster: &Cluster) -> Result<f64> {
    if cluster.merger().id().is_some() {
        cluster.merger().terminate()?;
    }
    cluster.merger().restart()?;
    cluster.wait_ready().await?;
    let bytes = cluster.merger().resident_bytes().context("no merger")?;
    Ok(bytes as f64 / f64::from(1 << 20))
}

/// Writes so many tasks into the file of a merger that doesn't run, each like the last one there.
async fn multiply(file: &Path, many: u32) -> Result<()> {
    let store = RedbStore::open(file)?;
    let tasks = store.range(PREFIX).await?;
    let (_, last) = tasks.last().context("no task")?;
    let mut record: Value = serde_json::from_slice(&last.value)?;
    let first = record.get("uid").and_then(Value::as_u64);
    let first = u32::try_from(first.context("a task without uid")?)? + 1;
    let uids: Vec<u32> = (first..first + many).collect();
    for uids in uids.chunks(AT_ONCE) {
        let mut changes = Vec::with_capacity(uids.len());
        for uid in uids {
            if let Some(field) = record.get_mut("uid") {
                *field = json!(uid);
            }
            let key = format!("{PREFIX}{uid:010}");
            changes.push(Change::put(key, serde_json::to_vec(&record)?));
        }
        store.commit(changes).await?;
    }
    Ok(())
}
