//! What the demo prints.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Cluster, Deadline};

use super::compare::Verdict;
use super::searches::{Answer, Search};
use crate::say;

/// The width of a bar, and of a column.
const BAR: u64 = 40;
const COLUMN: usize = 46;

/// How many documents each shard holds, counted by its first node.
pub(super) async fn shares(cluster: &Cluster, set: &DataSet) -> Result<()> {
    let mut counts = Vec::new();
    for shard in 0..cluster.layout().shards() {
        let node = Api::new(cluster.node_url(shard, 0), None);
        let stats = node
            .get(&format!("/indexes/{}/stats", set.index))
            .await?
            .body;
        counts.push(stats["numberOfDocuments"].as_u64().unwrap_or_default());
    }
    let total: u64 = counts.iter().sum();
    let most = counts.iter().copied().max().unwrap_or_default().max(1);
    say(format_args!("\nWhere the {} are", set.index));
    for (shard, count) in counts.iter().enumerate() {
        let bar = "█".repeat(usize::try_from(count * BAR / most)?);
        #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
        let percent = *count as f64 * 100.0 / total.max(1) as f64;
        say(format_args!(
            "  shard-{shard} {bar:<40} {count:>6}  {percent:>5.1} %"
        ));
    }
    say(format_args!(
        "  {:<48} {total:>6}  of {} sent",
        "",
        set.documents.len()
    ));
    Ok(())
}

/// Prints Weft's answer on the left and one node's on the right.
pub(super) fn side_by_side(
    search: &Search,
    merged: &Answer,
    alone: &Answer,
    set: &DataSet,
    verdict: &Verdict,
) {
    say(format_args!("\n{}: {}", search.about, search.parameters));
    let head = |name: &str, answer: &Answer| {
        let total = ["estimatedTotalHits", "totalHits"]
            .iter()
            .find_map(|field| answer.body[*field].as_u64());
        format!(
            "{name}: {} hits, {:.1} ms",
            total.unwrap_or_default(),
            answer.took.as_secs_f64() * 1e3
        )
    };
    row(&head("Weft", merged), &head("one node", alone));
    let (left, right) = (lines(&merged.body, set), lines(&alone.body, set));
    for line in 0..left.len().max(right.len()) {
        let at = |lines: &[String]| lines.get(line).cloned().unwrap_or_default();
        row(&at(&left), &at(&right));
    }
    say(match verdict {
        Verdict::Same => "  = the same".to_owned(),
        Verdict::SameButTies => {
            "  = the same, except for the order of documents of equal rank".to_owned()
        }
        Verdict::Different(what) => format!("  ≠ DIFFERENT: {what}"),
    });
}

/// How many requests the filter sent to each destination, from Envoy's own counters.
///
/// The filter sends its counts to Envoy from time to time, so they are read until they stop changing.
pub(super) async fn routes(cluster: &Cluster) -> Result<()> {
    let mut counts = read_counts(cluster).await?;
    let deadline = Deadline::after(Duration::from_secs(10));
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = read_counts(cluster).await?;
        if now == counts || deadline.passed() {
            break;
        }
        counts = now;
    }
    let [reads, writes, merged] = counts;
    say(format_args!(
        "\nAccording to Envoy, the filter sent {reads} reads and {writes} writes directly to their shards, and left {merged} \
         requests to the merger.",
    ));
    Ok(())
}

/// Direct reads, direct writes, and requests left to the merger.
async fn read_counts(cluster: &Cluster) -> Result<[u64; 3]> {
    let admin = Api::new(cluster.admin_url(), None);
    let stats = admin
        .get("/stats?filter=weft_filter_requests&format=json")
        .await?
        .body;
    Ok([
        "requests_direct_read",
        "requests_direct_write",
        "requests_merged",
    ]
    .map(|name| {
        let all = stats["stats"].as_array().into_iter().flatten();
        all.filter(|stat| {
            stat["name"]
                .as_str()
                .is_some_and(|full| full.ends_with(name))
        })
        .filter_map(|stat| stat["value"].as_u64())
        .sum()
    }))
}

fn lines(answer: &Value, set: &DataSet) -> Vec<String> {
    let hits = answer["hits"].as_array().into_iter().flatten().map(|hit| {
        let title = hit[set.title]
            .as_str()
            .map_or_else(|| hit[set.title].to_string(), ToOwned::to_owned);
        let detail = match hit.get("_geoDistance").and_then(Value::as_u64) {
            Some(metres) => format!("{}.{} km", metres / 1000, metres % 1000 / 100),
            None => format!("{:.4}", hit["_rankingScore"].as_f64().unwrap_or_default()),
        };
        format!("{detail:>8}  {title}")
    });
    let facets = answer["facetDistribution"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(facet, values)| {
            let values = values.as_object().into_iter().flatten().take(4);
            let values: Vec<_> = values
                .map(|(value, count)| format!("{value} {count}"))
                .collect();
            format!("   {facet}: {} …", values.join(", "))
        });
    hits.chain(facets).collect()
}

fn row(left: &str, right: &str) {
    say(format_args!("  {:<COLUMN$} │ {}", cut(left), cut(right)));
}

fn cut(text: &str) -> String {
    if text.chars().count() <= COLUMN {
        text.to_owned()
    } else {
        text.chars().take(COLUMN - 1).chain(['…']).collect()
    }
}
