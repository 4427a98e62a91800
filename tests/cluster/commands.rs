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
    /// An operator's edit of Envoy's configuration.
    pub edit_envoy: Option<Edit>,
    /// The first port behind the relays, if there are relays: the nodes listen there, and after them come the relays between
    /// mergers and etcd. The layout's ports of the nodes then belong to relays.
    pub behind_links: Option<u16>,
    /// True if etcd waits for its disk, as it should wherever a machine may fail.
    pub etcd_syncs: bool,
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
        nodes + u32::from(self.layout.mergers()) * u32::from(self.layout.etcd_members())
    }

    /// The command of a pair's merger.
    pub fn merger(&self, pair: u16) -> Program {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let name = self.layout.merger_name(pair);
        let folder = self.folder.join("data").join(&name);
        let ports = self.layout.pair(pair);
        let mut environment = vec![
            ("WEFT_LISTEN".to_owned(), local(ports.merger())),
            ("WEFT_ENVOY_ADMIN".to_owned(), local(ports.admin())),
            ("WEFT_EGRESS".to_owned(), local(ports.egress())),
            ("WEFT_DATA_DIR".to_owned(), folder.display().to_string()),
        ];
        let members = 0..self.layout.etcd_members();
        let endpoints: Vec<String> = members
            .map(|member| format!("http://{}", local(self.etcd_port_of(pair, member))))
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

    /// The command of a pair's Envoy; writes its configuration file.
    pub fn envoy(&self, pair: u16) -> Result<Program, HarnessError> {
        let name = self.layout.envoy_name(pair);
        let configuration = self.folder.join(format!("{name}.yaml"));
        fs::create_dir_all(&self.folder).map_err(HarnessError::file(&self.folder))?;
        if self.watched.is_some() {
            self.list_shards(pair)?;
        }
        fs::write(&configuration, self.envoy_configuration(pair)?)
            .map_err(HarnessError::file(&configuration))?;
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
        let output = command.output().map_err(|source| HarnessError::Spawn {
            name: format!("weft config {what}"),
            source,
        })?;
        if !output.status.success() {
            return Err(HarnessError::EnvoyConfig(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ));
        }
        Ok(output.stdout)
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
