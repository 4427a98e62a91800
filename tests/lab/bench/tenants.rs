//! Many small indexes: how fast they are made, how evenly they lie, and what so many cost Envoy and the merger.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Process};
use weft_routing::table::RoutingTable;

use super::Row;
use super::usage::Usage;

const KEY: &str = "a-master-key-for-measuring";
const SHARDS: u16 = 3;
const CLIENTS: usize = 16;
/// How many documents an index has on average.
const MEAN: usize = 4;
/// The text of a document.
const TEXT: &str = "Amber is fossilised tree resin, valued for its colour and its warmth since the Stone Age; it is made into \
    ornaments, and burnt as incense. Pieces with insects in them are sought by collectors and by palaeontologists alike.";
const MIB: f64 = 1_048_576.0;

pub(super) async fn measure(seconds: u64, indexes: usize) -> Result<Vec<Row>> {
    let cluster = Cluster::builder()
        .shards(SHARDS)
        .master_key(KEY)
        .access_log("off")
        .start()
        .await?;
    let api = Api::new(cluster.url(), Some(KEY));
    let mut rows = Vec::new();
    let idle = idle(&cluster, seconds).await?;
    let before = memory(&cluster)?;
    let first = indexes / 2;
    let made = for_all(0..first, |number| create(&api, number)).await?;
    rows.push(Row::alone(
        format!("{first} indexes made by {CLIENTS} clients, each waiting for its task"),
        first as f64 / made.as_secs_f64(),
        "indexes/s",
    ));
    spread(&cluster, "after that", false, &mut rows).await?;
    for_all(0..first, |number| load(&api, number, indexes)).await?;
    spread(&cluster, "when they have documents", true, &mut rows).await?;
    let api = &api;
    let both = |number| async move {
        create(api, number).await?;
        load(api, number, indexes).await
    };
    let more = for_all(first..indexes, both).await?;
    rows.push(Row::alone(
        format!("{} more, made and filled", indexes - first),
        (indexes - first) as f64 / more.as_secs_f64(),
        "indexes/s",
    ));
    spread(&cluster, "in the end", true, &mut rows).await?;
    let after = memory(&cluster)?;
    for (what, after, before) in [
        ("merger", after.0, before.0),
        ("Envoy, two workers", after.1, before.1),
    ] {
        let what = format!("memory of the {what} with {indexes} indexes vs. none");
        rows.push(Row::compared(what, after, before, "MiB"));
    }
    table(&cluster, api, indexes, &mut rows).await?;
    polling(&cluster, seconds, idle, &mut rows).await?;
    Ok(rows)
}

fn uid(number: usize) -> String {
    format!("tenant-{number:05}")
}

async fn create(api: &Api, number: usize) -> Result<()> {
    let body = json!({"uid": uid(number), "primaryKey": "id", "sharding": {"shardCount": 1}});
    let made = api.post("/indexes", &body).await?;
    ensure!(made.status == 202, "{}", made.text);
    api.succeed(&made).await?;
    Ok(())
}

/// Few have many documents and many have few: the sizes follow Zipf's law, in no order.
async fn load(api: &Api, number: usize, indexes: usize) -> Result<()> {
    let harmonic = (indexes.max(2) as f64).ln();
    let rank = number * 7_919 % indexes.max(1) + 1;
    let count = (MEAN * indexes) as f64 / harmonic / rank as f64;
    let count = (count as usize).max(1);
    let documents: Value = (0..count)
        .map(|id| json!({"id": id, "tenant": number, "text": TEXT}))
        .collect();
    let path = format!("/indexes/{}/documents", uid(number));
    let added = api.post(&path, &documents).await?;
    ensure!(added.status == 202, "{}", added.text);
    api.succeed(&added).await?;
    Ok(())
}

/// Does something for each number, by several clients; returns how long all of it took.
async fn for_all<F>(numbers: std::ops::Range<usize>, each: impl Fn(usize) -> F) -> Result<Duration>
where
    F: Future<Output = Result<()>>,
{
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(async |client| {
        for number in numbers.clone().skip(client).step_by(CLIENTS) {
            each(number).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    try_join_all(clients).await?;
    Ok(begun.elapsed())
}

/// How much fuller the fullest shard is than the mean.
async fn spread(cluster: &Cluster, when: &str, bytes: bool, rows: &mut Vec<Row>) -> Result<()> {
    let (mut counts, mut sizes) = (Vec::new(), Vec::new());
    for shard in 0..SHARDS {
        let node = Api::new(cluster.node_url(shard, 0), Some(KEY));
        let stats = node.get("/stats").await?;
        let indexes = stats.at("/indexes").as_object().context("no statistics")?;
        let number = |index: &Value, name: &str| index.get(name).and_then(Value::as_u64);
        let size = |index: &Value| {
            let documents = number(index, "numberOfDocuments").unwrap_or(0);
            let mean = number(index, "avgDocumentSize").unwrap_or(0);
            let raw = number(index, "rawDocumentDbSize").unwrap_or(0);
            raw.max(documents * mean)
        };
        counts.push(indexes.len() as f64);
        sizes.push(indexes.values().map(size).sum::<u64>() as f64 / MIB);
    }
    let row = |what: &str, of: &[f64], unit| {
        let most = of.iter().copied().fold(0.0, f64::max);
        let mean = of.iter().sum::<f64>() / of.len() as f64;
        Row::compared(
            format!("fullest shard by {what}, {when}, vs. mean"),
            most,
            mean,
            unit,
        )
        .goal("≤ 1.2")
    };
    rows.push(row("indexes", &counts, "indexes"));
    if bytes {
        rows.push(row("bytes", &sizes, "MiB"));
    }
    Ok(())
}

/// The memory of merger and Envoy.
fn memory(cluster: &Cluster) -> Result<(f64, f64)> {
    let mib = |process: &Process| -> Result<f64> {
        let bytes = process.resident_bytes().context("a process has ended")?;
        Ok(bytes as f64 / MIB)
    };
    Ok((mib(cluster.merger())?, mib(cluster.front().envoy())?))
}

/// The table's size, and that of the change that one index more makes.
async fn table(cluster: &Cluster, api: &Api, indexes: usize, rows: &mut Vec<Row>) -> Result<()> {
    let merger = Api::new(cluster.merger_url(), None);
    let whole = merger.get("/_weft/table").await?;
    let epoch = RoutingTable::from_json(whole.text.as_bytes())?.epoch;
    create(api, indexes).await?;
    let path = format!("/_weft/table?epoch={}&changes=true", epoch.0);
    let change = merger.get(&path).await?;
    let kib = |text: &str| text.len() as f64 / 1024.0;
    rows.push(Row::compared(
        "one index more: bytes told to a filter vs. the whole table",
        kib(&change.text),
        kib(&whole.text),
        "KiB",
    ));
    let path = format!("/indexes/{}", uid(indexes));
    let gone = api.delete(&path).await?;
    api.succeed(&gone).await?;
    Ok(())
}

/// The processor time of merger and Envoy in a second without requests, in milliseconds, and the polls in it.
async fn idle(cluster: &Cluster, seconds: u64) -> Result<[f64; 3]> {
    let polls = async || -> Result<f64> {
        let merger = Api::new(cluster.merger_url(), None);
        let metrics = merger.get("/_weft/metrics").await?.text;
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with("weft_merger_table_polls_total"));
        let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(counts.sum())
    };
    let usage = || -> Result<(Usage, Usage)> {
        let envoy = Usage::of([cluster.front().envoy()])?;
        Ok((Usage::of([cluster.merger()])?, envoy))
    };
    let (before, polls_before, begun) = (usage()?, polls().await?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let took = begun.elapsed().as_secs_f64();
    let after = usage()?;
    let each = |after: Usage, before: Usage| (after - before).cpu_us / 1e3 / took;
    Ok([
        each(after.0, before.0),
        each(after.1, before.1),
        (polls().await? - polls_before) / took,
    ])
}

async fn polling(
    cluster: &Cluster,
    seconds: u64,
    before: [f64; 3],
    rows: &mut Vec<Row>,
) -> Result<()> {
    let after = idle(cluster, seconds).await?;
    let units = [
        "ms of processor time/s",
        "ms of processor time/s",
        "polls/s",
    ];
    let what = [
        "the merger while idle",
        "Envoy while idle",
        "polls of the table, each of which brings nothing",
    ];
    for (((what, after), before), unit) in what.into_iter().zip(after).zip(before).zip(units) {
        rows.push(Row::compared(
            format!("{what} vs. without indexes"),
            after,
            before,
            unit,
        ));
    }
    Ok(())
}
