//! A whole cluster: started, used and ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Binaries, ClusterPlan, Deadline, HarnessError, Layout, Lifetime, Link, PortBlock, Process,
    commands::Edit, link::Links, until,
};

/// How long a cluster may take until it answers its first request.
const STARTUP: Duration = Duration::from_secs(60);

/// How long one readiness request may take.
const PROBE: Duration = Duration::from_secs(2);

/// A running cluster; dropping it ends every process and removes what they wrote.
#[derive(Debug)]
pub struct Cluster {
    plan: ClusterPlan,
    nodes: Vec<Process>,
    merger: Process,
    envoy: Process,
    links: Option<Links>,
    client: Client,
    // Dropped after the processes, so that they are gone before their files and ports are.
    _folder: Option<TempDir>,
    _ports: Option<PortBlock>,
}

/// What kind of cluster to start.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    shards: u16,
    replicas: u16,
    filter: bool,
    body_routing: bool,
    master_key: Option<String>,
    access_log: &'static str,
    links: bool,
    merger_environment: Vec<(String, String)>,
    envoy: Option<PathBuf>,
    edit_envoy: Option<Edit>,
    place: Option<(u16, PathBuf)>,
    lifetime: Lifetime,
}

impl Cluster {
    /// A builder for a cluster of one shard and one node with the filter.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            shards: 1,
            replicas: 1,
            filter: true,
            body_routing: true,
            master_key: None,
            access_log: "failed",
            links: false,
            merger_environment: Vec::new(),
            envoy: None,
            edit_envoy: None,
            place: None,
            lifetime: Lifetime::WithUs,
        }
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        local(self.plan.layout.edge())
    }

    /// The URL of Envoy's admin interface.
    pub fn admin_url(&self) -> String {
        local(self.plan.layout.admin())
    }

    /// The URL of Envoy's egress listener.
    pub fn egress_url(&self) -> String {
        local(self.plan.layout.egress())
    }

    /// The URL of the merger itself, bypassing Envoy.
    pub fn merger_url(&self) -> String {
        local(self.plan.layout.merger())
    }

    /// The URL of a node itself, bypassing everything else.
    pub fn node_url(&self, shard: u16, replica: u16) -> String {
        local(self.plan.node_port(shard, replica))
    }

    /// The layout of its ports.
    pub fn layout(&self) -> Layout {
        self.plan.layout
    }

    /// The master key, if there is one.
    pub fn master_key(&self) -> Option<&str> {
        self.plan.master_key.as_deref()
    }

    /// The folder to which all of the cluster's programs write.
    pub fn folder(&self) -> &Path {
        &self.plan.folder
    }

    /// A node's process.
    ///
    /// # Panics
    /// There is no such node.
    #[allow(
        clippy::indexing_slicing,
        reason = "a test that asks for a missing node is wrong"
    )]
    pub fn node(&self, shard: u16, replica: u16) -> &Process {
        assert!(
            shard < self.plan.layout.shards() && replica < self.plan.layout.replicas(),
            "no such node"
        );
        &self.nodes[usize::from(shard * self.plan.layout.replicas() + replica)]
    }

    /// The relay between Envoy and a node, if the cluster was started with [`ClusterBuilder::links`].
    pub fn link(&self, shard: u16, replica: u16) -> Option<&Link> {
        let place = shard * self.plan.layout.replicas() + replica;
        self.links.as_ref()?.get(usize::from(place))
    }

    /// The merger's process.
    pub fn merger(&self) -> &Process {
        &self.merger
    }

    /// Envoy's process.
    pub fn envoy(&self) -> &Process {
        &self.envoy
    }

    /// Every process.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.nodes.iter().chain([&self.merger, &self.envoy])
    }

    /// Waits until clients get answers and Envoy sends reads to every running node.
    pub async fn wait_ready(&self) -> Result<(), HarnessError> {
        let deadline = Deadline::after(STARTUP);
        loop {
            for process in self.processes() {
                process.check_alive()?;
            }
            match self.unready().await {
                None => return Ok(()),
                Some(_) if !deadline.passed() => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Some(reason) => {
                    let tails = [&self.merger, &self.envoy].map(|process| {
                        format!(
                            "\n{} ({}):\n{}",
                            process.name(),
                            process.log().display(),
                            process.tail()
                        )
                    });
                    return Err(
                        deadline.missed("the cluster", &format!("{reason}{}", tails.concat()))
                    );
                }
            }
        }
    }

    /// Waits until Envoy calls a node ready, or until it no longer does.
    pub async fn wait_node_readable(
        &self,
        shard: u16,
        replica: u16,
        readable: bool,
    ) -> Result<(), HarnessError> {
        let name = Layout::node_name(shard, replica);
        let what = format!("{name} {} reads", if readable { "gets" } else { "gets no" });
        until(&what, Deadline::after(STARTUP), || async {
            let clusters = get_json(
                &self.client,
                &format!("{}/clusters?format=json", self.admin_url()),
            )
            .await?;
            let seen = hosts(&clusters).any(|(host, healthy)| host == name && healthy);
            if seen == readable {
                Ok(())
            } else {
                Err(clusters.to_string())
            }
        })
        .await
    }

    /// The reason why the cluster can't be used yet.
    async fn unready(&self) -> Option<String> {
        for (shard, replica) in self.plan.layout.nodes() {
            if self.node(shard, replica).id().is_none() {
                continue;
            }
            let health = format!("{}/health", self.node_url(shard, replica));
            if let Err(error) = get(&self.client, &health).await {
                return Some(format!("{}: {error}", Layout::node_name(shard, replica)));
            }
        }
        if let Err(error) = get(&self.client, &format!("{}/ready", self.admin_url())).await {
            return Some(format!("Envoy: {error}"));
        }
        match get_json(
            &self.client,
            &format!("{}/clusters?format=json", self.admin_url()),
        )
        .await
        {
            Err(error) => return Some(format!("Envoy's list of clusters: {error}")),
            Ok(clusters) => {
                let running = |name: &str| {
                    self.nodes
                        .iter()
                        .any(|node| node.name() == name && node.id().is_some())
                };
                if let Some((name, _)) =
                    hosts(&clusters).find(|(name, healthy)| !healthy && running(name))
                {
                    return Some(format!("Envoy sends no reads to {name}"));
                }
            }
        }
        // A request that any node answers, sent through the whole cluster: 503 until the merger knows the shards.
        let version = format!("{}/version", self.url());
        match self.client.get(&version).send().await {
            Err(error) => Some(format!("the edge: {error}")),
            Ok(reply) if reply.status().is_server_error() => {
                Some(format!("the edge answers {}", reply.status()))
            }
            Ok(_) => None,
        }
    }
}

impl ClusterBuilder {
    /// Sets the number of shards.
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = shards;
        self
    }

    /// Sets the number of nodes in each shard.
    pub fn replicas(mut self, replicas: u16) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets whether Envoy runs the filter.
    pub fn filter(mut self, filter: bool) -> Self {
        self.filter = filter;
        self
    }

    /// Sets whether the filter looks into small bodies.
    pub fn body_routing(mut self, body_routing: bool) -> Self {
        self.body_routing = body_routing;
        self
    }

    /// Sets the master key of nodes and merger; there is none by default.
    pub fn master_key(mut self, key: impl Into<String>) -> Self {
        self.master_key = Some(key.into());
        self
    }

    /// Sets what the edge logs: `all`, `failed` (the default here) or `off`.
    pub fn access_log(mut self, what: &'static str) -> Self {
        self.access_log = what;
        self
    }

    /// Sets whether Envoy reaches the nodes over relays that can be cut (see [`Link`]): one more hop, in this process.
    pub fn links(mut self, links: bool) -> Self {
        self.links = links;
        self
    }

    /// Sets an environment variable for the merger (`WEFT_…`).
    pub fn merger_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.merger_environment.push((name.into(), value.into()));
        self
    }

    /// Uses another Envoy than the one that [`Binaries`] finds.
    pub fn envoy(mut self, envoy: impl Into<PathBuf>) -> Self {
        self.envoy = Some(envoy.into());
        self
    }

    /// Edits Envoy's configuration, as an operator might.
    pub fn edit_envoy(mut self, edit: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.edit_envoy = Some(Edit(Arc::new(edit)));
        self
    }

    /// Uses these ports and this folder, which is kept; by default, free ports and a temporary folder.
    pub fn at(mut self, port: u16, folder: impl Into<PathBuf>) -> Self {
        self.place = Some((port, folder.into()));
        self
    }

    /// Sets whether the processes stay when the handle is dropped.
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Starts all processes and waits until the cluster answers.
    pub async fn start(self) -> Result<Cluster, HarnessError> {
        let cluster = self.launch()?;
        match cluster.wait_ready().await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                // Detached processes don't end with the handle, so a failed start must end them here.
                for process in cluster.processes() {
                    drop(process.kill());
                }
                Err(error)
            }
        }
    }

    /// Starts all processes without waiting for them.
    pub fn launch(self) -> Result<Cluster, HarnessError> {
        let mut binaries = Binaries::find()?;
        if let Some(envoy) = self.envoy {
            binaries.envoy = envoy;
        }
        let width = Layout::new(1, self.shards, self.replicas)?.width();
        let (ports, temporary, port, folder) = match self.place {
            Some((port, folder)) => (None, None, port, folder),
            None => {
                let ports = PortBlock::claim(width)?;
                let folder = tempfile::Builder::new()
                    .prefix("weft-")
                    .tempdir()
                    .map_err(HarnessError::file(std::env::temp_dir()))?;
                let (port, path) = (ports.base(), folder.path().to_owned());
                (Some(ports), Some(folder), port, path)
            }
        };
        let behind = match self.links {
            true => Some(PortBlock::claim(width)?),
            false => None,
        };
        let plan = ClusterPlan {
            binaries,
            layout: Layout::new(port, self.shards, self.replicas)?,
            folder,
            master_key: self.master_key,
            filter: self.filter,
            body_routing: self.body_routing,
            access_log: self.access_log,
            merger_environment: self.merger_environment,
            edit_envoy: self.edit_envoy,
            // At the same distance from the block's start as the nodes' own ports.
            behind_links: behind.as_ref().map(|ports| ports.base() + 10),
        };
        plan.layout.check_free()?;
        let ports_of_nodes: Vec<(u16, u16)> = plan
            .layout
            .nodes()
            .map(|(shard, replica)| {
                (
                    plan.layout.node(shard, replica),
                    plan.node_port(shard, replica),
                )
            })
            .collect();
        let links = behind
            .map(|ports| Links::open(&ports_of_nodes, ports))
            .transpose()?;
        let envoy = plan.envoy()?;
        let nodes = plan
            .layout
            .nodes()
            .map(|(shard, replica)| Process::start(plan.node(shard, replica), self.lifetime))
            .collect::<Result<_, _>>()?;
        Ok(Cluster {
            nodes,
            merger: Process::start(plan.merger(), self.lifetime)?,
            envoy: Process::start(envoy, self.lifetime)?,
            links,
            client: Client::builder().timeout(PROBE).build()?,
            plan,
            _folder: temporary,
            _ports: ports,
        })
    }
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

pub(crate) async fn get(client: &Client, url: &str) -> Result<String, String> {
    let answer = client
        .get(url)
        .send()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|error| error.to_string())?;
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(format!("{url} answers {status}: {body}"))
    }
}

pub(crate) async fn get_json(client: &Client, url: &str) -> Result<Value, String> {
    serde_json::from_str(&get(client, url).await?).map_err(|error| error.to_string())
}

/// The nodes in Envoy's list of clusters, and whether Envoy would send a read to each.
pub(crate) fn hosts(clusters: &Value) -> impl Iterator<Item = (&str, bool)> {
    clusters
        .get("cluster_statuses")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|cluster| {
            let name = cluster.get("name").and_then(Value::as_str);
            name.is_some_and(|name| name != "merger" && name != "node")
        })
        .filter_map(|cluster| cluster.get("host_statuses").and_then(Value::as_array))
        .flatten()
        .filter_map(|host| {
            let health = host.get("health_status")?.as_object()?;
            let healthy = health
                .iter()
                .all(|(name, value)| name == "eds_health_status" || value != &Value::Bool(true));
            Some((host.get("hostname")?.as_str()?, healthy))
        })
}
