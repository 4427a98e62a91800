//! `weft-lab grow`: adds a shard to a cluster that `up` started, while it runs. Envoy isn't restarted: it watches the file in which
//! its shards are listed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use weft_cluster::{Api, Cluster, ClusterPlan, Deadline, Layout, Lifetime, hosts, until};

use crate::say;
use crate::state::{Background, State};
use crate::up::line;

/// Options of `weft-lab grow`.
#[derive(Debug, Args)]
pub(crate) struct GrowArgs {
    /// The port for the cluster's clients.
    #[arg(long, default_value_t = 7700)]
    port: u16,
    /// The master key with which the cluster was started, if it has one.
    #[arg(long, env = "MASTER_KEY", hide_env_values = true)]
    master_key: Option<String>,
}

/// How long Envoys and mergers may take until they list the new shard.
const LISTED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(arguments: GrowArgs) -> Result<()> {
    let port = arguments.port;
    let Some(mut state) = State::at(port)?.filter(State::runs) else {
        bail!("no cluster is up at port {port}: `make up` starts one");
    };
    let key = arguments.master_key.filter(|key| !key.is_empty());
    let edge = Api::new(format!("http://127.0.0.1:{port}"), key.as_deref());
    let known = edge.get("/_cluster/shards").await.map_err(line)?;
    if known.status != 200 {
        bail!(
            "the cluster doesn't list its shards, so MASTER_KEY may not be its own: {}",
            known.text
        );
    }
    let mut plan = plan(&state, key)?;
    if !plan.watched_folder(0).is_dir() {
        bail!(
            "this cluster was started by an older version, and its Envoy watches no files: `make down up` first"
        );
    }
    let shard = plan.layout.shards();
    let started = plan.start_shard(Lifetime::Detached).map_err(line)?;
    // Written first, so that `down` ends them whatever comes.
    let processes = started.iter();
    let processes =
        processes.filter_map(|process| Some(Background::of(process.name(), process.id()?)));
    state.processes.extend(processes);
    state.layout = plan.layout;
    state.write()?;
    remember(&state.folder, plan.layout.shards())?;
    plan.list_shard(shard).await.map_err(line)?;
    wait_listed(&plan, &edge, shard).await.map_err(line)?;
    describe(&plan, shard);
    Ok(())
}

/// The number of shards to which the cluster in a folder has grown, if it has.
pub(crate) fn grown_to(folder: &Path) -> Option<u16> {
    let text = fs::read_to_string(folder.join("shards")).ok()?;
    text.trim().parse().ok()
}

fn remember(folder: &Path, shards: u16) -> Result<()> {
    let file = folder.join("shards");
    fs::write(&file, format!("{shards}\n")).with_context(|| file.display().to_string())
}

/// The cluster as `up` has planned it.
fn plan(state: &State, key: Option<String>) -> Result<ClusterPlan> {
    let layout = state.layout;
    let mut builder = Cluster::builder()
        .shards(layout.shards())
        .replicas(layout.replicas())
        .mergers(layout.mergers())
        .etcd(layout.etcd_members())
        .filter(state.filter)
        .body_routing(state.body_routing)
        .access_log("all")
        .watched(0)
        .at(layout.edge(), &state.folder);
    if let Some(key) = key {
        builder = builder.master_key(key);
    }
    builder.into_plan().map_err(line)
}

/// Waits until every Envoy sends reads to the new nodes, and the merger calls the new shard green.
async fn wait_listed(
    plan: &ClusterPlan,
    edge: &Api,
    shard: u16,
) -> Result<(), weft_cluster::HarnessError> {
    let replicas = 0..plan.layout.replicas();
    let names: Vec<String> = replicas
        .map(|replica| Layout::node_name(shard, replica))
        .collect();
    let what = format!("shard-{shard} is listed by every Envoy and by the merger");
    until(&what, Deadline::after(LISTED_WITHIN), || async {
        for pair in 0..plan.layout.mergers() {
            let admin = plan.layout.pair(pair).admin();
            let admin = Api::new(format!("http://127.0.0.1:{admin}"), None);
            let listed = admin.get("/clusters?format=json").await;
            let listed = listed.map_err(|error| error.line())?;
            let clusters: Value = serde_json::from_str(&listed.text).unwrap_or_default();
            let ready = |name: &String| hosts(&clusters).any(|(host, ready)| host == name && ready);
            if let Some(missing) = names.iter().find(|name| !ready(name)) {
                return Err(format!("Envoy {pair} sends no reads to {missing}"));
            }
        }
        let shards = edge.get("/_cluster/shards").await;
        let shards = shards.map_err(|error| error.line())?;
        let listed = shards.at("/shards").as_array();
        let is_there = |one: &Value| one["shardId"] == shard && one["state"] == "green";
        match listed.is_some_and(|listed| listed.iter().any(is_there)) {
            true => Ok(()),
            false => Err(shards.text),
        }
    })
    .await
}

/// Prints what is there now, and what to do next.
fn describe(plan: &ClusterPlan, shard: u16) {
    let url = format!("http://127.0.0.1:{}", plan.layout.edge());
    let key = match plan.master_key {
        Some(_) => " -H \"authorization: Bearer $MASTER_KEY\"",
        None => "",
    };
    say(format_args!(
        "shard-{shard} is there, with {} node(s), and empty:",
        plan.layout.replicas()
    ));
    for replica in 0..plan.layout.replicas() {
        let name = Layout::node_name(shard, replica);
        let port = plan.layout.node(shard, replica);
        say(format_args!("  {name:<16} http://127.0.0.1:{port}"));
    }
    say(format_args!(
        "\nLet it take its share, while clients go on:\n  curl -X POST {url}/_cluster/rebalance{key}\n  \
         curl {url}/_cluster/moves{key}"
    ));
}
