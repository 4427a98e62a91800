//! `weft man`: the manual pages of this command line.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_mangen::Man;

/// Options of `weft man`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft man | man -l -
  weft man --out /usr/local/share/man/man1     then: man weft-rebalance")]
pub(super) struct ManArgs {
    /// Write a page for each command to this folder, which is made if it is missing, instead of printing that of `weft`.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// The pages could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the pages can't be written{}: {source}", folder(.out.as_ref()))]
pub(super) struct ManError {
    out: Option<PathBuf>,
    #[source]
    source: std::io::Error,
}

fn folder(out: Option<&PathBuf>) -> String {
    out.map_or_else(String::new, |out| format!(" to {}", out.display()))
}

/// The page, or nothing after pages were written.
pub(super) fn run(arguments: &ManArgs, command: Command) -> Result<String, ManError> {
    let failed = |source| ManError {
        out: arguments.out.clone(),
        source,
    };
    match &arguments.out {
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page).map_err(failed)?;
            Ok(String::from_utf8_lossy(&page).into_owned())
        }
        Some(out) => {
            std::fs::create_dir_all(out).map_err(failed)?;
            clap_mangen::generate_to(command, out).map_err(failed)?;
            Ok(String::new())
        }
    }
}
