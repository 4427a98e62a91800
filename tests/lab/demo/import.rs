//! Documents into an index, with a bar that says how far.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use weft_cluster::data::DataSet;

use crate::say;

/// Documents in one request.
const BATCH: usize = 5_000;

/// How long a task may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Creates the index with its settings, and puts all documents in.
pub(super) async fn run(client: &Client, url: &str, who: &str, set: &DataSet) -> Result<()> {
    let index = format!("{url}/indexes/{}", set.index);
    let create = json!({ "uid": set.index, "primaryKey": set.primary_key });
    settle(
        client,
        url,
        client.post(format!("{url}/indexes")).json(&create),
    )
    .await?;
    settle(
        client,
        url,
        client
            .patch(format!("{index}/settings"))
            .json(&set.settings),
    )
    .await?;

    let bar = ProgressBar::new(set.documents.len() as u64).with_style(
        ProgressStyle::with_template("{prefix:9} {bar:40} {pos}/{len} {msg}")?
            .progress_chars("█▌ "),
    );
    bar.set_prefix(who.to_owned());
    let began = Instant::now();
    for from in (0..set.documents.len()).step_by(BATCH) {
        bar.set_message("indexing");
        let request = client
            .post(format!("{index}/documents"))
            .header("content-type", "application/x-ndjson")
            .body(set.ndjson(from, BATCH));
        settle(client, url, request).await?;
        bar.inc(set.documents.len().saturating_sub(from).min(BATCH) as u64);
    }
    bar.finish_and_clear();
    say(format_args!(
        "{who:<9} {} {} indexed in {:.1} s",
        set.documents.len(),
        set.index,
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Reads a few documents by id, as applications do: the filter sends them straight to the shard that owns them.
pub(super) async fn read_some(client: &Client, url: &str, set: &DataSet) -> Result<()> {
    for document in set
        .documents
        .iter()
        .step_by(set.documents.len().div_ceil(20).max(1))
    {
        let id = &document[set.primary_key];
        let id = id
            .as_str()
            .map_or_else(|| id.to_string(), ToOwned::to_owned);
        let found: Value = client
            .get(format!("{url}/indexes/{}/documents/{id}", set.index))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        if found[set.primary_key] != document[set.primary_key] {
            bail!("asked for {} {id}, got {found}", set.index);
        }
    }
    Ok(())
}

/// Sends a write and waits until its task is done.
async fn settle(client: &Client, url: &str, request: RequestBuilder) -> Result<()> {
    let answer = request.send().await?;
    let (status, body) = (answer.status(), answer.text().await?);
    if !status.is_success() {
        bail!("{status}: {body}");
    }
    let answer: Value = serde_json::from_str(&body)?;
    let task = answer["taskUid"]
        .as_u64()
        .with_context(|| format!("no taskUid in {body}"))?;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let task: Value = client
            .get(format!("{url}/tasks/{task}"))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        match task["status"].as_str() {
            Some("succeeded") => return Ok(()),
            Some("failed" | "canceled") => bail!("task failed: {}", task["error"]),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    bail!("task {task} is not done after {} s", PATIENCE.as_secs())
}
