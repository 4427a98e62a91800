//! Writes through Weft compared with writes to one node directly: imports, many small writers, and a single writer.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use reqwest::Method;
use serde_json::json;
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Cluster, Deadline, Single, until};

use super::filter_cost::{Filter, Front, front};
use super::load::{Load, Shot, fire};
use super::usage::Usage;
use super::{Row, stub};

const KEY: &str = "a-master-key-for-measuring";
const CLIENTS: usize = 64;
/// How many turns each of the two gets.
const TURNS: u64 = 3;
/// How often the films are imported, each time with other ids.
const COPIES: usize = 4;

pub(super) async fn measure(seconds: u64) -> Result<Vec<Row>> {
    let mut rows = imports().await?;
    rows.extend(small_writes(seconds).await?);
    Ok(rows)
}

/// Documents per second until the import's task has succeeded.
async fn imports() -> Result<Vec<Row>> {
    let set = DataSet::movies()?;
    let bodies: Vec<String> = (0..COPIES).map(|copy| renamed(&set, copy)).collect();
    let count = (set.documents.len() * COPIES) as f64;
    let mut rows = Vec::new();
    for shards in [1, 2, 4] {
        let single = Single::start(Some(KEY)).await?;
        let alone = import(&Api::new(single.url(), Some(KEY)), &bodies).await?;
        drop(single);
        let cluster = Cluster::builder()
            .shards(shards)
            .master_key(KEY)
            .access_log("off")
            .start()
            .await?;
        let weft = import(&Api::new(cluster.url(), Some(KEY)), &bodies).await?;
        rows.push(Row::compared(
            format!("import into {shards} shard(s), until indexed vs. one node"),
            count / weft,
            count / alone,
            "documents/s",
        ));
    }
    Ok(rows)
}

/// The films as NDJSON, with other ids for each copy.
pub(super) fn renamed(set: &DataSet, copy: usize) -> String {
    let lines = set.documents.iter().enumerate().map(|(place, document)| {
        let mut document = document.clone();
        if let Some(id) = document.get_mut(set.primary_key) {
            *id = json!(format!("{copy}-{place}"));
        }
        format!("{document}\n")
    });
    lines.collect()
}

async fn import(api: &Api, bodies: &[String]) -> Result<f64> {
    let create = json!({"uid": "x", "primaryKey": DataSet::movies()?.primary_key});
    api.succeed(&api.post("/indexes", &create).await?).await?;
    let begun = Instant::now();
    let mut accepted = Vec::new();
    for body in bodies {
        let ndjson = [("content-type", "application/x-ndjson")];
        let reply = api
            .send(Method::POST, "/indexes/x/documents", &ndjson, body.clone())
            .await?;
        accepted.push(reply);
    }
    for reply in &accepted {
        api.succeed(reply).await?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn shot(port: u16) -> Shot {
    Shot {
        port,
        method: "POST",
        path: "/indexes/x/documents".to_owned(),
        key: Some(KEY.to_owned()),
        body: Bytes::from_static(br#"{"id":7,"title":"a small document","year":1979}"#),
    }
}

/// Many small writers and a single one on one shard: batched by the merger, and directly through the filter.
async fn small_writes(seconds: u64) -> Result<Vec<Row>> {
    let cluster = |direct: bool| {
        Cluster::builder()
            .shards(1)
            .master_key(KEY)
            .access_log("off")
            .merger_env("WEFT_DIRECT_WRITES", direct.to_string())
            .start()
    };
    let (batched, direct_writes) = (cluster(false).await?, cluster(true).await?);
    let single = Single::start(Some(KEY)).await?;
    let trivial: Front = front(Filter::Weft, stub::WRITES).await?;
    for url in [batched.url(), direct_writes.url(), single.url()] {
        let api = Api::new(url, Some(KEY));
        let create = json!({"uid": "x", "primaryKey": "id"});
        api.succeed(&api.post("/indexes", &create).await?).await?;
    }
    let alone = single.url().rsplit(':').next().map(str::parse::<u16>);
    let alone = alone.transpose()?.unwrap_or_default();
    let ports = [
        batched.layout().edge(),
        direct_writes.layout().edge(),
        alone,
        trivial.port,
    ];
    let [batched_many, direct_many, node_many, trivial_many] =
        by_turns(ports, CLIENTS, seconds).await?;
    let [batched_one, direct_one, node_one, _] = by_turns(ports, 1, seconds).await?;
    let mut rows = processor_time(&batched, seconds).await?;
    for (name, many, one) in [
        ("batched by the merger", &batched_many, &batched_one),
        ("directly from the filter", &direct_many, &direct_one),
    ] {
        rows.push(
            Row::compared(
                format!("{CLIENTS} writers, {name} vs. one node"),
                many.rate(),
                node_many.rate(),
                "writes/s",
            )
            .goal("≥ 5"),
        );
        rows.push(
            Row::compared(
                format!("{CLIENTS} writers, {name} vs. a trivial upstream"),
                many.rate(),
                trivial_many.rate(),
                "writes/s",
            )
            .goal("≥ 0.5"),
        );
        rows.push(
            Row::compared(
                format!("one writer, {name}: median vs. one node"),
                one.quantile_ms(0.5),
                node_one.quantile_ms(0.5),
                "ms",
            )
            .goal("≤ 2.5"),
        );
    }
    Ok(rows)
}

/// What a small write costs the merger, with few and many writers.
async fn processor_time(cluster: &Cluster, seconds: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let port = cluster.layout().edge();
    for clients in [1, 8, CLIENTS] {
        let before = Usage::of([cluster.merger()])?;
        let load = fire(&shot(port), clients, seconds as f64).await?;
        idle(port).await?;
        let used = Usage::of([cluster.merger()])? - before;
        let each = used.for_each(load.answers().max(1) as f64);
        let what = format!("{clients} writer(s), batched: processor time of the merger a write");
        rows.push(Row::alone(what, each.cpu_us, "µs").goal("50 µs or less with 64"));
        let what = format!("{clients} writer(s), batched: wakeups of the merger a write");
        rows.push(Row::alone(what, each.wakeups, ""));
    }
    Ok(rows)
}

async fn by_turns(ports: [u16; 4], clients: usize, seconds: u64) -> Result<[Load; 4]> {
    let mut loads: [Load; 4] = Default::default();
    for _ in 0..TURNS {
        for (load, port) in loads.iter_mut().zip(ports) {
            let more = fire(&shot(port), clients, seconds as f64 / TURNS as f64).await?;
            // Unfinished indexing would slow down the next turn.
            idle(port).await?;
            *load = std::mem::take(load).and(more);
        }
    }
    Ok(loads)
}

/// Waits until the program on this port has nothing left to do.
pub(super) async fn idle(port: u16) -> Result<()> {
    let api = Api::new(format!("http://127.0.0.1:{port}"), Some(KEY));
    let deadline = Deadline::after(Duration::from_secs(120));
    until("an idle node", deadline, || async {
        let open = "/tasks?statuses=enqueued,processing&limit=1";
        let reply = api.get(open).await.map_err(|error| error.line())?;
        match reply.at("/total").as_u64() {
            // The trivial upstream has no tasks.
            None | Some(0) => Ok(()),
            Some(left) => Err(format!("{left} tasks are open")),
        }
    })
    .await?;
    Ok(())
}
