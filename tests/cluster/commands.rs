//! The command line of each program in a cluster, and the configuration that Envoy gets.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::{Binaries, HarnessError, Layout, Program};

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
    /// The first port of the nodes, if the layout's ports belong to relays.
    pub behind_links: Option<u16>,
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

    /// The command of the merger.
    pub fn merger(&self) -> Program {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let folder = self.folder.join("data/merger");
        let mut environment = vec![
            ("WEFT_LISTEN".to_owned(), local(self.layout.merger())),
            ("WEFT_ENVOY_ADMIN".to_owned(), local(self.layout.admin())),
            ("WEFT_EGRESS".to_owned(), local(self.layout.egress())),
            ("WEFT_DATA_DIR".to_owned(), folder.display().to_string()),
        ];
        // In the environment, where `ps` doesn't show it.
        environment.extend(
            self.master_key
                .iter()
                .map(|key| ("WEFT_MASTER_KEY".to_owned(), key.clone())),
        );
        environment.extend(self.merger_environment.iter().cloned());
        Program {
            name: "merger".to_owned(),
            executable: self.binaries.weft.clone(),
            arguments: vec!["serve".into()],
            environment,
            folder,
            log: self.folder.join("logs/merger.log"),
        }
    }

    /// The command of Envoy; writes its configuration file.
    pub fn envoy(&self) -> Result<Program, HarnessError> {
        let configuration = self.folder.join("envoy.yaml");
        fs::create_dir_all(&self.folder).map_err(HarnessError::file(&self.folder))?;
        fs::write(&configuration, self.envoy_configuration()?)
            .map_err(HarnessError::file(&configuration))?;
        Ok(Program {
            name: "envoy".to_owned(),
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
            folder: self.folder.join("data/envoy"),
            log: self.folder.join("logs/envoy.log"),
        })
    }

    /// The configuration that `weft config envoy` prints for this cluster.
    fn envoy_configuration(&self) -> Result<Vec<u8>, HarnessError> {
        let mut command = Command::new(&self.binaries.weft);
        command
            // The shards' names come from the merger's own variables, so they agree.
            .envs(self.merger_environment.iter().cloned())
            .args(["config", "envoy", "--access-log", self.access_log])
            .args(["--port", &self.layout.edge().to_string()])
            .args(["--shards", &self.layout.shards().to_string()])
            .args(["--replicas", &self.layout.replicas().to_string()])
            .args([
                "--body-routing",
                if self.body_routing { "true" } else { "false" },
            ])
            .arg("--wasm")
            .arg(&self.binaries.filter);
        if !self.filter {
            command.arg("--no-filter");
        }
        let output = command.output().map_err(|source| HarnessError::Spawn {
            name: "weft config envoy".to_owned(),
            source,
        })?;
        if !output.status.success() {
            return Err(HarnessError::EnvoyConfig(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ));
        }
        Ok(match &self.edit_envoy {
            Some(Edit(edit)) => edit(&String::from_utf8_lossy(&output.stdout)).into_bytes(),
            None => output.stdout,
        })
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
