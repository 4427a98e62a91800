//! What a cluster's size costs the merger and Envoy: searches over many shards and replicas that answer after a drawn time.
//!
//! The nodes are stand-ins, so all figures are Envoy's and the merger's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use weft_cluster::{Api, Edit, Process, Searches, StandInCluster, StandInOptions, Takes};
use weft_routing::table::RoutingTable;

use super::Row;
use super::filter_table::table_of;
use super::load::{Load, Shot, fire};
use super::usage::Usage;

/// How many turns each of two that are compared gets.
const TURNS: u64 = 4;
const CLIENTS: usize = 4;
/// How many hits a shard's answer has, and how long each is.
const HITS: usize = 20;
const HIT_BYTES: usize = 400;
/// An answer takes 5 ms on average, and one in a hundred 60 ms more.
const TAKES: Takes = Takes {
    least: Duration::from_millis(3),
    more: Duration::from_millis(2),
    slow_one_in: 100,
    slow: Duration::from_millis(60),
};
/// How many requests to nodes may be in flight: each takes connections of three processes, and a process may open so many files.
const MOST_REQUESTS: usize = 5_000;
/// How long answers take while many searches are in flight.
const HELD: Duration = Duration::from_secs(3);

/// Sizes of `scale`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Numbers of shards and replicas in `scale`, such as 3x1,10x2
    #[arg(
        long = "scale",
        value_delimiter = ',',
        value_parser = size,
        default_value = "3x1,3x2,3x5,10x2,30x2,100x1"
    )]
    sizes: Vec<Size>,
    /// How many searches are in flight at once where memory is measured in `scale`
    #[arg(long, default_value_t = 1_000)]
    in_flight: usize,
}

#[derive(Debug, Clone, Copy)]
struct Size {
    shards: u16,
    replicas: u16,
}

fn size(text: &str) -> Result<Size, String> {
    let parts = text.split_once('x');
    let numbers = parts.and_then(|(shards, replicas)| {
        Some(Size {
            shards: shards.parse().ok()?,
            replicas: replicas.parse().ok()?,
        })
    });
    numbers.ok_or_else(|| format!("`{text}` isn't SHARDSxREPLICAS"))
}

pub(super) async fn measure(
    seconds: u64,
    arguments: &ScaleArgs,
    indexes: usize,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut first = None;
    for size in &arguments.sizes {
        let raced = start(*size, true).await?;
        let plain = match size.replicas {
            1 => None,
            _ => Some(start(*size, false).await?),
        };
        searches(
            *size,
            &raced,
            plain.as_ref(),
            seconds,
            &mut first,
            &mut rows,
        )
        .await?;
        drop(plain);
        in_flight(*size, &raced, arguments.in_flight, &mut rows).await?;
    }
    table(indexes, &mut rows)?;
    Ok(rows)
}

/// A cluster of stand-ins, in which slow reads are raced by another replica, or aren't.
async fn start(size: Size, hedging: bool) -> Result<StandInCluster> {
    let off = |text: &str| {
        // Without the merger's wish, each try has all the time.
        text.replace(
            "mutations: [{ remove: x-forwarded-for }]",
            "mutations: [{ remove: x-forwarded-for }, { remove: x-envoy-upstream-rq-per-try-timeout-ms }]",
        )
        .replace("per_try_timeout: 0.5s", "per_try_timeout: 30s")
    };
    let cluster = StandInCluster::start_as(StandInOptions {
        shards: size.shards,
        replicas: size.replicas,
        filter: true,
        access_log: "off",
        merger_environment: vec![("WEFT_ANSWER_CACHE_BYTES".to_owned(), "0".to_owned())],
        edit_envoy: (!hedging).then(|| Edit(Arc::new(off))),
    })
    .await?;
    let api = Api::new(cluster.url(), None);
    let create = json!({"uid": "x", "primaryKey": "id"});
    api.succeed(&api.post("/indexes", &create).await?).await?;
    answer_in(&cluster, TAKES);
    Ok(cluster)
}

/// Sets how long all nodes take for an answer with hits.
fn answer_in(cluster: &StandInCluster, takes: Takes) {
    for (number, node) in cluster.nodes.iter().enumerate() {
        let answer = answer_of(number);
        node.answer_searches(Searches { answer, takes });
    }
}

fn answer_of(node: usize) -> Bytes {
    let hit = |at: usize| {
        json!({
            "id": node * HITS + at, "title": format!("document {at}"), "text": "x".repeat(HIT_BYTES),
            "_rankingScore": 1.0 - at as f64 / 100.0,
            "_rankingScoreDetails": {
                "words": {"order": 0, "matchingWords": 1, "maxMatchingWords": 1, "score": 1.0},
                "typo": {"order": 1, "typoCount": at / 10, "maxTypoCount": 2, "score": 1.0 - (at / 10) as f64 / 3.0},
                "proximity": {"order": 2, "score": 1.0},
            },
        })
    };
    let hits: Vec<Value> = (0..HITS).map(hit).collect();
    let answer = json!({
        "hits": hits, "query": "a", "processingTimeMs": 1, "limit": HITS, "offset": 0, "estimatedTotalHits": HITS,
    });
    Bytes::from(answer.to_string())
}

fn shot(cluster: &StandInCluster) -> Shot {
    Shot {
        port: cluster.layout().edge(),
        method: "POST",
        path: "/indexes/x/search".to_owned(),
        key: None,
        body: Bytes::from_static(br#"{"q":"a","limit":20}"#),
    }
}

fn found_bytes(cluster: &StandInCluster) -> f64 {
    let nodes = cluster.nodes.iter();
    nodes.map(|node| node.take_found_bytes()).sum::<u64>() as f64
}

/// What the smallest size costs, with which the others are compared.
#[derive(Clone, Copy)]
struct First {
    merger_us: f64,
    envoy_us: f64,
    bytes: f64,
}

async fn searches(
    size: Size,
    raced: &StandInCluster,
    plain: Option<&StandInCluster>,
    seconds: u64,
    first: &mut Option<First>,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let turn = seconds as f64 / TURNS as f64;
    let (mut load, mut without) = (Load::default(), Load::default());
    let (mut merger, mut envoy) = (Usage::default(), Usage::default());
    found_bytes(raced);
    for _ in 0..TURNS {
        let before = (Usage::of([raced.merger()])?, Usage::of([raced.envoy()])?);
        load = load.and(fire(&shot(raced), CLIENTS, turn).await?);
        merger = merger + (Usage::of([raced.merger()])? - before.0);
        envoy = envoy + (Usage::of([raced.envoy()])? - before.1);
        if let Some(plain) = plain {
            without = without.and(fire(&shot(plain), CLIENTS, turn).await?);
        }
    }
    let count = load.answers().max(1) as f64;
    let cost = First {
        merger_us: merger.cpu_us / count,
        envoy_us: envoy.cpu_us / count,
        bytes: found_bytes(raced) / count,
    };
    let of = *first.get_or_insert(cost);
    let name = format!("{} × {}", size.shards, size.replicas);
    let row = |what: &str, value, reference, unit| {
        Row::compared(format!("{name}: {what}"), value, reference, unit)
    };
    rows.push(row(
        "merger's processor time a search vs. the first size",
        cost.merger_us,
        of.merger_us,
        "µs",
    ));
    rows.push(row(
        "Envoy's processor time a search vs. the first size",
        cost.envoy_us,
        of.envoy_us,
        "µs",
    ));
    rows.push(row(
        "bytes from nodes a search vs. the first size",
        cost.bytes / 1024.0,
        of.bytes / 1024.0,
        "KiB",
    ));
    rows.push(Row::alone(
        format!("{name}: median"),
        load.quantile_ms(0.5),
        "ms",
    ));
    let p99 = load.quantile_ms(0.99);
    rows.push(match plain {
        Some(_) => row(
            "p99, slow replicas raced vs. not",
            p99,
            without.quantile_ms(0.99),
            "ms",
        ),
        None => Row::alone(format!("{name}: p99"), p99, "ms"),
    });
    Ok(())
}

/// The memory of Envoy and merger while so many searches wait for their nodes.
async fn in_flight(
    size: Size,
    cluster: &StandInCluster,
    count: usize,
    rows: &mut Vec<Row>,
) -> Result<()> {
    answer_in(
        cluster,
        Takes {
            least: HELD,
            ..Takes::default()
        },
    );
    let mib = |process: &Process| -> Result<f64> {
        let bytes = process.resident_bytes().context("a process has ended")?;
        Ok(bytes as f64 / f64::from(1 << 20))
    };
    let count = count.min(MOST_REQUESTS / usize::from(size.shards.max(1)));
    let before = (mib(cluster.merger())?, mib(cluster.envoy())?);
    let search = shot(cluster);
    let loading = tokio::spawn(async move { fire(&search, count, HELD.as_secs_f64()).await });
    let begun = Instant::now();
    let mut most = before;
    while !loading.is_finished() {
        most.0 = most.0.max(mib(cluster.merger())?);
        most.1 = most.1.max(mib(cluster.envoy())?);
        ensure!(begun.elapsed() < HELD * 20, "the searches don't end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loading.await??;
    let name = format!("{} × {}: {count} in flight", size.shards, size.replicas);
    for (what, most, before) in [("merger", most.0, before.0), ("Envoy", most.1, before.1)] {
        let what = format!("{name}: memory of the {what} vs. before");
        rows.push(Row::compared(what, most, before, "MiB"));
    }
    Ok(())
}

/// What a routing table of many indexes takes: as JSON, and the time to read it, as each filter's worker does.
fn table(indexes: usize, rows: &mut Vec<Row>) -> Result<()> {
    let table = table_of(indexes)?;
    let begun = Instant::now();
    let json = table.to_json()?;
    let written = begun.elapsed();
    let begun = Instant::now();
    let read = RoutingTable::from_json(json.as_bytes())?;
    let took = begun.elapsed();
    ensure!(read.indexes.len() == indexes, "indexes are missing");
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let name = format!("routing table of {indexes} indexes");
    rows.push(Row::alone(
        format!("{name}: as JSON"),
        json.len() as f64 / f64::from(1 << 20),
        "MiB (16 are the most)",
    ));
    rows.push(Row::alone(format!("{name}: written"), ms(written), "ms"));
    rows.push(Row::alone(format!("{name}: read"), ms(took), "ms"));
    Ok(())
}
