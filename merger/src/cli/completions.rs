//! `weft completions`: completions of this command line for a shell.

use clap::{Args, Command};
use clap_complete::Shell;

/// Options of `weft completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft completions bash > /etc/bash_completion.d/weft
  weft completions zsh > \"${fpath[1]}/_weft\"
  weft completions fish > ~/.config/fish/completions/weft.fish")]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// The script for the shell.
pub(super) fn run(arguments: &CompletionsArgs, mut command: Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "weft", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
