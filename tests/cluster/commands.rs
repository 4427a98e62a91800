//! The command line of each program in a cluster, and the configuration that Envoy gets.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::{Binaries, HarnessError, Layout, Program, Watched};

/// What an operator makes of the configuration that `weft config envoy` printed.
#[derive(Clone)]
pub struct Edit(pub Arc<dyn Fn(&str) -> String + Send + Sync>);

impl fmt::Debug for Edit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Edit")
    }
}

/// What Unix sockets between an Envoy and its merger are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// Everything between the two. The merger still listens on its port, for tests and other mergers.
    BesideTcp,
    /// Everything: the merger has no port.
    Alone,
}

/// The name of the merger's socket in the folder, as `weft config envoy --sockets` knows it.
pub const MERGER_SOCKET: &str = "merger.sock";
/// The name of the egress listener's.
pub const EGRESS_SOCKET: &str = "egress.sock";

/// Everything needed to start the programs of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    /// The programs.
    pub binaries: Binaries,
    /// Their ports.
    pub layout: Layout,
    /// The folder to which all of the cluster's programs write.
    pub folder: PathBuf,
    /// The nodes' and the merger's master key, if any.
    pub master_key: Option<String>,
    /// True if Envoy runs the filter.
    pub filter: bool,
    /// True if the filter looks into bodies.
    pub body_routing: bool,
    /// What the edge logs: `all`, `failed` or `off`.
    pub access_log: &'static str,
    /// Additional environment variables for the merger (`WEFT_…`).
    pub merger_environment: Vec<(String, String)>,
    /// Further arguments of `weft config envoy`.
    pub envoy_arguments: Vec<String>,
    /// An operator's edit of Envoy's configuration.
    pub edit_envoy: Option<Edit>,
    /// The first port behind the relays, if there are relays: the nodes listen there, and after them come the relays between
    /// mergers and etcd. The layout's ports of the nodes then belong to relays.
    pub behind_links: Option<u16>,
    /// True if each node has an Envoy of its own in front, behind the relays, whose filter refuses writes of older terms.
    pub guards: bool,
    /// How each Envoy and its merger use Unix sockets, if they do.
    pub sockets: Option<Sockets>,
    /// True if etcd waits for its disk, as it should wherever a machine may fail.
    pub etcd_syncs: bool,
    /// The certificate of all members of etcd, its key, and the authority whose certificates they take; `None`: plain HTTP.
    pub etcd_tls: Option<[PathBuf; 3]>,
    /// The files that Envoys watch for shards and nodes; `None` if those are in their configuration.
    pub watched: Option<Watched>,
}

impl ClusterPlan {
    /// The command of a node of this cluster.
    pub fn node(&self, shard: u16, replica: u16) -> Program {
        let name = Layout::node_name(shard, replica);
        node(
            &self.binaries,
            &self.folder,
            &name,
            self.node_port(shard, replica),
            self.master_key.as_deref(),
        )
    }

    /// The port on which a node itself listens.
    pub fn node_port(&self, shard: u16, replica: u16) -> u16 {
        match self.behind_links {
            Some(first) => first + shard * self.layout.replicas() + replica,
            None => self.layout.node(shard, replica),
        }
    }

    /// The port at which a pair's Envoy reaches a node.
    pub fn node_port_of(&self, pair: u16, shard: u16, replica: u16) -> u16 {
        match self.behind_links {
            Some(_) => self.layout.pair(pair).node(shard, replica),
            None => self.layout.node(shard, replica),
        }
    }

    /// How members of etcd are reached.
    pub fn etcd_scheme(&self) -> &'static str {
        match self.etcd_tls {
            Some(_) => "https",
            None => "http",
        }
    }

    /// The port at which a merger reaches a member of etcd.
    pub fn etcd_port_of(&self, pair: u16, member: u16) -> u16 {
        match self.behind_links {
            Some(first) => {
                let nodes = self.layout.shards() * self.layout.replicas();
                first + nodes + pair * self.layout.etcd_members() + member
            }
            None => self.layout.etcd(member).0,
        }
    }

    /// How many ports are needed behind the relays.
    pub fn width_behind_links(&self) -> u32 {
        let nodes = u32::from(self.layout.shards()) * u32::from(self.layout.replicas());
        let guards = if self.guards { 2 * nodes } else { 0 };
        nodes + u32::from(self.layout.mergers()) * u32::from(self.layout.etcd_members()) + guards
    }

    /// The ports of a node's own Envoy, for requests and for its admin interface; `None` if it has none.
    pub fn guard_ports(&self, shard: u16, replica: u16) -> Option<(u16, u16)> {
        let first = self.behind_links.filter(|_| self.guards)?;
        let nodes = self.layout.shards() * self.layout.replicas();
        let relays = self.layout.mergers() * self.layout.etcd_members();
        let guard = first + nodes + relays + 2 * (shard * self.layout.replicas() + replica);
        Some((guard, guard + 1))
    }

    /// The command of a node's own Envoy; writes its configuration file.
    pub fn guard(&self, shard: u16, replica: u16) -> Result<Option<Program>, HarnessError> {
        let Some((port, admin)) = self.guard_ports(shard, replica) else {
            return Ok(None);
        };
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut command = Command::new(&self.binaries.weft);
        command
            .args(["config", "guard"])
            .args(["--node", &local(self.node_port(shard, replica))])
            .args(["--listen", &local(port), "--admin", &local(admin)])
            .arg("--wasm")
            .arg(&self.binaries.filter);
        let name = format!("guard-of-{}", Layout::node_name(shard, replica));
        let printed = printed(command)?;
        self.run_envoy(name, &printed).map(Some)
    }

    /// The command of a pair's merger.
    pub fn merger(&self, pair: u16) -> Program {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let name = self.layout.merger_name(pair);
        let folder = self.folder.join("data").join(&name);
        let ports = self.layout.pair(pair);
        let socket = |name: &str| format!("unix:{}", self.socket(pair, name).display());
        let (listen, egress) = match self.sockets {
            None => (local(ports.merger()), local(ports.egress())),
            Some(Sockets::Alone) => (socket(MERGER_SOCKET), socket(EGRESS_SOCKET)),
            Some(Sockets::BesideTcp) => {
                let both = [local(ports.merger()), socket(MERGER_SOCKET)];
                (both.join(","), socket(EGRESS_SOCKET))
            }
        };
        let mut environment = vec![
            ("WEFT_LISTEN".to_owned(), listen),
            ("WEFT_ENVOY_ADMIN".to_owned(), local(ports.admin())),
            ("WEFT_EGRESS".to_owned(), egress),
            ("WEFT_DATA_DIR".to_owned(), folder.display().to_string()),
        ];
        let members = 0..self.layout.etcd_members();
        let endpoints: Vec<String> = members
            .map(|member| {
                let scheme = self.etcd_scheme();
                format!("{scheme}://{}", local(self.etcd_port_of(pair, member)))
            })
            .collect();
        if !endpoints.is_empty() {
            environment.push(("WEFT_ETCD".to_owned(), endpoints.join(",")));
        }
        if self.watched.is_some_and(|watched| watched.eds) {
            let watched = self.watched_folder(pair).display().to_string();
            environment.push(("WEFT_EDS_DIR".to_owned(), watched));
        }
        // In the environment, where `ps` doesn't show it.
        environment.extend(
            self.master_key
                .iter()
                .map(|key| ("WEFT_MASTER_KEY".to_owned(), key.clone())),
        );
        environment.extend(self.merger_environment.iter().cloned());
        Program {
            log: self.folder.join("logs").join(format!("{name}.log")),
            name,
            executable: self.binaries.weft.clone(),
            arguments: vec!["serve".into()],
            environment,
            folder,
        }
    }

    /// The path of one of a pair's sockets, by its name.
    pub fn socket(&self, pair: u16, name: &str) -> PathBuf {
        self.socket_folder(pair).join(name)
    }

    fn socket_folder(&self, pair: u16) -> PathBuf {
        self.folder.join("sockets").join(pair.to_string())
    }

    /// Makes the folders of all pairs' sockets, if they use any.
    pub(crate) fn make_socket_folders(&self) -> Result<(), HarnessError> {
        let pairs = 0..self.layout.mergers();
        for pair in pairs.filter(|_| self.sockets.is_some()) {
            let folder = self.socket_folder(pair);
            fs::create_dir_all(&folder).map_err(HarnessError::file(&folder))?;
        }
        Ok(())
    }

    /// The command of a pair's Envoy; writes its configuration file.
    pub fn envoy(&self, pair: u16) -> Result<Program, HarnessError> {
        if self.watched.is_some() {
            self.list_shards(pair)?;
        }
        let configuration = self.envoy_configuration(pair)?;
        self.run_envoy(self.layout.envoy_name(pair), &configuration)
    }

    /// The command of an Envoy with this configuration, which is written to a file.
    fn run_envoy(&self, name: String, text: &[u8]) -> Result<Program, HarnessError> {
        let configuration = self.folder.join(format!("{name}.yaml"));
        fs::create_dir_all(&self.folder).map_err(HarnessError::file(&self.folder))?;
        fs::write(&configuration, text).map_err(HarnessError::file(&configuration))?;
        Ok(Program {
            executable: self.binaries.envoy.clone(),
            arguments: vec![
                "--config-path".into(),
                configuration.into(),
                "--log-level".into(),
                "warning".into(),
                "--concurrency".into(),
                "2".into(),
                // Otherwise several Envoys on one machine would use the same shared memory.
                "--disable-hot-restart".into(),
                // Access logs appear within a second instead of ten.
                "--file-flush-interval-msec".into(),
                "1000".into(),
            ],
            environment: Vec::new(),
            folder: self.folder.join("data").join(&name),
            log: self.folder.join("logs").join(format!("{name}.log")),
            name,
        })
    }

    /// The configuration that `weft config envoy` prints for this pair.
    fn envoy_configuration(&self, pair: u16) -> Result<Vec<u8>, HarnessError> {
        let printed = self.configure("envoy", pair)?;
        Ok(match &self.edit_envoy {
            Some(Edit(edit)) => edit(&String::from_utf8_lossy(&printed)).into_bytes(),
            None => printed,
        })
    }

    /// What `weft config envoy` or `weft config shards` prints for this pair.
    pub(crate) fn configure(&self, what: &str, pair: u16) -> Result<Vec<u8>, HarnessError> {
        let mut command = Command::new(&self.binaries.weft);
        command
            // The shards' names come from the merger's own variables, so they agree.
            .envs(self.merger_environment.iter().cloned())
            .args(["config", what, "--access-log", self.access_log])
            .args(["--port", &self.layout.pair(pair).edge().to_string()])
            .args([
                "--body-routing",
                if self.body_routing { "true" } else { "false" },
            ])
            .arg("--wasm")
            .arg(&self.binaries.filter);
        if pair == 0 {
            command
                .args(["--shards", &self.layout.shards().to_string()])
                .args(["--replicas", &self.layout.replicas().to_string()]);
        } else {
            // The nodes' ports aren't in this pair's block, or they are those of its own relays.
            for (shard, replica) in self.layout.nodes() {
                let port = self.node_port_of(pair, shard, replica);
                command.args(["--node", &format!("{shard}=127.0.0.1:{port}")]);
            }
        }
        if self.layout.mergers() > 1 {
            command.arg("--several-mergers");
            for other in (0..self.layout.mergers()).filter(|other| *other != pair) {
                let merger = self.layout.pair(other).merger();
                command.args(["--other-merger", &format!("127.0.0.1:{merger}")]);
            }
        }
        if !self.filter {
            command.arg("--no-filter");
        }
        if self.sockets.is_some() {
            command.arg("--sockets").arg(self.socket_folder(pair));
        }
        command.args(&self.envoy_arguments);
        if let Some(watched) = self.watched {
            command.arg("--dynamic").arg(self.watched_folder(pair));
            if watched.eds {
                command.arg("--eds");
            }
            for spare in 0..watched.spares {
                let port = self.spare_port(spare);
                command.args(["--spare", &format!("127.0.0.1:{port}")]);
            }
        }
        printed(command)
    }
}

/// What `weft config …` prints.
fn printed(mut command: Command) -> Result<Vec<u8>, HarnessError> {
    let output = command.output().map_err(|source| HarnessError::Spawn {
        name: "weft config".to_owned(),
        source,
    })?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(HarnessError::EnvoyConfig(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

/// The command of a node. Real and embedded nodes accept the same flags, Meilisearch's own.
pub(crate) fn node(
    binaries: &Binaries,
    folder: &Path,
    name: &str,
    port: u16,
    master_key: Option<&str>,
) -> Program {
    let data = folder.join("data").join(name);
    let mut arguments: Vec<OsString> = vec![
        "--http-addr".into(),
        format!("127.0.0.1:{port}").into(),
        "--db-path".into(),
        data.join("data.ms").into(),
        "--no-analytics".into(),
    ];
    if let Some(key) = master_key {
        arguments.extend(["--master-key".into(), key.into()]);
    }
    Program {
        name: name.to_owned(),
        executable: binaries.node.path().to_owned(),
        arguments,
        // Lets real servers search each other, for the benchmarks that compare with that. Other nodes ignore it.
        environment: vec![(
            "MEILI_EXPERIMENTAL_ALLOWED_IP_NETWORKS".to_owned(),
            "127.0.0.1/32".to_owned(),
        )],
        folder: data,
        log: folder.join("logs").join(format!("{name}.log")),
    }
}
