//! Searches as people type them: each query letter by letter, popular queries more often. Once with remembered answers, and once
//! with a header by which each search is answered by the nodes; then both again while something is written every second.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde_json::{Value, json};
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Cluster};

use super::Row;
use super::fan_out::{KEY, fill};
use super::load::{Load, Shot, fire_in_turn};
use crate::say;

/// How many turns each of the two gets.
const TURNS: u64 = 4;
const CLIENTS: usize = 8;
/// How many queries each client types before it begins anew.
const TYPED: usize = 400;
/// The most documents that are searched.
const MOST_DOCUMENTS: usize = 10_000;
/// With this header, the nodes are asked.
const ASK_NODES: &[(&str, &str)] = &[("x-weft-read", "primary")];

pub(super) async fn measure(seconds: u64) -> Result<Vec<Row>> {
    let (mut set, queries) = queries()?;
    set.documents.truncate(MOST_DOCUMENTS);
    let cluster = Cluster::builder()
        .shards(3)
        .master_key(KEY)
        .access_log("off")
        .start()
        .await?;
    let api = Api::new(cluster.url(), Some(KEY));
    fill(&api, &set).await?;
    let lists: Vec<Vec<Shot>> = (0..CLIENTS)
        .map(|client| typed(&queries, client as u64))
        .map(|texts| {
            let shot = |text| Shot {
                port: cluster.layout().edge(),
                method: "POST",
                path: format!("/indexes/{}/search", set.index),
                key: Some(KEY.to_owned()),
                body: Bytes::from(json!({"q": text, "limit": 20}).to_string()),
            };
            texts.into_iter().map(shot).collect()
        })
        .collect();
    let mut rows = Vec::new();
    compare(&mut rows, "nothing is written", &lists, seconds).await?;
    let writing = tokio::spawn(write_every_second(api, set.clone()));
    compare(&mut rows, "a write every second", &lists, seconds).await?;
    writing.abort();
    Ok(rows)
}

async fn compare(rows: &mut Vec<Row>, what: &str, lists: &[Vec<Shot>], seconds: u64) -> Result<()> {
    for clients in [1, CLIENTS] {
        let lists = lists.get(..clients).unwrap_or(lists);
        let mut loads: [Load; 2] = Default::default();
        for _ in 0..TURNS {
            for (load, headers) in loads.iter_mut().zip([&[][..], ASK_NODES]) {
                let more = fire_in_turn(lists, headers, seconds as f64 / TURNS as f64).await?;
                *load = std::mem::take(load).and(more);
            }
        }
        let [remembered, asked] = loads;
        let name = format!("{what}, {clients} client(s)");
        rows.push(
            Row::compared(
                format!("{name}: median"),
                remembered.quantile_ms(0.5),
                asked.quantile_ms(0.5),
                "ms",
            )
            .goal("≤ 0.25"),
        );
        rows.push(
            Row::compared(
                format!("{name}: answers"),
                remembered.rate(),
                asked.rate(),
                "1/s",
            )
            .goal("≥ 10 for hits"),
        );
    }
    Ok(())
}

/// Documents, and queries over them in the order of their popularity: Debian's packages with queries that people typed, where the
/// file with them is there, and otherwise films with their titles.
fn queries() -> Result<(DataSet, Vec<String>)> {
    let file = PathBuf::from("../shared/golden/queries-debian.json");
    if let (Ok(text), Ok(set)) = (std::fs::read(file), DataSet::debian()) {
        return Ok((set, serde_json::from_slice(&text)?));
    }
    let set = DataSet::movies()?;
    let title = |document: &Value| document.get(set.title)?.as_str().map(str::to_owned);
    let queries = set.documents.iter().filter_map(title).take(500).collect();
    Ok((set, queries))
}

/// What a client asks while it types queries: the n-th most popular one is typed 1/n times as often as the first.
fn typed(queries: &[String], seed: u64) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let weights: Vec<f64> = (1..=queries.len()).map(|rank| 1.0 / rank as f64).collect();
    let all: f64 = weights.iter().sum();
    let mut texts = Vec::new();
    for _ in 0..TYPED {
        let mut place = random.f64() * all;
        let rank = weights.iter().position(|weight| {
            place -= weight;
            place <= 0.0
        });
        let query = rank.and_then(|rank| queries.get(rank));
        let letters: Vec<char> = query.map_or("", String::as_str).chars().collect();
        texts.extend((1..=letters.len()).map(|end| letters.iter().take(end).collect::<String>()));
    }
    texts
}

/// Writes one of the documents again each second.
async fn write_every_second(api: Api, set: DataSet) {
    let path = format!("/indexes/{}/documents", set.index);
    for document in set.documents.iter().cycle() {
        if let Err(error) = api.post(&path, &json!([document])).await {
            return say(format_args!("a write failed: {error}"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
