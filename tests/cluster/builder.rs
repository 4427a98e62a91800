//! What kind of cluster to start, and its start.

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Client;
use tempfile::TempDir;

use crate::cluster::PROBE;
use crate::commands::Edit;
use crate::link::Links;
use crate::supervisor::Supervisor;
use crate::{
    Binaries, Cluster, ClusterPlan, HarnessError, Layout, Lifetime, Pair, PortBlock, Process,
    Sockets, Watched, etcd,
};

/// What kind of cluster to start.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    shards: u16,
    replicas: u16,
    mergers: u16,
    etcd: u16,
    etcd_syncs: bool,
    etcd_tls: Option<[PathBuf; 3]>,
    through_follower: bool,
    filter: bool,
    body_routing: bool,
    master_key: Option<String>,
    access_log: &'static str,
    links: bool,
    guards: bool,
    sockets: Option<Sockets>,
    merger_environment: Vec<(String, String)>,
    envoy: Option<PathBuf>,
    envoy_arguments: Vec<String>,
    edit_envoy: Option<Edit>,
    watched: Option<Watched>,
    room: u16,
    place: Option<(u16, PathBuf)>,
    lifetime: Lifetime,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            shards: 1,
            replicas: 1,
            mergers: 1,
            etcd: 0,
            etcd_syncs: false,
            etcd_tls: None,
            through_follower: std::env::var_os("WEFT_TEST_FOLLOWER").is_some(),
            filter: true,
            body_routing: true,
            master_key: None,
            access_log: "failed",
            links: false,
            guards: false,
            sockets: std::env::var_os("WEFT_TEST_SOCKETS").map(|_| Sockets::BesideTcp),
            merger_environment: Vec::new(),
            envoy: None,
            envoy_arguments: Vec::new(),
            edit_envoy: None,
            watched: None,
            room: 0,
            place: None,
            lifetime: Lifetime::WithUs,
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

    /// Sets the number of pairs of Envoy and merger. More than one need etcd: one member, unless [`etcd`](Self::etcd) says more.
    pub fn mergers(mut self, mergers: u16) -> Self {
        self.mergers = mergers;
        self
    }

    /// Sets the number of members of etcd. Without any, and with one merger, the merger's state is on its own disk.
    pub fn etcd(mut self, members: u16) -> Self {
        self.etcd = members;
        self
    }

    /// Sets whether etcd waits for its disk. It doesn't by default, because here only processes die.
    pub fn etcd_syncs(mut self, syncs: bool) -> Self {
        self.etcd_syncs = syncs;
        self
    }

    /// Lets etcd speak TLS: with this certificate and its key, to who has one of this authority. Mergers need theirs, by
    /// [`merger_env`](Self::merger_env); the harness has none, so it must not be asked who leads, nor to wait for it.
    pub fn etcd_tls(mut self, [certificate, key, authority]: [PathBuf; 3]) -> Self {
        self.etcd_tls = Some([certificate, key, authority]);
        self
    }

    /// Sets whether the cluster gets a second merger, if it has only one, and clients go through an Envoy whose merger doesn't
    /// lead. With the variable `WEFT_TEST_FOLLOWER` all clusters are so: every scenario is one for followers, too.
    pub fn through_follower(mut self, through: bool) -> Self {
        self.through_follower = through;
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

    /// Sets whether Envoys reach nodes, and mergers etcd, over relays that can be cut (see [`Link`](crate::Link)): one more hop,
    /// in this process.
    pub fn links(mut self, links: bool) -> Self {
        self.links = links;
        self
    }

    /// Puts an Envoy of its own in front of each node, behind the relays, whose filter refuses writes of older terms. Implies
    /// [`links`](Self::links).
    pub fn guards(mut self) -> Self {
        (self.links, self.guards) = (true, true);
        self
    }

    /// Lets each Envoy and its merger reach each other over Unix sockets, or over TCP (`None`). With the variable
    /// `WEFT_TEST_SOCKETS`, all clusters use them that say nothing else.
    pub fn sockets(mut self, sockets: Option<Sockets>) -> Self {
        self.sockets = sockets;
        self
    }

    /// Sets an environment variable for every merger (`WEFT_…`).
    pub fn merger_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.merger_environment.push((name.into(), value.into()));
        self
    }

    /// Uses another Envoy than the one that [`Binaries`] finds.
    pub fn envoy(mut self, envoy: impl Into<PathBuf>) -> Self {
        self.envoy = Some(envoy.into());
        self
    }

    /// Gives `weft config envoy` these arguments, too.
    pub fn envoy_args(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let arguments = arguments.into_iter().map(Into::into);
        self.envoy_arguments.extend(arguments);
        self
    }

    /// Edits Envoy's configuration, as an operator might.
    pub fn edit_envoy(mut self, edit: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.edit_envoy = Some(Edit(Arc::new(edit)));
        self
    }

    /// Lets Envoys watch files for the shards, so that more can be added; in a test, ports are kept free for so many.
    pub fn watched(mut self, room: u16) -> Self {
        self.watched = Some(self.watched.unwrap_or_default());
        self.room = room;
        self
    }

    /// Lets Envoys watch a file for each shard's nodes, too, and sets the number of spare nodes. Not together with
    /// [`links`](Self::links).
    pub fn spares(mut self, spares: u16) -> Self {
        self.watched = Some(Watched {
            eds: true,
            spares,
            first_spare: 0,
        });
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
        let through_follower = self.through_follower;
        let mut cluster = self.launch()?;
        match cluster.wait_ready().await {
            Ok(()) if through_follower => {
                let leader = cluster.wait_leader(None).await?;
                cluster.front = usize::from(leader == 0);
                Ok(cluster)
            }
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

    /// The layout of the ports, counted up from this one.
    pub fn layout(&self, port: u16) -> Result<Layout, HarnessError> {
        let mergers = match self.through_follower {
            true => self.mergers.max(2),
            false => self.mergers,
        };
        let members = match self.etcd {
            0 if mergers > 1 => 1,
            members => members,
        };
        Layout::new(port, self.shards, self.replicas)?.with_mergers(mergers, members)
    }

    /// Starts all processes without waiting for them.
    pub fn launch(self) -> Result<Cluster, HarnessError> {
        let lifetime = self.lifetime;
        let (plan, temporary, ports) = self.plan()?;
        plan.layout.check_free()?;
        let etcd = (0..plan.layout.etcd_members())
            .map(|member| Process::start(etcd::member(&plan, member)?, lifetime))
            .collect::<Result<_, _>>()?;
        let nodes = plan
            .layout
            .nodes()
            .map(|(shard, replica)| Process::start(plan.node(shard, replica), lifetime))
            .collect::<Result<_, _>>()?;
        let mut guards = Vec::new();
        for (shard, replica) in plan.layout.nodes() {
            if let Some(guard) = plan.guard(shard, replica)? {
                guards.push(Process::start(guard, lifetime)?);
            }
        }
        let spares = (0..plan.watched.map_or(0, |watched| watched.spares))
            .map(|spare| Process::start(plan.spare(spare), lifetime))
            .collect::<Result<_, _>>()?;
        let pairs: Vec<Pair> = (0..plan.layout.mergers())
            .map(|pair| start_pair(&plan, pair, lifetime))
            .collect::<Result<_, _>>()?;
        // With one merger and no etcd, a merger that ends by itself is a failed test.
        let supervised = lifetime == Lifetime::WithUs && plan.layout.etcd_members() > 0;
        let supervisor = supervised.then(|| {
            let mergers = pairs.iter().map(|pair| Arc::clone(&pair.merger));
            Supervisor::of(mergers.collect())
        });
        Ok(Cluster {
            supervisor,
            nodes,
            guards,
            spares,
            pairs,
            front: 0,
            etcd,
            client: Client::builder().timeout(PROBE).build()?,
            plan,
            _folder: temporary,
            _ports: ports,
        })
    }

    /// Everything that is needed to start the programs of a cluster [at](Self::at) a given place.
    pub fn into_plan(self) -> Result<ClusterPlan, HarnessError> {
        self.plan().map(|(plan, _, _)| plan)
    }

    /// How many ports are kept free for shards to come, and how many spare nodes have.
    fn extra_ports(&self) -> (u16, u16) {
        let spares = self.watched.map_or(0, |watched| watched.spares);
        (self.room * self.replicas, spares)
    }

    /// Everything that is needed to start the programs, and what must be kept while they run.
    fn plan(self) -> Result<(ClusterPlan, Option<TempDir>, Vec<PortBlock>), HarnessError> {
        let mut binaries = Binaries::find()?;
        if let Some(envoy) = &self.envoy {
            binaries.envoy.clone_from(envoy);
        }
        let mut ports = Vec::new();
        let (layout, temporary, folder) = match &self.place {
            Some((port, folder)) => (self.layout(*port)?, None, folder.clone()),
            None => {
                let (room, spares) = self.extra_ports();
                let width = self.layout(1)?.width() + u32::from(room) + u32::from(spares);
                let block = PortBlock::claim(width)?;
                let folder = tempfile::Builder::new()
                    .prefix("weft-")
                    .tempdir()
                    .map_err(HarnessError::file(std::env::temp_dir()))?;
                let layout = self.layout(block.base())?;
                ports.push(block);
                let path = folder.path().to_owned();
                (layout, Some(folder), path)
            }
        };
        let (room, _) = self.extra_ports();
        let watched = self.watched.map(|watched| Watched {
            first_spare: layout.node(layout.shards(), 0) + room,
            ..watched
        });
        let mut plan = ClusterPlan {
            binaries,
            layout,
            folder,
            master_key: self.master_key,
            filter: self.filter,
            body_routing: self.body_routing,
            access_log: self.access_log,
            merger_environment: self.merger_environment,
            envoy_arguments: self.envoy_arguments,
            edit_envoy: self.edit_envoy,
            behind_links: None,
            guards: self.guards,
            sockets: self.sockets,
            etcd_syncs: self.etcd_syncs,
            etcd_tls: self.etcd_tls,
            watched,
        };
        plan.make_socket_folders()?;
        if self.links {
            let behind = PortBlock::claim(plan.width_behind_links())?;
            plan.behind_links = Some(behind.base());
            ports.push(behind);
        }
        Ok((plan, temporary, ports))
    }
}

fn start_pair(plan: &ClusterPlan, pair: u16, lifetime: Lifetime) -> Result<Pair, HarnessError> {
    let (mut nodes, mut etcd) = (None, None);
    if plan.behind_links.is_some() {
        nodes = Some(Links::open(plan.layout.nodes().map(|(shard, replica)| {
            let seen = plan.node_port_of(pair, shard, replica);
            let guard = plan.guard_ports(shard, replica);
            let behind = guard.map_or_else(|| plan.node_port(shard, replica), |(port, _)| port);
            (seen, behind)
        }))?);
        etcd = Some(Links::open((0..plan.layout.etcd_members()).map(
            |member| (plan.etcd_port_of(pair, member), plan.layout.etcd(member).0),
        ))?);
    }
    // The merger asks Envoy's admin interface until it answers, and Envoy the merger.
    Ok(Pair {
        layout: plan.layout.pair(pair),
        merger: Arc::new(Process::start(plan.merger(pair), lifetime)?),
        envoy: Process::start(plan.envoy(pair)?, lifetime)?,
        nodes,
        etcd,
    })
}
