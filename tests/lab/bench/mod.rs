//! `bench`: Weft's costs and benefits, as ratios from one run.
//!
//! The machine that this runs on is noisy, so no figure is an absolute promise. Each figure is given together with what it
//! is compared with; both are measured in the same run, in turn.

mod fan_out;
mod filter_cost;
mod filter_table;
mod followers;
mod import;
mod large;
mod load;
mod merge;
mod moving;
mod network;
mod remembered;
mod scale;
mod several_mergers;
mod sockets;
mod split;
mod stub;
mod tasks;
mod tenants;
mod usage;
mod way;
mod writes;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use weft_cluster::Binaries;

use crate::say;

/// Options of `weft-lab bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Only these parts; by default, all except `large`, `scale`, `import`, `tenants`, `filter-table` and `move`
    #[arg(long, value_enum)]
    only: Vec<Suite>,
    /// Duration of a measurement in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How many finished tasks the merger keeps in `tasks`
    #[arg(long, default_value_t = 990_000)]
    tasks: u32,
    /// How many indexes there are: in the routing table of `scale` (100,000) and of `filter-table` (10,000), and in `tenants` (5,000)
    #[arg(long)]
    indexes: Option<usize>,
    /// How many documents there are at most: in `move` (all) and in `import` (20,000)
    #[arg(long)]
    documents: Option<usize>,
    #[command(flatten)]
    scale: scale::ScaleArgs,
    /// Folder for the JSON files
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// The filter's cost per request, compared with Envoy without it.
    Filter,
    /// A search over three shards, compared with the same search sent directly to one shard.
    FanOut,
    /// Where a search over three shards spends its time: Envoy, the merger's parts, nodes.
    Where,
    /// Unix sockets between Envoy and merger, compared with TCP.
    Sockets,
    /// Many shards and replicas of stand-ins: what they cost the merger and Envoy. Only if named.
    Scale,
    /// Searches as people type them, with remembered answers and without.
    Remembered,
    /// How fast the merger splits documents.
    Split,
    /// The cost of a merge alone.
    Merge,
    /// A search over three nodes, compared with the servers' own network search; only with MEILISEARCH_BIN.
    Network,
    /// Imports and small writes, compared with writes to one node directly.
    Writes,
    /// One import of a gigabyte: the merger's memory, and the speed of other requests meanwhile. Only if named.
    Large,
    /// `weft import` from a node, compared with the same documents written to the cluster. Only if named.
    Import,
    /// How long `GET /tasks/{uid}` takes.
    Tasks,
    /// Thousands of small indexes: how fast they are made, how evenly they lie, what they cost. Only if named.
    Tenants,
    /// A filter's routing table of many indexes: memory of a worker, time of a decision. Only if named.
    FilterTable,
    /// A cluster that grows by a shard and shrinks again under load. Only if named.
    Move,
    /// One merger, one with etcd, three with etcd: small writes, imports and searches. Only where there is an etcd, or if named.
    Mergers,
    /// How far a follower is behind the leader. Only where there is an etcd, or if named.
    Followers,
}

/// One figure, with the value that it is compared with.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    /// The value that it is compared with, in the same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<f64>,
    /// The target for the ratio of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<&'static str>,
}

impl Row {
    fn alone(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            reference: None,
            goal: None,
        }
    }

    fn compared(what: impl Into<String>, value: f64, reference: f64, unit: &'static str) -> Self {
        Self {
            reference: Some(reference),
            ..Self::alone(what, value, unit)
        }
    }

    fn goal(self, goal: &'static str) -> Self {
        Self {
            goal: Some(goal),
            ..self
        }
    }

    fn ratio(&self) -> Option<f64> {
        self.reference
            .filter(|reference| *reference != 0.0)
            .map(|reference| self.value / reference)
    }
}

/// Runs the measurements, prints a table and writes JSON.
pub(crate) async fn run(arguments: BenchArgs) -> Result<()> {
    let wanted = |suite| arguments.only.is_empty() || arguments.only.contains(&suite);
    if wanted(Suite::Filter) {
        let rows = filter_cost::measure(arguments.seconds).await?;
        report(
            &arguments,
            "filter",
            "The filter, at 64 clients, in front of a trivial upstream",
            &rows,
        )?;
    }
    if wanted(Suite::FanOut) {
        let rows = fan_out::measure(arguments.seconds).await?;
        report(
            &arguments,
            "fan_out",
            "Searches over 3 shards of 3,201 films, compared with one node that has all of them",
            &rows,
        )?;
    }
    if wanted(Suite::Where) {
        let rows = way::measure(arguments.seconds).await?;
        report(
            &arguments,
            "where",
            "Where a search over 3 shards spends its time, for one client; each part compared with the whole",
            &rows,
        )?;
    }
    if wanted(Suite::Sockets) {
        let rows = sockets::measure(arguments.seconds).await?;
        report(
            &arguments,
            "sockets",
            "Searches over 3 shards, Envoy and merger over Unix sockets, compared with TCP",
            &rows,
        )?;
    }
    if wanted(Suite::Remembered) {
        let rows = remembered::measure(arguments.seconds).await?;
        report(
            &arguments,
            "remembered",
            "Queries over 3 shards, typed letter by letter, with remembered answers, compared with asking the nodes each time",
            &rows,
        )?;
    }
    if wanted(Suite::Merge) {
        let rows = merge::measure()?;
        report(
            &arguments,
            "merge",
            "Merging shards' answers, on one core, and nothing else",
            &rows,
        )?;
    }
    if wanted(Suite::Network) && std::env::var_os("MEILISEARCH_BIN").is_some() {
        let rows = network::measure(arguments.seconds).await?;
        report(
            &arguments,
            "network",
            "Searches over 3 nodes with 3,201 films, compared with the servers' own network search",
            &rows,
        )?;
    }
    if wanted(Suite::Split) {
        let rows = split::measure()?;
        report(
            &arguments,
            "split",
            "Splitting documents by shard, on one core, and nothing else",
            &rows,
        )?;
    }
    if wanted(Suite::Tasks) {
        let rows = tasks::measure(arguments.seconds, arguments.tasks).await?;
        report(
            &arguments,
            "tasks",
            "Reading tasks, which the merger answers from its own state",
            &rows,
        )?;
    }
    if wanted(Suite::Writes) {
        let rows = writes::measure(arguments.seconds).await?;
        report(
            &arguments,
            "writes",
            "Writes, compared with writes to one node directly",
            &rows,
        )?;
    }
    if arguments.only.contains(&Suite::Mergers)
        || (arguments.only.is_empty() && Binaries::etcd().is_ok())
    {
        let rows = several_mergers::measure(arguments.seconds).await?;
        report(
            &arguments,
            "several_mergers",
            "One merger without etcd, one with it, and three",
            &rows,
        )?;
    }
    if arguments.only.contains(&Suite::Followers)
        || (arguments.only.is_empty() && Binaries::etcd().is_ok())
    {
        let rows = followers::measure().await?;
        report(
            &arguments,
            "followers",
            "How long reads through a follower go by what was before a change, from when a client knows of it",
            &rows,
        )?;
    }
    if arguments.only.contains(&Suite::Scale) {
        let indexes = arguments.indexes.unwrap_or(100_000);
        let rows = scale::measure(arguments.seconds, &arguments.scale, indexes).await?;
        report(
            &arguments,
            "scale",
            "Searches over stand-ins, by shards × replicas, 4 clients",
            &rows,
        )?;
    }
    if arguments.only.contains(&Suite::Import) {
        let rows = import::measure(arguments.documents.unwrap_or(20_000)).await?;
        report(
            &arguments,
            "import",
            "Moving in from one node, compared with a client that has the documents",
            &rows,
        )?;
    }
    if arguments.only.contains(&Suite::FilterTable) {
        let rows = filter_table::measure(arguments.indexes.unwrap_or(10_000)).await?;
        report(
            &arguments,
            "filter_table",
            "A filter's routing table of many indexes",
            &rows,
        )?;
    }
    if arguments.only.contains(&Suite::Tenants) {
        let indexes = arguments.indexes.unwrap_or(5_000);
        let rows = tenants::measure(arguments.seconds, indexes).await?;
        report(
            &arguments,
            "tenants",
            "Many small indexes on 3 shards, each on one of them",
            &rows,
        )?;
    }
    if arguments.only.contains(&Suite::Move) {
        let rows = moving::measure(arguments.seconds, arguments.documents).await?;
        report(
            &arguments,
            "move",
            "Debian's packages while a cluster grows from 3 to 4 shards and shrinks again, under load",
            &rows,
        )?;
    }
    if arguments.only.contains(&Suite::Large) {
        let rows = large::measure(arguments.seconds).await?;
        report(
            &arguments,
            "large",
            "One import of a gigabyte, with nodes that accept everything",
            &rows,
        )?;
    }
    Ok(())
}

fn report(arguments: &BenchArgs, name: &str, title: &str, rows: &[Row]) -> Result<()> {
    say(format_args!("\n{title}\n"));
    say(format_args!(
        "  {:<58} {:>10} {:>10} {:>7}  {}",
        "", "measured", "reference", "ratio", "unit"
    ));
    for row in rows {
        let number = |value: f64| {
            if value >= 100.0 {
                format!("{value:.0}")
            } else {
                format!("{value:.2}")
            }
        };
        say(format_args!(
            "  {:<58} {:>10} {:>10} {:>7}  {}{}",
            row.what,
            number(row.value),
            row.reference.map(number).unwrap_or_default(),
            row.ratio()
                .map(|ratio| format!("{ratio:.2}"))
                .unwrap_or_default(),
            row.unit,
            row.goal
                .map(|goal| format!("  (goal: {goal})"))
                .unwrap_or_default(),
        ));
    }
    fs::create_dir_all(&arguments.out)
        .with_context(|| format!("{} can't be created", arguments.out.display()))?;
    let path = arguments.out.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_vec_pretty(rows)?)
        .with_context(|| format!("{} can't be written", path.display()))
}
