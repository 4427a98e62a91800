//! The command line of `weft`: one subcommand per task, one module per subcommand.
//!
//! This is the only place that prints to standard output or turns an error into an exit code:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | done, and what was looked at isn't well: a cluster that isn't green, replicas that differ, a check that failed |
//! | 2 | a wrong command line, option or file |
//! | 3 | the server can't be reached, or refuses |

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod config_envoy;
mod output;
mod remote;
mod serve;
mod store;

use crate::options::ServeOptions;

/// A sharded, replicated search cluster out of unmodified Meilisearch nodes, inside Envoy.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the merger: the sidecar that splits writes and merges answers.
    Serve(Box<ServeOptions>),
    /// Print a configuration.
    #[command(subcommand)]
    Config(Box<ConfigCommand>),
    /// Move a cluster's state while no merger runs.
    #[command(subcommand)]
    Store(store::StoreCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print an envoy.yaml for a cluster of any size, with a comment at every choice.
    Envoy(config_envoy::EnvoyArgs),
    /// Write the files of the shards for an Envoy that watches a folder (weft config envoy --dynamic): to start, and to add shards.
    Shards(config_envoy::ShardsArgs),
    /// Print an envoy.yaml for a node's own Envoy, whose filter refuses writes of a merger that leads no more.
    Guard(config_envoy::GuardArgs),
}

/// Runs the command line that this process was given.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(options) => match serve::run(*options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Command::Config(command) => {
            let text = match &*command {
                ConfigCommand::Envoy(arguments) => config_envoy::run(arguments),
                ConfigCommand::Shards(arguments) => config_envoy::run_shards(arguments),
                ConfigCommand::Guard(arguments) => config_envoy::run_guard(arguments),
            };
            match text {
                Ok(text) => print(&text),
                Err(error) => fail(&error),
            }
        }
        Command::Store(command) => match store::run(&command) {
            Ok(text) => print(&text),
            Err(error) => fail(&error),
        },
    }
}

#[allow(clippy::print_stdout, reason = "printing is what the command is for")]
fn print(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

/// What the shell gets when the server can't be reached or refuses.
#[expect(dead_code, reason = "the commands that ask a server come next")]
const NO_ANSWER: u8 = 3;

/// Prints one line for a person and exits with 2, which is also clap's code for a wrong command line.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("weft: {error}");
    ExitCode::from(2)
}
