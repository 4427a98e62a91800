//! The commands that ask a running cluster. Each has a module of its own, with a pure function from the answer to its text.

use std::process::ExitCode;

use clap::Subcommand;

use super::ask::{AskOptions, run as ask};
use super::{
    drain, indexes, mergers, moves, nodes, rebalance, search, shards, status, tasks, verify,
};

/// A command that asks a cluster.
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show the whole cluster at one glance: health, shards, mergers, tasks, moves, and which nodes are in trouble.
    Status(status::StatusArgs),
    /// List the nodes, and why one isn't well.
    Nodes(nodes::NodesArgs),
    /// List the shards and their replicas.
    Shards(shards::ShardsArgs),
    /// List the mergers: who leads, and how far the others are behind.
    Mergers(mergers::MergersArgs),
    /// List the indexes: documents, shards, and which share of the slots is where.
    Indexes(indexes::IndexesArgs),
    /// List tasks, or watch them.
    Tasks(tasks::TasksArgs),
    /// Search an index, and show how the answer came about.
    Search(search::SearchArgs),
    /// Take a node or a shard out of use, so that it can be stopped or removed.
    #[command(subcommand)]
    Drain(drain::Drain),
    /// Take a node or a shard back into use.
    #[command(subcommand)]
    Resume(drain::Resume),
    /// Compare all replicas.
    Verify(verify::VerifyArgs),
    /// Spread indexes evenly over the shards: shows the plan, asks, begins.
    Rebalance(rebalance::RebalanceArgs),
    /// Show moves of slots, pause, resume, throttle or cancel them.
    Moves(Box<moves::MovesArgs>),
}

impl ClusterCommand {
    fn options(&self) -> &AskOptions {
        match self {
            Self::Status(arguments) => &arguments.ask,
            Self::Nodes(arguments) => &arguments.ask,
            Self::Shards(arguments) => &arguments.ask,
            Self::Mergers(arguments) => &arguments.ask,
            Self::Indexes(arguments) => &arguments.ask,
            Self::Tasks(arguments) => &arguments.ask,
            Self::Search(arguments) => &arguments.ask,
            Self::Drain(what) => what.ask(),
            Self::Resume(what) => what.ask(),
            Self::Verify(arguments) => &arguments.ask,
            Self::Rebalance(arguments) => &arguments.ask,
            Self::Moves(arguments) => arguments.ask(),
        }
    }
}

/// Does what the command says, prints what came of it, and returns the exit code.
pub(super) fn run(command: &ClusterCommand) -> ExitCode {
    use ClusterCommand as Its;
    ask(command.options(), async |remote| match command {
        Its::Status(arguments) => status::run(arguments, remote).await,
        Its::Nodes(arguments) => nodes::run(arguments, remote).await,
        Its::Shards(arguments) => shards::run(arguments, remote).await,
        Its::Mergers(arguments) => mergers::run(arguments, remote).await,
        Its::Indexes(arguments) => indexes::run(arguments, remote).await,
        Its::Tasks(arguments) => tasks::run(arguments, remote).await,
        Its::Search(arguments) => search::run(arguments, remote).await,
        Its::Drain(what) => drain::drain(what, remote).await,
        Its::Resume(what) => drain::resume(what, remote).await,
        Its::Verify(arguments) => verify::run(arguments, remote).await,
        Its::Rebalance(arguments) => rebalance::run(arguments, remote).await,
        Its::Moves(arguments) => moves::run(arguments, remote).await,
    })
}
