//! Loads documents into an index and shows a progress bar.

use std::time::Instant;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::json;
use weft_cluster::Api;
use weft_cluster::data::DataSet;

use crate::say;

/// The number of documents in one request.
const BATCH: usize = 5_000;

/// Creates the index with its settings, and adds all documents.
pub(super) async fn run(api: &Api, name: &str, set: &DataSet) -> Result<()> {
    let index = format!("/indexes/{}", set.index);
    let create = json!({ "uid": set.index, "primaryKey": set.primary_key });
    api.succeed(&api.post("/indexes", &create).await?).await?;
    let settings = api
        .json(Method::PATCH, &format!("{index}/settings"), &set.settings)
        .await?;
    api.succeed(&settings).await?;

    let style = ProgressStyle::with_template("{prefix:9} {bar:40} {pos}/{len} {msg}")?
        .progress_chars("█▌ ");
    let bar = ProgressBar::new(set.documents.len() as u64).with_style(style);
    bar.set_prefix(name.to_owned());
    bar.set_message("indexed");
    let began = Instant::now();
    for from in (0..set.documents.len()).step_by(BATCH) {
        let ndjson = [("content-type", "application/x-ndjson")];
        let sent = api
            .send(
                Method::POST,
                &format!("{index}/documents"),
                &ndjson,
                set.ndjson(from, BATCH),
            )
            .await?;
        api.succeed(&sent).await?;
        bar.inc(set.documents.len().saturating_sub(from).min(BATCH) as u64);
    }
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    say(format_args!(
        "{name:<9} {} {} indexed in {seconds:.1} s",
        set.documents.len(),
        set.index
    ));
    Ok(())
}

/// Reads a few documents by id, as applications do: the filter sends them directly to the shard that owns them.
pub(super) async fn read_some(api: &Api, set: &DataSet) -> Result<()> {
    for document in set
        .documents
        .iter()
        .step_by(set.documents.len().div_ceil(20).max(1))
    {
        let id = &document[set.primary_key];
        let text = id
            .as_str()
            .map_or_else(|| id.to_string(), ToOwned::to_owned);
        let found = api
            .get(&format!("/indexes/{}/documents/{text}", set.index))
            .await?;
        if &found.body[set.primary_key] != id {
            bail!(
                "asked for {} {text}, got {}: {}",
                set.index,
                found.status,
                found.text
            );
        }
    }
    Ok(())
}
