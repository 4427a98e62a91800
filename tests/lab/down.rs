//! `weft-lab down`: ends the clusters that `up` started. The data stored by the nodes is kept.

use anyhow::Result;
use clap::Args;

use crate::say;
use crate::state::State;

/// Options of `weft-lab down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Only the cluster at this port; otherwise all of this checkout.
    #[arg(long)]
    port: Option<u16>,
}

pub(crate) fn run(arguments: &DownArgs) -> Result<()> {
    let states = match arguments.port {
        Some(port) => State::at(port)?.into_iter().collect(),
        None => State::all()?,
    };
    if states.is_empty() {
        say("Nothing is up.");
    }
    for state in states {
        state.end()?;
        say(format_args!(
            "The cluster at port {} is down; its data stays in {}.",
            state.layout.edge(),
            state.folder.display()
        ));
    }
    Ok(())
}
