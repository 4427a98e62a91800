//! A whole cluster: started, used and ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::pair::local;
use crate::supervisor::Supervisor;
use crate::{
    Api, ClusterBuilder, ClusterPlan, Deadline, HarnessError, Layout, Link, Pair, PortBlock,
    Process, etcd, until,
};

/// How long a cluster may take until it answers its first request.
const STARTUP: Duration = Duration::from_secs(60);

/// How long one readiness request may take.
pub(crate) const PROBE: Duration = Duration::from_secs(2);

/// A running cluster; dropping it ends every process and removes what they wrote.
#[derive(Debug)]
pub struct Cluster {
    // Dropped first: nothing is started again while the rest ends.
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) plan: ClusterPlan,
    pub(crate) nodes: Vec<Process>,
    pub(crate) guards: Vec<Process>,
    pub(crate) spares: Vec<Process>,
    pub(crate) pairs: Vec<Pair>,
    /// The pair that is meant where none is named.
    pub(crate) front: usize,
    pub(crate) etcd: Vec<Process>,
    pub(crate) client: Client,
    // Dropped after the processes, so that they are gone before their files and ports are.
    pub(crate) _folder: Option<TempDir>,
    pub(crate) _ports: Vec<PortBlock>,
}

impl Cluster {
    /// A builder for a cluster of one shard and one node with the filter.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// One pair of Envoy and merger.
    ///
    /// # Panics
    /// There is no such pair.
    #[allow(
        clippy::indexing_slicing,
        reason = "a test that asks for a missing pair is wrong"
    )]
    pub fn pair(&self, pair: usize) -> &Pair {
        &self.pairs[pair]
    }

    /// The pair that is meant by whatever names none: the first, or with [`ClusterBuilder::through_follower`] the first whose
    /// merger didn't lead at the start.
    pub fn front(&self) -> &Pair {
        self.pair(self.front)
    }

    /// All pairs of Envoy and merger.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// The members of etcd, if there are any.
    pub fn etcd(&self) -> &[Process] {
        &self.etcd
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        self.front().url()
    }

    /// The URL of Envoy's admin interface.
    pub fn admin_url(&self) -> String {
        self.front().admin_url()
    }

    /// The URL of Envoy's egress listener.
    pub fn egress_url(&self) -> String {
        self.front().egress_url()
    }

    /// The URL of the merger itself, bypassing Envoy.
    pub fn merger_url(&self) -> String {
        self.front().merger_url()
    }

    /// The path of one of the sockets between a pair's Envoy and merger, by its name.
    pub fn socket(&self, pair: u16, name: &str) -> PathBuf {
        self.plan.socket(pair, name)
    }

    /// The URL of a node itself, bypassing everything else.
    pub fn node_url(&self, shard: u16, replica: u16) -> String {
        local(self.plan.node_port(shard, replica))
    }

    /// The URL of the admin interface of a node's own Envoy, if it has one.
    pub fn guard_admin_url(&self, shard: u16, replica: u16) -> Option<String> {
        let (_, admin) = self.plan.guard_ports(shard, replica)?;
        Some(local(admin))
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
        self.front().link(shard, replica)
    }

    /// The merger's process.
    pub fn merger(&self) -> &Process {
        self.front().merger()
    }

    /// Envoy's process.
    pub fn envoy(&self) -> &Process {
        self.front().envoy()
    }

    /// Every process.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let pairs = self.pairs.iter();
        let pairs = pairs.flat_map(|pair| [pair.merger(), pair.envoy()]);
        let nodes = self.nodes.iter().chain(&self.spares).chain(&self.guards);
        self.etcd.iter().chain(nodes).chain(pairs)
    }

    /// A client for each pair's Envoy, with the master key.
    pub fn edges(&self) -> Vec<Api> {
        let edges = self.pairs.iter();
        edges
            .map(|pair| Api::new(pair.url(), self.master_key()))
            .collect()
    }

    /// The member that leads etcd itself; `None` if none does, as during an election.
    pub async fn etcd_leader(&self) -> Option<usize> {
        let layout = self.plan.layout;
        let members = 0..layout.etcd_members();
        let ports = members.map(|member| layout.etcd(member).0);
        etcd::leading_member(&self.client, ports).await
    }

    /// The pair whose merger holds the leader's key in etcd; `None` if nobody holds it. A cluster without etcd has one merger,
    /// which leads. This asks etcd and no merger, which might be the one that doesn't know yet.
    ///
    /// # Errors
    /// etcd doesn't answer.
    pub async fn leader(&self) -> Result<Option<usize>, String> {
        if self.etcd.is_empty() {
            return Ok(Some(0));
        }
        let layout = self.plan.layout;
        let members = (0..layout.etcd_members()).filter(|member| {
            let process = self.etcd.get(usize::from(*member));
            process.is_some_and(|process| process.id().is_some())
        });
        let ports = members.map(|member| layout.etcd(member).0);
        let leader = etcd::leader(&self.client, ports).await?;
        Ok(leader.and_then(|address| {
            let mut pairs = self.pairs.iter();
            pairs.position(|pair| pair.merger_url() == format!("http://{address}"))
        }))
    }

    /// Waits until another pair's merger leads than this one's; returns which.
    pub async fn wait_leader(&self, other_than: Option<usize>) -> Result<usize, HarnessError> {
        let what = match other_than {
            Some(pair) => format!("another leader than merger {pair}"),
            None => "a leader".to_owned(),
        };
        until(&what, Deadline::after(STARTUP), || async {
            match self.leader().await? {
                Some(pair) if Some(pair) != other_than => Ok(pair),
                leader => Err(format!("{leader:?}")),
            }
        })
        .await
    }

    /// Waits until clients get answers and Envoy sends reads to every running node.
    pub async fn wait_ready(&self) -> Result<(), HarnessError> {
        let deadline = Deadline::after(STARTUP);
        loop {
            self.check_alive()?;
            match self.unready().await {
                None => return Ok(()),
                Some(_) if !deadline.passed() => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Some(reason) => {
                    let pairs = self.pairs.iter();
                    let tails: String = pairs
                        .flat_map(|pair| [pair.merger(), pair.envoy()])
                        .chain(&self.etcd)
                        .map(|process| {
                            format!(
                                "\n{} ({}):\n{}",
                                process.name(),
                                process.log().display(),
                                process.tail()
                            )
                        })
                        .collect();
                    return Err(deadline.missed("the cluster", &format!("{reason}{tails}")));
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
        let place = (shard, replica);
        self.wait_node_readable_at(self.front(), place, readable)
            .await
    }

    /// The same with one pair's Envoy.
    pub async fn wait_node_readable_at(
        &self,
        pair: &Pair,
        (shard, replica): (u16, u16),
        readable: bool,
    ) -> Result<(), HarnessError> {
        let name = Layout::node_name(shard, replica);
        self.wait_readable_at(pair, &name, readable).await
    }

    /// Waits until one pair's Envoy calls a node or a spare that serves ready, or until it no longer does.
    pub async fn wait_readable_at(
        &self,
        pair: &Pair,
        name: &str,
        readable: bool,
    ) -> Result<(), HarnessError> {
        let what = format!("{name} {} reads", if readable { "gets" } else { "gets no" });
        until(&what, Deadline::after(STARTUP), || async {
            let clusters = self.clusters(pair).await?;
            let seen = hosts(&clusters).any(|(host, healthy)| host == name && healthy);
            if seen == readable {
                Ok(())
            } else {
                Err(clusters.to_string())
            }
        })
        .await
    }

    /// Envoy's list of clusters.
    async fn clusters(&self, pair: &Pair) -> Result<Value, String> {
        let url = format!("{}/clusters?format=json", pair.admin_url());
        get_json(&self.client, &url).await
    }

    /// Fails if a program ended by itself that nobody starts again.
    fn check_alive(&self) -> Result<(), HarnessError> {
        for process in self.etcd.iter().chain(&self.nodes).chain(&self.spares) {
            process.check_alive()?;
        }
        for pair in &self.pairs {
            pair.envoy().check_alive()?;
            if self.supervisor.is_none() {
                pair.merger().check_alive()?;
            }
        }
        Ok(())
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
        let reading = match self.reading().await {
            Ok(reading) => reading,
            Err(error) => return Some(error),
        };
        let runs = |pair: &Pair| pair.merger().id().is_some() && pair.envoy().id().is_some();
        let running = self.pairs.iter().zip(reading);
        let mut running = running.filter(|(pair, _)| runs(pair)).peekable();
        if running.peek().is_none() {
            return Some("no merger with an Envoy runs".to_owned());
        }
        for (pair, reads) in running {
            if let Some(reason) = self.unready_pair(pair, reads).await {
                return Some(format!("{}: {reason}", pair.envoy().name()));
            }
        }
        None
    }

    /// Which pairs answer reads themselves: the leader's, and the others' if they say who leads and who follows.
    async fn reading(&self) -> Result<Vec<bool>, String> {
        let leader = self.leader().await?.ok_or("no merger leads")?;
        if self.pairs.len() == 1 {
            return Ok(vec![true]);
        }
        let api = Api::new(self.pair(leader).merger_url(), self.master_key());
        let mergers = api.get("/_cluster/mergers").await;
        let all = mergers.is_ok_and(|reply| reply.status == 200);
        Ok((0..self.pairs.len())
            .map(|pair| all || pair == leader)
            .collect())
    }

    /// The reason why one pair can't be used yet; `reads` says whether its Envoy should send reads to nodes.
    async fn unready_pair(&self, pair: &Pair, reads: bool) -> Option<String> {
        if let Err(error) = get(&self.client, &format!("{}/ready", pair.admin_url())).await {
            return Some(error);
        }
        match self.clusters(pair).await {
            Err(error) => return Some(format!("its list of clusters: {error}")),
            Ok(clusters) => {
                let running = |name: &str| {
                    self.nodes
                        .iter()
                        .any(|node| node.name() == name && node.id().is_some())
                };
                let waiting =
                    hosts(&clusters).find(|(name, healthy)| !healthy && running(name) && reads);
                if let Some((name, _)) = waiting {
                    return Some(format!("it sends no reads to {name}"));
                }
                // Until then, the other mergers answer its clients.
                if pair.merger().id().is_some() && asks_others(&clusters, &pair.merger_url()) {
                    return Some("it doesn't call its own merger healthy".to_owned());
                }
            }
        }
        // A request that any node answers, sent through the whole cluster: 503 until the merger knows the shards.
        let version = format!("{}/version", pair.url());
        match self.client.get(&version).send().await {
            Err(error) => Some(format!("the edge: {error}")),
            Ok(reply) if reply.status().is_server_error() => {
                Some(format!("the edge answers {}", reply.status()))
            }
            Ok(_) => None,
        }
    }
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

/// Whether Envoy knows several mergers, and calls the one at this URL unhealthy.
fn asks_others(clusters: &Value, own: &str) -> bool {
    let list = |of: &Value, name: &str| {
        let items = of.get(name).and_then(Value::as_array);
        items.cloned().unwrap_or_default()
    };
    let statuses = list(clusters, "cluster_statuses").into_iter();
    let mergers = statuses.filter(|cluster| {
        let name = cluster.get("name").and_then(Value::as_str);
        name == Some("mergers")
    });
    let mut hosts = mergers.flat_map(|cluster| list(&cluster, "host_statuses"));
    hosts.any(|host| {
        let port = host.pointer("/address/socket_address/port_value");
        let is_own = port.is_some_and(|port| own.ends_with(&format!(":{port}")));
        let failed = host.pointer("/health_status/failed_active_health_check");
        is_own && failed == Some(&Value::Bool(true))
    })
}

/// The nodes in Envoy's list of clusters, and whether Envoy would send a read to each.
pub fn hosts(clusters: &Value) -> impl Iterator<Item = (&str, bool)> {
    clusters
        .get("cluster_statuses")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|cluster| {
            let name = cluster.get("name").and_then(Value::as_str);
            name.is_some_and(|name| !["merger", "node", "spare"].contains(&name))
        })
        .filter_map(|cluster| cluster.get("host_statuses").and_then(Value::as_array))
        .flatten()
        .filter_map(|host| {
            let health = host.get("health_status")?.as_object()?;
            let healthy = health
                .iter()
                // A degraded host gets reads if no other can: nodes are so while they index.
                .all(|(name, value)| {
                    ["eds_health_status", "failed_active_degraded_check"].contains(&name.as_str())
                        || value != &Value::Bool(true)
                });
            Some((host.get("hostname")?.as_str()?, healthy))
        })
}
