//! A gigabyte of NDJSON in one request: measures the merger's memory meanwhile, and whether other clients still get answers.
//!
//! The nodes are stand-ins that accept everything, so the figures are the merger's alone.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::stream;
use reqwest::Body;
use serde_json::Value;
use weft_cluster::{Process, StandInCluster};

use super::Row;
use super::load::{Shot, fire};

const BODY_BYTES: u64 = 1 << 30;
/// How much of the body is made at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How often other clients send a request.
const PROBE_EVERY: Duration = Duration::from_millis(5);

pub(super) async fn measure(seconds: u64) -> Result<Vec<Row>> {
    let cluster = StandInCluster::start(3, true, Vec::new()).await?;
    let url = cluster.url();
    let edge = cluster.layout().edge();
    let client = reqwest::Client::new();
    let create = r#"{"uid":"x","primaryKey":"id"}"#;
    let made = client
        .post(format!("{url}/indexes"))
        .header("content-type", "application/json")
        .body(create)
        .send()
        .await?;
    ensure!(made.status().is_success(), "{}", made.text().await?);
    let search = Shot {
        port: edge,
        method: "POST",
        path: "/indexes/x/search".to_owned(),
        key: None,
        body: Bytes::from_static(br#"{"q":"a"}"#),
    };
    let quiet = fire(&search, 1, seconds as f64 / 2.0).await?;
    let before = peak_bytes(cluster.merger())?;

    let begun = Instant::now();
    let import = tokio::spawn(async move {
        let reply = client
            .post(format!("{url}/indexes/x/documents"))
            .header("content-type", "application/x-ndjson")
            .body(Body::wrap_stream(stream::iter(Chunks::default())))
            .send()
            .await?;
        let status = reply.status();
        Ok::<_, reqwest::Error>((status, reply.text().await?))
    });
    let mut busy = super::load::Load::default();
    while !import.is_finished() {
        busy = busy.and(fire(&search, 1, 0.25).await?);
        tokio::time::sleep(PROBE_EVERY).await;
    }
    let (status, text) = import.await??;
    let took = begun.elapsed().as_secs_f64();
    ensure!(status == 202, "the import was answered {status}: {text}");
    let accepted: Value = serde_json::from_str(&text)?;
    ensure!(accepted.get("taskUid").is_some_and(Value::is_u64), "{text}");
    let arrived: u64 = cluster
        .nodes
        .iter()
        .flat_map(|node| node.take_seen())
        .filter(|seen| seen.path.contains("/documents"))
        .map(|seen| seen.body_bytes)
        .sum();
    ensure!(
        arrived >= BODY_BYTES - (1 << 20),
        "only {arrived} bytes reached the nodes"
    );
    let mib = f64::from(1 << 20);
    Ok(vec![
        Row::alone(
            "1 GB of NDJSON: peak memory of the merger",
            peak_bytes(cluster.merger())? / mib,
            "MiB",
        )
        .goal("≤ 256"),
        Row::alone("the merger's peak before the import", before / mib, "MiB"),
        Row::alone("1 GB of NDJSON: accepted by the nodes after", took, "s"),
        Row::compared(
            "a search during the import: 99th percentile vs. before",
            busy.quantile_ms(0.99),
            quiet.quantile_ms(0.99),
            "ms",
        ),
        Row::compared(
            "a search during the import: median vs. before",
            busy.quantile_ms(0.5),
            quiet.quantile_ms(0.5),
            "ms",
        ),
    ])
}

/// The highest resident memory of a process so far, in bytes.
fn peak_bytes(process: &Process) -> Result<f64> {
    let id = process.id().context("the merger has ended")?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    Ok(kib.context("the kernel reports no VmHWM")? * 1024.0)
}

/// The request body, generated while it is sent: invented films.
#[derive(Default)]
struct Chunks {
    made: u64,
    next_id: u64,
}

impl Iterator for Chunks {
    type Item = Result<Bytes, std::io::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.made >= BODY_BYTES {
            return None;
        }
        let mut chunk = String::with_capacity(CHUNK_BYTES + 1024);
        while chunk.len() < CHUNK_BYTES {
            let id = self.next_id;
            self.next_id += 1;
            chunk.push_str(&format!(
                "{{\"id\":{id},\"title\":\"Film number {id}\",\"overview\":\"{}\",\"year\":{},\"genres\":[\"drama\",\"{}\"],\"rating\":{}.{}}}\n",
                "Somebody goes somewhere and comes back another. ".repeat(8),
                1900 + id % 130,
                match id % 3 {
                    0 => "war",
                    1 => "love",
                    _ => "crime",
                },
                id % 10,
                id % 7,
            ));
        }
        self.made += chunk.len() as u64;
        Some(Ok(Bytes::from(chunk)))
    }
}
