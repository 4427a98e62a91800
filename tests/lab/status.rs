//! `weft-lab status`: the clusters that `up` started, and whether they are running.

use anyhow::Result;

use crate::say;
use crate::state::State;
use crate::up::addresses;

pub(crate) fn run() -> Result<()> {
    let states = State::all()?;
    if states.is_empty() {
        say("Nothing is up.");
    }
    for state in states {
        say(format_args!(
            "Port {}: {} shard(s) of {} node(s)",
            state.layout.edge(),
            state.layout.shards(),
            state.layout.replicas()
        ));
        for (name, address) in addresses(state.layout) {
            // All of Envoy's listeners belong to one process.
            let process = if name == "clients" || name.starts_with("Envoy") {
                "envoy"
            } else {
                &name
            };
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
