//! `weft-lab status`: the clusters that `up` started, and whether they are running.

use anyhow::Result;

use crate::say;
use crate::state::State;
use crate::up::{Listening, listening};

pub(crate) fn run() -> Result<()> {
    let states = State::all()?;
    if states.is_empty() {
        say("Nothing is up.");
    }
    for state in states {
        say(format_args!(
            "Port {}: {} shard(s) of {} node(s), {} merger(s)",
            state.layout.edge(),
            state.layout.shards(),
            state.layout.replicas(),
            state.layout.mergers()
        ));
        for listening in listening(state.layout) {
            let Listening {
                name,
                address,
                process,
            } = listening;
            let runs = state.processes.iter().find(|known| known.name == process);
            let verdict = match runs {
                Some(known) if known.runs() => format!("process {}", known.id),
                Some(_) => "ended".to_owned(),
                None => "never started".to_owned(),
            };
            say(format_args!("  {name:<16} {address:<28} {verdict}"));
        }
    }
    Ok(())
}
