//! `weft-lab oracle`: could a client tell a cluster from one node? Prints a table, for any data set or any two URLs.

mod moving;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use weft_cluster::data::DataSet;
use weft_cluster::oracle::{self, Row, check_pages};
use weft_cluster::{Api, Cluster, Single};

use crate::say;

/// Options of `weft-lab oracle`.
#[derive(Debug, Args)]
pub(crate) struct OracleArgs {
    /// The data sets; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Data::Movies, Data::Airports, Data::Debian])]
    data: Vec<Data>,
    /// Number of shards of the cluster; several numbers are compared one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [3])]
    shards: Vec<u16>,
    /// Number of queries.
    #[arg(long, default_value_t = 500)]
    queries: usize,
    /// A JSON array of queries instead of the data set's own.
    #[arg(long)]
    query_file: Option<PathBuf>,
    /// URL of a node that already holds the documents; with --many.
    #[arg(long, requires = "many")]
    one: Option<String>,
    /// URL of a cluster that holds the same documents; with --one.
    #[arg(long, requires = "one")]
    many: Option<String>,
    /// The key for --one and --many.
    #[arg(long, env = "MASTER_KEY", hide_env_values = true)]
    key: Option<String>,
    /// The index at --one and --many, if it isn't the data set's.
    #[arg(long)]
    index: Option<String>,
    /// Only kinds of searches whose names contain one of these texts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Also ask while a shard is added and takes its share, and while it is emptied again: every 100 ms, one kind of search after
    /// the other.
    #[arg(long, conflicts_with = "many")]
    while_moving: bool,
    /// How long each of the two takes at least, in seconds.
    #[arg(long, default_value_t = 30)]
    moving_seconds: u64,
    /// Show examples of differences.
    #[arg(long)]
    examples: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Data {
    /// 3,201 films.
    Movies,
    /// 3,376 airports with coordinates.
    Airports,
    /// Debian's package index.
    Debian,
}

pub(crate) async fn run(arguments: OracleArgs) -> Result<()> {
    let mut report = Vec::new();
    for data in &arguments.data {
        let set = match data {
            Data::Movies => DataSet::movies()?,
            Data::Airports => DataSet::airports()?,
            Data::Debian => DataSet::debian()?,
        };
        let queries = match &arguments.query_file {
            Some(file) => serde_json::from_slice(
                &fs::read(file).with_context(|| format!("{}", file.display()))?,
            )
            .with_context(|| format!("{} isn't a JSON array of strings", file.display()))?,
            None => oracle::queries(&set, arguments.queries),
        };
        if let (Some(one), Some(many)) = (&arguments.one, &arguments.many) {
            let mut set = set;
            if let Some(index) = &arguments.index {
                set.index = Box::leak(index.clone().into_boxed_str());
            }
            let (one, many) = (
                Api::new(one, arguments.key.as_deref()),
                Api::new(many, arguments.key.as_deref()),
            );
            report.push(table(&one, &many, &set, &queries, &arguments, many.base()).await?);
            continue;
        }
        let single = Single::start(None).await?;
        let one = Api::new(single.url(), None);
        oracle::load(&one, &set).await.context("loading one node")?;
        for shards in &arguments.shards {
            let builder = Cluster::builder().shards(*shards);
            let builder = match arguments.while_moving {
                true => builder.watched(1),
                false => builder,
            };
            let mut cluster = builder.start().await?;
            let many = Api::new(cluster.url(), None);
            oracle::load(&many, &set)
                .await
                .context("loading the cluster")?;
            let title = format!("{shards} shards");
            report.push(table(&one, &many, &set, &queries, &arguments, &title).await?);
            if arguments.while_moving {
                let seconds = arguments.moving_seconds;
                let told = moving::ask(&mut cluster, (&one, &many), &set, &queries, seconds);
                report.extend(told.await?);
                let title = format!("{shards} shards again");
                report.push(table(&one, &many, &set, &queries, &arguments, &title).await?);
            }
        }
    }
    let file = PathBuf::from("target/bench/oracle.json");
    fs::create_dir_all("target/bench")?;
    fs::write(&file, serde_json::to_vec_pretty(&report)?)?;
    say(format_args!("\nWritten to {}.", file.display()));
    if report.is_empty() {
        bail!("there was nothing to compare");
    }
    Ok(())
}

async fn table(
    one: &Api,
    many: &Api,
    set: &DataSet,
    queries: &[String],
    arguments: &OracleArgs,
    title: &str,
) -> Result<serde_json::Value> {
    say(format_args!(
        "\n{}: {} documents on one node and on {title}, {} queries. Share of answers that equal one node's, in per cent:\n",
        set.index,
        set.documents.len(),
        queries.len()
    ));
    const COLUMNS: [&str; 5] = [
        "scores",
        "ties",
        "totals",
        "facetDistribution",
        "facetStats",
    ];
    say(format_args!(
        "{:22} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "scores", "ties", "totals", "facets", "stats"
    ));
    let mut rows = Vec::new();
    let wanted = |name: &str| {
        arguments.only.is_empty()
            || arguments
                .only
                .iter()
                .any(|text| name.contains(text.as_str()))
    };
    for variant in oracle::variants(set) {
        if !wanted(variant.name) {
            continue;
        }
        let row = oracle::ask(one, many, set, &variant, queries).await?;
        let cells: Vec<String> = COLUMNS.iter().map(|column| cell(&row, column)).collect();
        say(format_args!("{:22} {}", row.variant, cells.join(" ")));
        if arguments.examples {
            for (query, difference) in &row.examples {
                say(format_args!("    {query:?}: {difference}"));
            }
        }
        rows.push(row);
    }
    let errors = oracle::ask_refused(one, many, set).await?;
    let same = errors.same.get("status and code").copied().unwrap_or(0);
    say(format_args!(
        "errors: {same} of {} with one node's status and code",
        errors.asked
    ));
    for (request, answer) in &errors.examples {
        say(format_args!("    {request}: {answer}"));
    }
    let some: Vec<&String> = queries
        .iter()
        .step_by((queries.len() / 50).max(1))
        .collect();
    let (mut sound, mut wrong) = (0, Vec::new());
    for query in &some {
        let verdict = check_pages(many, set, query, 6, 7).await?;
        if verdict.adds_up && verdict.twice.is_empty() {
            sound += 1;
        } else {
            wrong.push((*query).clone());
        }
    }
    say(format_args!(
        "pages: {sound} of {} add up to the long page, no document twice {wrong:?}",
        some.len()
    ));
    rows.push(errors);
    Ok(json!({
        "data": set.index, "documents": set.documents.len(), "cluster": title, "queries": queries.len(),
        "rows": rows, "pages": {"checked": some.len(), "sound": sound, "wrong": wrong},
    }))
}

/// A percentage with one decimal; a dash if the variant doesn't have this part.
fn cell(row: &Row, column: &str) -> String {
    row.share(column).map_or_else(
        || format!("{:>8}", "-"),
        |share| format!("{:8.1}", share * 100.0),
    )
}
