//! One merger with its own store, one with etcd, and three with etcd: what sharing the state costs, and what more pairs of Envoy and
//! merger bring.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::json;
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Cluster};

use super::Row;
use super::fan_out::{KEY, fill};
use super::load::{Load, Shot, fire};
use super::writes::{idle, renamed};

/// Small writers, and searchers at one edge.
const WRITERS: usize = 64;
const SEARCHERS: usize = 8;
const TURNS: u64 = 4;
/// How often the films are imported.
const COPIES: usize = 2;
/// Commits to etcd for the median of one.
const COMMITS: usize = 200;

/// A way to a cluster's documents.
struct Way {
    name: &'static str,
    port: u16,
}

pub(super) async fn measure(seconds: u64) -> Result<Vec<Row>> {
    let set = DataSet::movies()?;
    let cluster = |mergers: u16, etcd: u16| {
        Cluster::builder()
            .shards(2)
            .mergers(mergers)
            .etcd(etcd)
            .etcd_syncs(true)
            .master_key(KEY)
            .access_log("off")
            .merger_env("WEFT_ANSWER_CACHE_BYTES", "0")
            .start()
    };
    let alone = cluster(1, 0).await?;
    let with_etcd = cluster(1, 1).await?;
    let three = cluster(3, 3).await?;
    for cluster in [&alone, &with_etcd, &three] {
        let api = Api::new(cluster.url(), Some(KEY));
        fill(&api, &set).await?;
        // On one shard, so that small writes go together as they would anywhere.
        let small = json!({"uid": "small", "primaryKey": "id", "sharding": {"shardCount": 1}});
        api.succeed(&api.post("/indexes", &small).await?).await?;
    }
    let leader = three.wait_leader(None).await?;
    let edge = |cluster: &Cluster, pair: usize| cluster.pair(pair).layout().edge();
    let ways = [
        Way {
            name: "one merger",
            port: edge(&alone, 0),
        },
        Way {
            name: "one with etcd",
            port: edge(&with_etcd, 0),
        },
        Way {
            name: "three, by the leader",
            port: edge(&three, leader),
        },
        Way {
            name: "three, by a follower",
            port: edge(&three, (leader + 1) % 3),
        },
    ];
    let mut rows = small_writes(&ways, &with_etcd, seconds).await?;
    rows.extend(imports(&ways, &set).await?);
    rows.extend(searches(&ways, &set, seconds).await?);
    let edges: Vec<u16> = (0..3).map(|pair| edge(&three, pair)).collect();
    rows.extend(pairs(&edges, &set, seconds).await?);
    Ok(rows)
}

async fn small_writes(ways: &[Way], with_etcd: &Cluster, seconds: u64) -> Result<Vec<Row>> {
    let shot = |port: u16| Shot {
        port,
        method: "POST",
        path: "/indexes/small/documents".to_owned(),
        key: Some(KEY.to_owned()),
        body: Bytes::from_static(br#"{"id":7,"title":"a small document","year":1979}"#),
    };
    let mut rows = Vec::new();
    let many = by_turns(ways, shot, WRITERS, seconds).await?;
    let one = by_turns(ways, shot, 1, seconds).await?;
    let (Some(many_alone), Some(one_alone)) = (many.first(), one.first()) else {
        return Ok(rows);
    };
    for (way, load) in ways.iter().zip(&many).skip(1) {
        let what = format!("{WRITERS} writers: {} vs. without etcd", way.name);
        let row = Row::compared(what, load.rate(), many_alone.rate(), "writes/s");
        rows.push(row.goal("≥ 0.7"));
    }
    for (way, load) in ways.iter().zip(&one).skip(1) {
        rows.push(Row::compared(
            format!("one writer: median, {} vs. without etcd", way.name),
            load.quantile_ms(0.5),
            one_alone.quantile_ms(0.5),
            "ms",
        ));
    }
    if let Some(load) = one.get(1) {
        let more = load.quantile_ms(0.5) - one_alone.quantile_ms(0.5);
        let commit = commit_ms(with_etcd).await?;
        let what = "one writer: what etcd adds vs. one commit to etcd";
        rows.push(Row::compared(what, more, commit, "ms").goal("≤ 1"));
    }
    Ok(rows)
}

/// The median time of one commit to the only member of etcd, by its gateway for JSON.
async fn commit_ms(cluster: &Cluster) -> Result<f64> {
    let (clients, _) = cluster.layout().etcd(0);
    let etcd = Api::new(format!("http://127.0.0.1:{clients}"), None);
    // The key and the value `bench`.
    let put = json!({"key": "YmVuY2g=", "value": "YmVuY2g="});
    let mut times = Vec::new();
    for _ in 0..COMMITS {
        let begun = Instant::now();
        let answer = etcd.post("/v3/kv/put", &put).await?;
        anyhow::ensure!(answer.status == 200, "etcd answers {}", answer.text);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let median: &Duration = times.get(COMMITS / 2).context("no commit")?;
    Ok(median.as_secs_f64() * 1e3)
}

/// Documents a second until they are indexed.
async fn imports(ways: &[Way], set: &DataSet) -> Result<Vec<Row>> {
    let bodies: Vec<String> = (0..COPIES).map(|copy| renamed(set, copy)).collect();
    let count = (set.documents.len() * COPIES) as f64;
    let mut rates = Vec::new();
    for (number, way) in ways.iter().enumerate() {
        let api = Api::new(format!("http://127.0.0.1:{}", way.port), Some(KEY));
        // Two of the ways lead to the same cluster.
        let index = format!("import{number}");
        let create = json!({"uid": index, "primaryKey": set.primary_key});
        api.succeed(&api.post("/indexes", &create).await?).await?;
        let path = format!("/indexes/{index}/documents");
        let ndjson = [("content-type", "application/x-ndjson")];
        let begun = Instant::now();
        let mut accepted = Vec::new();
        for body in &bodies {
            accepted.push(api.send(Method::POST, &path, &ndjson, body.clone()).await?);
        }
        for reply in &accepted {
            api.succeed(reply).await?;
        }
        rates.push(count / begun.elapsed().as_secs_f64());
        api.succeed(&api.delete(&format!("/indexes/{index}")).await?)
            .await?;
    }
    let alone = rates.first().copied().unwrap_or_default();
    let rows = ways.iter().zip(rates).skip(1).map(|(way, rate)| {
        let what = format!("import: {} vs. without etcd", way.name);
        Row::compared(what, rate, alone, "documents/s")
    });
    Ok(rows.collect())
}

fn search(set: &DataSet, port: u16) -> Shot {
    Shot {
        port,
        method: "POST",
        path: format!("/indexes/{}/search", set.index),
        key: Some(KEY.to_owned()),
        body: Bytes::from_static(br#"{"q":"star war","limit":20}"#),
    }
}

async fn searches(ways: &[Way], set: &DataSet, seconds: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for clients in [1, SEARCHERS] {
        let loads = by_turns(ways, |port| search(set, port), clients, seconds).await?;
        let [alone, with_etcd, leader, follower] = loads.as_slice() else {
            continue;
        };
        for (what, one, other, goal) in [
            ("one with etcd vs. without", with_etcd, alone, None),
            (
                "through a follower vs. the leader",
                follower,
                leader,
                Some("0.95 to 1.05"),
            ),
        ] {
            let row = Row::compared(
                format!("searches, {clients} client(s): median, {what}"),
                one.quantile_ms(0.5),
                other.quantile_ms(0.5),
                "ms",
            );
            rows.push(match goal {
                Some(goal) => row.goal(goal),
                None => row,
            });
        }
    }
    Ok(rows)
}

/// Searches a second with the load spread over one, two and three pairs.
async fn pairs(edges: &[u16], set: &DataSet, seconds: u64) -> Result<Vec<Row>> {
    let mut rates = vec![0.0; edges.len()];
    for _ in 0..TURNS {
        for (count, rate) in (1..=edges.len()).zip(rates.iter_mut()) {
            let share = seconds as f64 / TURNS as f64;
            let shots: Vec<Shot> = edges
                .iter()
                .take(count)
                .map(|port| search(set, *port))
                .collect();
            let loads = shots.iter().map(|shot| fire(shot, SEARCHERS, share));
            let loads = try_join_all(loads).await?;
            *rate += loads.iter().map(Load::rate).sum::<f64>() / TURNS as f64;
        }
    }
    let one = rates.first().copied().unwrap_or_default();
    let rows = (1..).zip(rates).skip(1).map(|(count, rate)| {
        let what = format!("searches by {count} pairs, {SEARCHERS} clients each, vs. one pair");
        Row::compared(what, rate, one, "1/s")
    });
    Ok(rows.collect())
}

async fn by_turns(
    ways: &[Way],
    shot: impl Fn(u16) -> Shot,
    clients: usize,
    seconds: u64,
) -> Result<Vec<Load>> {
    let mut loads: Vec<Load> = ways.iter().map(|_| Load::default()).collect();
    for _ in 0..TURNS {
        for (load, way) in loads.iter_mut().zip(ways) {
            let share = seconds as f64 / TURNS as f64;
            let more = fire(&shot(way.port), clients, share).await?;
            // Unfinished indexing would slow down the next turn.
            idle(way.port).await?;
            *load = std::mem::take(load).and(more);
        }
    }
    Ok(loads)
}
