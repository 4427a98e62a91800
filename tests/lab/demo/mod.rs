//! `weft-lab demo`: real documents in a real cluster, compared with the answers of one node.
//!
//! start → import → number of documents per shard → searches, side by side → how requests were routed.
#![allow(
    clippy::indexing_slicing,
    reason = "indexing JSON by a name that it lacks gives null"
)]

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Cluster, Single};

use crate::say;

mod compare;
mod import;
mod searches;
mod show;

/// Options of `weft-lab demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// What is loaded.
    #[arg(long, value_enum, default_value_t = Data::Movies)]
    data: Data,
    /// Number of shards.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    shards: u16,
    /// Nodes in each shard.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10))]
    replicas: u16,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Data {
    /// 3,201 films, and 3,376 airports with coordinates.
    Movies,
    /// Debian's package index.
    Debian,
}

pub(crate) async fn run(arguments: DemoArgs) -> Result<()> {
    let sets = match arguments.data {
        Data::Movies => vec![DataSet::movies(), DataSet::airports()],
        Data::Debian => vec![DataSet::debian()],
    };
    let sets: Vec<DataSet> = sets.into_iter().collect::<Result<_, _>>()?;
    say(format_args!(
        "Starting Envoy with the filter, the merger, {} shard(s) of {} node(s), and one node alone to compare with …",
        arguments.shards, arguments.replicas
    ));
    let cluster = Cluster::builder()
        .shards(arguments.shards)
        .replicas(arguments.replicas)
        .start()
        .await?;
    let single = Single::start(None).await?;
    let weft = Api::new(cluster.url(), None);
    let node = Api::new(single.url(), None);

    let mut differences = 0;
    for set in &sets {
        say("");
        import::run(&weft, "Weft", set)
            .await
            .context("import through Weft")?;
        import::run(&node, "one node", set)
            .await
            .context("import into one node")?;
        show::shares(&cluster, set).await?;
        for search in searches::of(set) {
            let (merged, alone) = (search.run(&weft, set).await?, search.run(&node, set).await?);
            let verdict =
                compare::judge(&merged.body, &alone.body, set.primary_key, search.sorted_by);
            differences += usize::from(!verdict.is_same());
            show::side_by_side(&search, &merged, &alone, set, &verdict);
        }
        import::read_some(&weft, set).await?;
    }
    show::routes(&cluster).await?;
    if differences > 0 {
        bail!("{differences} answer(s) differ from one node's");
    }
    say("\nEverything is stopped and removed. `make up` starts a cluster to keep.");
    Ok(())
}
