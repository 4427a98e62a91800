//! `weft-lab`: a cluster on this machine, for trying, measuring and breaking it. One module per subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod demo;
mod down;
mod faults;
mod grow;
mod oracle;
mod state;
mod status;
mod up;

/// A Weft cluster on this machine.
#[derive(Debug, Parser)]
#[command(name = "weft-lab", version)]
struct Lab {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster in the background; returns when it answers.
    Up(up::UpArgs),
    /// Add a shard to what `up` started, while it runs.
    Grow(grow::GrowArgs),
    /// Stop what `up` started.
    Down(down::DownArgs),
    /// Load real data, and show the cluster's answers next to those of one node.
    Demo(demo::DemoArgs),
    /// Compare a cluster's answers with one node's.
    Oracle(oracle::OracleArgs),
    /// Break clusters under load, and check what happened to every acknowledged write.
    Faults(faults::FaultArgs),
    /// Measure, print a table, write target/bench/*.json.
    Bench(bench::BenchArgs),
    /// Show the clusters that `up` started, and whether they are running.
    Status,
}

#[tokio::main]
async fn main() -> ExitCode {
    let lab = match Lab::try_parse() {
        Ok(lab) => lab,
        Err(error) if error.use_stderr() => {
            // Only what is wrong, without the usage, which `--help` shows.
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            eprintln!("weft-lab: {}", first.trim_start_matches("error: "));
            return ExitCode::FAILURE;
        }
        Err(help) => help.exit(),
    };
    let done = match lab.command {
        Command::Up(arguments) => up::run(arguments).await,
        Command::Grow(arguments) => grow::run(arguments).await,
        Command::Down(arguments) => down::run(&arguments),
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Oracle(arguments) => oracle::run(arguments).await,
        Command::Faults(arguments) => faults::run(arguments).await,
        Command::Bench(arguments) => bench::run(arguments).await,
        Command::Status => status::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Prints the causes on the same line, since a person needs only one line.
            eprintln!("weft-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a subcommand's text to standard output.
#[allow(clippy::print_stdout, reason = "printing is what the command is for")]
fn say(text: impl std::fmt::Display) {
    println!("{text}");
}
