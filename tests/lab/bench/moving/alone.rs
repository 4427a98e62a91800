//! What a node alone needs for the tasks of a move: nothing can move faster on nodes that take one task at a time.

use std::time::Instant;

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Single};

use super::{IMPORT, KEY, SHARDS};

/// How often a batch is added and deleted again.
const TIMES: usize = 3;

/// How many documents a second a node that holds a shard's share adds and deletes again, so many with each task, one task after
/// the other, while nobody else wants anything of it.
pub(super) async fn tasks(set: &DataSet, batch: usize) -> Result<f64> {
    let single = Single::start(Some(KEY)).await?;
    let api = Api::new(single.url(), Some(KEY));
    let share = set.documents.len() / usize::from(SHARDS + 1);
    super::prepare(&api, set, set.index).await?;
    let path = format!("/indexes/{}/documents", set.index);
    let add = async |from: usize, count: usize| {
        let ndjson = [("content-type", "application/x-ndjson")];
        let body = set.ndjson(from, count);
        api.send(Method::POST, &path, &ndjson, body).await
    };
    for from in (0..share).step_by(IMPORT) {
        let added = add(from, IMPORT.min(share - from)).await?;
        api.succeed(&added).await?;
    }
    let batch = batch.min(share / usize::from(SHARDS));
    let begun = Instant::now();
    for time in 0..TIMES {
        let from = share + time * batch;
        let added = add(from, batch).await?;
        api.succeed(&added).await?;
        let some = set.documents.iter().skip(from).take(batch);
        let ids: Vec<&Value> = some.filter_map(|one| one.get(set.primary_key)).collect();
        let deleted = api
            .post(&format!("{path}/delete-batch"), &json!(ids))
            .await?;
        api.succeed(&deleted).await?;
    }
    Ok((TIMES * batch) as f64 / begun.elapsed().as_secs_f64())
}
