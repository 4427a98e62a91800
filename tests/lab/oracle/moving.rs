//! The oracle while a cluster grows by a shard and shrinks again.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::data::DataSet;
use weft_cluster::oracle::{self, RIGHT, RIGHT_OR_AT_REST, Row, ask_while_moving};
use weft_cluster::{Api, Cluster, Reply};

use crate::say;

/// The most documents that two shards hold at the same time, by default.
const BATCH: u64 = 1_000;

/// Adds a shard, lets it take its share, empties it again, and asks all along.
pub(super) async fn ask(
    cluster: &mut Cluster,
    (one, many): (&Api, &Api),
    set: &DataSet,
    queries: &[String],
    seconds: u64,
) -> Result<Vec<Value>> {
    let shard = cluster.add_shard().await?;
    let bytes = set.ndjson(0, set.documents.len()).len() as u64;
    let rate = bytes / u64::from(shard + 1) / seconds.max(1);
    let pace = json!({"bytesPerSecond": rate.max(1)});
    let set_pace = many.json(Method::PATCH, "/_cluster/moves", &pace).await?;
    ensure!(set_pace.status == 200, "{}", set_pace.text);
    let mut told = Vec::new();
    let drain = format!("/_cluster/shards/shard-{shard}/drain");
    for (way, path) in [
        ("grows", "/_cluster/rebalance"),
        ("shrinks", drain.as_str()),
    ] {
        begun(&many.post(path, &json!({})).await?)?;
        let kinds = oracle::variants(set);
        let rows = ask_while_moving((one, many), set, (&kinds, queries), BATCH).await?;
        show(way, &rows);
        told.push(json!({"data": set.index, "while": way, "rows": rows}));
    }
    Ok(told)
}

fn begun(reply: &Reply) -> Result<()> {
    ensure!(reply.status == 202, "{}", reply.text);
    let moves = reply.at("/moves").as_array().context("no moves")?;
    ensure!(!moves.is_empty(), "nothing moves: {}", reply.text);
    Ok(())
}

/// How many answers were one node's, of all kinds of searches together, and examples of others.
fn show(way: &str, rows: &[Row]) {
    let asked: usize = rows.iter().map(|row| row.asked).sum();
    say(format_args!("\n{asked} answers while the cluster {way}:"));
    for what in [
        "status",
        "scores",
        "ties",
        "totals",
        "facetDistribution",
        RIGHT,
        RIGHT_OR_AT_REST,
    ] {
        let of = rows.iter().filter(|row| row.same.contains_key(what));
        let of: usize = of.map(|row| row.asked).sum();
        let same: usize = rows.iter().filter_map(|row| row.same.get(what)).sum();
        say(format_args!("{what:>22}: {same} of {of} as one node's"));
    }
    for row in rows {
        for (query, difference) in &row.examples {
            say(format_args!("    {}, {query:?}: {difference}", row.variant));
        }
    }
}
