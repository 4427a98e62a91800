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

use clap::{CommandFactory, Parser, Subcommand};

mod ask;
mod backup;
mod cluster;
mod completions;
mod config_check;
pub mod config_envoy;
mod drain;
#[cfg(test)]
mod examples;
mod import;
mod indexes;
mod job;
mod man;
mod mergers;
mod moves;
mod nodes;
mod output;
mod rebalance;
mod remote;
mod search;
mod serve;
mod shards;
mod status;
mod store;
mod tasks;
mod verify;
mod words;

use crate::options::ServeOptions;

/// A sharded, replicated search cluster out of unmodified Meilisearch nodes, inside Envoy.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    propagate_version = true,
    after_help = "\
Commands that ask a cluster find it by --url or WEFT_URL, and take the master key from WEFT_MASTER_KEY or the file of
--master-key-file (WEFT_MASTER_KEY_FILE). `weft status` is the first look; `weft help COMMAND` has examples.

Exit codes: 0 done; 1 done, and what was looked at isn't well; 2 a wrong command line, option or file; 3 the server can't be
reached, or refuses."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the merger: the sidecar that splits writes and merges answers.
    Serve(Box<ServeOptions>),
    #[command(flatten)]
    Cluster(Box<cluster::ClusterCommand>),
    /// Print a configuration, or check one.
    #[command(subcommand)]
    Config(Box<ConfigCommand>),
    /// Copy a whole cluster into a folder, as it was at one moment.
    Backup(Box<backup::BackupArgs>),
    /// Bring a backup into a cluster, of any number of shards.
    Restore(Box<backup::RestoreArgs>),
    /// Bring a single Meilisearch into the cluster, and follow or compare it.
    Import(Box<import::ImportArgs>),
    /// Move a cluster's state while no merger runs.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Print completions of this command line for a shell.
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write all pages to a folder.
    Man(man::ManArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print an envoy.yaml for a cluster of any size, with a comment at every choice.
    Envoy(config_envoy::EnvoyArgs),
    /// Write the files of the shards for an Envoy that watches a folder (weft config envoy --dynamic): to start, and to add shards.
    Shards(config_envoy::ShardsArgs),
    /// Print an envoy.yaml for a node's own Envoy, whose filter refuses writes of a merger that leads no more.
    Guard(config_envoy::GuardArgs),
    /// Check an envoy.yaml: what the merger will see in it, and what is wrong, with its line.
    Check(config_check::CheckArgs),
}

/// Runs the command line that this process was given.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(options) => match serve::run(*options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Command::Cluster(command) => cluster::run(&command),
        Command::Completions(arguments) => print(&completions::run(&arguments, Cli::command())),
        Command::Man(arguments) => match man::run(&arguments, Cli::command()) {
            Ok(page) => print(&page),
            Err(error) => fail(&error),
        },
        Command::Config(command) => config(&command),
        Command::Backup(arguments) => moved(backup::run_backup(&arguments)),
        Command::Restore(arguments) => moved(backup::run_restore(&arguments)),
        Command::Import(arguments) => match import::run(&arguments) {
            Ok(done) if done.well => print(&done.text),
            Ok(done) => {
                print(&done.text);
                ExitCode::from(NOT_WELL)
            }
            Err(error) => {
                fail(&error);
                ExitCode::from(error.code())
            }
        },
        Command::Store(command) => match store::run(&command) {
            Ok(text) => print(&text),
            Err(error) => fail(&error),
        },
    }
}

fn config(command: &ConfigCommand) -> ExitCode {
    let text = match command {
        ConfigCommand::Envoy(arguments) => config_envoy::run(arguments),
        ConfigCommand::Shards(arguments) => config_envoy::run_shards(arguments),
        ConfigCommand::Guard(arguments) => config_envoy::run_guard(arguments),
        ConfigCommand::Check(arguments) => {
            return match config_check::run(arguments) {
                Ok((text, true)) => print(&text),
                Ok((text, false)) => {
                    print(&text);
                    ExitCode::from(NOT_WELL)
                }
                Err(error) => fail(&error),
            };
        }
    };
    match text {
        Ok(text) => print(&text),
        Err(error) => fail(&error),
    }
}

/// What a backup or a restore came to.
fn moved(done: Result<String, backup::BackupError>) -> ExitCode {
    match done {
        Ok(text) => print(&text),
        Err(error) => {
            eprintln!("weft: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn print(text: &str) -> ExitCode {
    output::write(text);
    ExitCode::SUCCESS
}

/// What the shell gets when what was looked at isn't well.
const NOT_WELL: u8 = 1;
/// What the shell gets for a wrong command line, option or file, which is also clap's code.
const WRONG: u8 = 2;
/// What the shell gets when the server can't be reached or refuses.
const NO_ANSWER: u8 = 3;

/// Prints one line for a person.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    ask::say(&format!("weft: {error}"));
    ExitCode::from(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_asks_has_examples_and_the_same_options() {
        for name in [
            "status",
            "nodes",
            "shards",
            "mergers",
            "indexes",
            "tasks",
            "search",
            "verify",
            "rebalance",
            "moves",
        ] {
            let mut cli = Cli::command();
            let command = cli.find_subcommand_mut(name).unwrap();
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{name}");
            for option in ["--url", "--master-key-file", "--json"] {
                assert!(help.contains(option), "{name} {option}");
            }
        }
    }

    #[test]
    fn no_command_takes_a_key_as_a_flag() {
        fn names(command: &clap::Command, found: &mut Vec<String>) {
            let flags = command.get_arguments().filter_map(|flag| flag.get_long());
            found.extend(flags.map(|flag| format!("{} --{flag}", command.get_name())));
            command
                .get_subcommands()
                .for_each(|below| names(below, found));
        }
        let mut found = Vec::new();
        names(&Cli::command(), &mut found);
        found.retain(|flag| flag.ends_with("key"));
        // Those of certificates are files.
        found.retain(|flag| !flag.ends_with("--etcd-key") && !flag.contains("--tls-"));
        // `serve` takes its key from the variable as a rule.
        assert_eq!(found, ["serve --master-key"]);
    }

    #[test]
    fn completions_and_pages_are_there_for_every_command() {
        let shell = completions::CompletionsArgs {
            shell: clap_complete::Shell::Bash,
        };
        let script = completions::run(&shell, Cli::command());
        let folder = tempfile::tempdir().unwrap();
        let out = Some(folder.path().join("man"));
        let written = man::run(&man::ManArgs { out }, Cli::command()).unwrap();
        assert_eq!(written, "");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(script.contains(name), "{name}");
            let page = folder.path().join(format!("man/weft-{name}.1"));
            assert!(page.is_file(), "{name}");
        }
        let page = man::run(&man::ManArgs { out: None }, Cli::command()).unwrap();
        assert!(page.starts_with(".ie"), "{page}");
    }
}
