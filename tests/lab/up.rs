//! `weft-lab up`: starts a cluster in the background.

use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use weft_cluster::{Cluster, Layout, Lifetime};

use crate::say;
use crate::state::{Background, State};

/// Options of `weft-lab up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Number of shards.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    shards: u16,
    /// Nodes in each shard.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10))]
    replicas: u16,
    /// Port for clients; all other ports are derived from it.
    #[arg(long, default_value_t = 7700)]
    port: u16,
    /// Master key of nodes and merger. Without one, requests need no key.
    #[arg(long, env = "MASTER_KEY", hide_env_values = true)]
    master_key: Option<String>,
    /// Whether Envoy runs the filter.
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    filter: bool,
    /// Whether the filter looks into small bodies.
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    body_routing: bool,
    /// Delete what an earlier cluster of this size at this port has stored.
    #[arg(long)]
    fresh: bool,
}

pub(crate) async fn run(arguments: UpArgs) -> Result<()> {
    if let Some(state) = State::at(arguments.port)?.filter(State::runs) {
        bail!(
            "a cluster is already running at port {}: `make status` shows it, `make down` stops it",
            state.layout.edge()
        );
    }
    let layout = Layout::new(arguments.port, arguments.shards, arguments.replicas).map_err(line)?;
    layout.check_free().map_err(line)?;
    // A cluster of another size has its own folder, because its documents are placed differently.
    let folder =
        State::home(arguments.port).join(format!("{}x{}", arguments.shards, arguments.replicas));
    if arguments.fresh && folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let mut builder = Cluster::builder()
        .shards(arguments.shards)
        .replicas(arguments.replicas)
        .filter(arguments.filter)
        .body_routing(arguments.body_routing)
        .access_log("all")
        .lifetime(Lifetime::Detached)
        .at(arguments.port, &folder);
    let key = arguments.master_key.filter(|key| !key.is_empty());
    if let Some(key) = &key {
        builder = builder.master_key(key);
    }
    let cluster = builder.launch().map_err(line)?;
    let state = State {
        layout,
        folder,
        filter: arguments.filter,
        body_routing: arguments.body_routing,
        processes: cluster
            .processes()
            .filter_map(|process| Some(Background::of(process.name(), process.id()?)))
            .collect(),
    };
    state.write()?;
    let ready = tokio::select! {
        ready = cluster.wait_ready() => ready.map_err(line),
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(error) = ready {
        state.end()?;
        return Err(error);
    }
    describe(&state, key.is_some());
    Ok(())
}

/// The error with its causes. The harness's errors are complete, so no context is added.
fn line(error: weft_cluster::HarnessError) -> anyhow::Error {
    anyhow::anyhow!(error.line())
}

/// Prints where everything is, and what to try first.
fn describe(state: &State, with_key: bool) {
    let url = format!("http://127.0.0.1:{}", state.layout.edge());
    let on = |yes: bool| if yes { "on" } else { "off" };
    say(format_args!(
        "Weft is up: {} shard(s) of {} node(s), filter {}, body routing {}\n",
        state.layout.shards(),
        state.layout.replicas(),
        on(state.filter),
        on(state.filter && state.body_routing),
    ));
    for (name, address) in addresses(state.layout) {
        say(format_args!("  {name:<16} {address}"));
    }
    say(format_args!(
        "  {:<16} {}\n",
        "logs",
        state.folder.join("logs").display()
    ));
    let key = if with_key {
        " -H \"authorization: Bearer $MASTER_KEY\""
    } else {
        ""
    };
    say(format_args!(
        "Try it:\n  curl {url}/indexes/films/documents -H 'content-type: application/json'{key} \\\n    \
         --data '[{{\"id\":1,\"title\":\"Alien\"}},{{\"id\":2,\"title\":\"Aliens\"}}]'\n  \
         curl '{url}/indexes/films/search?q=alien'{key}\n\nStop it: make down"
    ));
}

/// The addresses of everything that listens, by name.
pub(crate) fn addresses(layout: Layout) -> Vec<(String, String)> {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let own = [
        ("clients", layout.edge()),
        ("Envoy admin", layout.admin()),
        ("Envoy egress", layout.egress()),
        ("merger", layout.merger()),
    ];
    own.into_iter()
        .map(|(name, port)| (name.to_owned(), url(port)))
        .chain(layout.nodes().map(|(shard, replica)| {
            (
                Layout::node_name(shard, replica),
                url(layout.node(shard, replica)),
            )
        }))
        .collect()
}
