//! `weft import` from a running node, compared with the same documents written to the same cluster by one client that has them.
//!
//! Both begin with an empty cluster, and end when everything is indexed there. They take turns.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::json;
use tokio::process::Command;
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Binaries, Cluster, Single};

use super::Row;
use super::fan_out::fill;
use super::usage::Usage;

const KEY: &str = "a-master-key-for-measuring";
/// How many turns each of the two gets.
const TURNS: usize = 3;
/// How large a request of the client is: as those of the import.
const BATCH_BYTES: usize = 16 << 20;

/// How long one way took, and what it cost all processes.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    seconds: f64,
    cpu_us: f64,
}

pub(super) async fn measure(documents: usize) -> Result<Vec<Row>> {
    let mut set = DataSet::debian().or_else(|_| DataSet::movies())?;
    set.documents.truncate(documents);
    let single = Single::start(Some(KEY)).await?;
    fill(&Api::new(single.url(), Some(KEY)), &set).await?;
    let (mut own, mut imported) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        own.push(turn(&set, &single, false).await?);
        imported.push(turn(&set, &single, true).await?);
    }
    let [own, imported] = [median(own), median(imported)];
    let count = set.documents.len() as f64;
    let what = format!("{} {} into 2 shards", set.documents.len(), set.index);
    Ok(vec![
        Row::compared(
            format!("{what}, until indexed: imported vs. written"),
            count / imported.seconds,
            count / own.seconds,
            "documents/s",
        )
        .goal("≥ 0.9"),
        Row::compared(
            "processor time of cluster and source for each",
            imported.cpu_us / count,
            own.cpu_us / count,
            "µs",
        ),
    ])
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    costs.get(costs.len() / 2).copied().unwrap_or_default()
}

async fn turn(set: &DataSet, single: &Single, imports: bool) -> Result<Cost> {
    let cluster = Cluster::builder()
        .shards(2)
        .master_key(KEY)
        .access_log("off")
        .start()
        .await?;
    let api = Api::new(cluster.url(), Some(KEY));
    let used = || Usage::of(cluster.processes().chain([single.process()]));
    let (before, begun) = (used()?, Instant::now());
    match imports {
        true => import(&cluster, single).await?,
        false => write(&api, set).await?,
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_us = (used()? - before).cpu_us;
    let stats = api.get(&format!("/indexes/{}/stats", set.index)).await?;
    let there = stats.at("/numberOfDocuments").as_u64();
    ensure!(there == Some(set.documents.len() as u64), "{}", stats.text);
    Ok(Cost { seconds, cpu_us })
}

async fn import(cluster: &Cluster, single: &Single) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(Binaries::find()?.weft)
        .args(["import", &single.url(), "--url", &cluster.url(), "--json"])
        .env("WEFT_SOURCE_KEY", KEY)
        .env("WEFT_MASTER_KEY", KEY)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(())
}

/// Settings first, then all documents, and the end of their tasks is waited for at last.
async fn write(api: &Api, set: &DataSet) -> Result<()> {
    let index = format!("/indexes/{}", set.index);
    let create = json!({"uid": set.index, "primaryKey": set.primary_key});
    api.succeed(&api.post("/indexes", &create).await?).await?;
    let settings = format!("{index}/settings");
    let set_up = api.json(Method::PATCH, &settings, &set.settings).await?;
    api.succeed(&set_up).await?;
    let ndjson = [("content-type", "application/x-ndjson")];
    let path = format!("{index}/documents");
    let mut accepted = Vec::new();
    let mut body = Vec::new();
    for place in 0..set.documents.len() {
        body.extend(set.ndjson(place, 1));
        if body.len() >= BATCH_BYTES || place + 1 == set.documents.len() {
            let sent = api.send(Method::POST, &path, &ndjson, std::mem::take(&mut body));
            accepted.push(sent.await?);
        }
    }
    for reply in &accepted {
        api.succeed(reply).await?;
    }
    Ok(())
}
