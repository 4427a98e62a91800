//! `weft-lab up`: starts a cluster in the background.

use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use weft_cluster::{Binaries, Cluster, Layout, Lifetime};

use crate::grow::grown_to;
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
    /// Pairs of Envoy and merger. Several share an etcd of three members.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    mergers: u16,
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

/// Members of the etcd that several mergers share.
const ETCD_MEMBERS: u16 = 3;

pub(crate) async fn run(arguments: UpArgs) -> Result<()> {
    if let Some(state) = State::at(arguments.port)?.filter(State::runs) {
        bail!(
            "a cluster is already running at port {}: `make status` shows it, `make down` stops it",
            state.layout.edge()
        );
    }
    let several = arguments.mergers > 1;
    let members = if several { ETCD_MEMBERS } else { 0 };
    if several {
        Binaries::etcd().map_err(line)?;
    }
    // A cluster of another size has its own folder, because its documents are placed differently. So has one whose state is in
    // etcd, and not on a merger's disk.
    let folder = State::home(arguments.port).join(format!(
        "{}x{}{}",
        arguments.shards,
        arguments.replicas,
        if several { "-etcd" } else { "" }
    ));
    if arguments.fresh && folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    // With the shards that `grow` has added: documents may lie there.
    let shards = grown_to(&folder).map_or(arguments.shards, |grown| grown.max(arguments.shards));
    let layout = Layout::new(arguments.port, shards, arguments.replicas)
        .and_then(|layout| layout.with_mergers(arguments.mergers, members))
        .map_err(line)?;
    layout.check_free().map_err(line)?;
    let mut builder = Cluster::builder()
        .shards(shards)
        .replicas(arguments.replicas)
        .mergers(arguments.mergers)
        .etcd(members)
        .etcd_syncs(true)
        .filter(arguments.filter)
        .body_routing(arguments.body_routing)
        .access_log("all")
        .watched(0)
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
pub(crate) fn line(error: weft_cluster::HarnessError) -> anyhow::Error {
    anyhow::anyhow!(error.line())
}

/// Prints where everything is, and what to try first.
fn describe(state: &State, with_key: bool) {
    let url = format!("http://127.0.0.1:{}", state.layout.edge());
    let on = |yes: bool| if yes { "on" } else { "off" };
    let mergers = match state.layout.mergers() {
        1 => String::new(),
        mergers => format!(", {mergers} mergers"),
    };
    say(format_args!(
        "Weft is up: {} shard(s) of {} node(s){mergers}, filter {}, body routing {}\n",
        state.layout.shards(),
        state.layout.replicas(),
        on(state.filter),
        on(state.filter && state.body_routing),
    ));
    for Listening { name, address, .. } in listening(state.layout) {
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
         curl '{url}/indexes/films/search?q=alien'{key}\n\n\
         Look at it: {url}/_cluster/ui, or\n  \
         export WEFT_URL={url}\n  \
         target/release/weft status\n\nAdd a shard: make grow\nStop it: make down"
    ));
}

/// Something that listens.
pub(crate) struct Listening {
    /// What people call it.
    pub(crate) name: String,
    /// Its URL.
    pub(crate) address: String,
    /// The name of the process.
    pub(crate) process: String,
}

/// Everything that listens.
pub(crate) fn listening(layout: Layout) -> Vec<Listening> {
    let at = |name: String, port: u16, process: String| Listening {
        name,
        address: format!("http://127.0.0.1:{port}"),
        process,
    };
    let mut all = Vec::new();
    for pair in 0..layout.mergers() {
        let ports = layout.pair(pair);
        let number = match layout.mergers() {
            1 => String::new(),
            _ => format!(" {pair}"),
        };
        let (envoy, merger) = (layout.envoy_name(pair), layout.merger_name(pair));
        // All of Envoy's listeners belong to one process.
        for (name, port, process) in [
            ("clients", ports.edge(), &envoy),
            ("Envoy admin", ports.admin(), &envoy),
            ("Envoy egress", ports.egress(), &envoy),
            ("merger", ports.merger(), &merger),
        ] {
            all.push(at(format!("{name}{number}"), port, process.clone()));
        }
    }
    for member in 0..layout.etcd_members() {
        let name = layout.etcd_name(member);
        all.push(at(name.clone(), layout.etcd(member).0, name));
    }
    for (shard, replica) in layout.nodes() {
        let name = Layout::node_name(shard, replica);
        all.push(at(name.clone(), layout.node(shard, replica), name));
    }
    all
}
