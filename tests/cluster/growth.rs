//! Clusters whose Envoys watch files for shards and nodes: they get another shard, or a spare node, while everything runs.

use std::path::PathBuf;
use std::time::Duration;

use crate::commands::node;
use crate::pair::local;
use crate::{
    Api, Cluster, ClusterPlan, Deadline, HarnessError, Layout, Lifetime, Process, Program, until,
};

/// How long a new node may take until it answers.
const STARTUP: Duration = Duration::from_secs(60);

/// What Envoys find in the files that they watch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watched {
    /// True if each shard's nodes are in a file of their own, which the merger may change.
    pub eds: bool,
    /// Number of spare nodes.
    pub spares: u16,
    /// The port of the first of them.
    pub first_spare: u16,
}

impl ClusterPlan {
    /// The folder that a pair's Envoy watches.
    pub fn watched_folder(&self, pair: u16) -> PathBuf {
        let envoy = self.layout.envoy_name(pair);
        self.folder.join(format!("{envoy}-shards"))
    }

    /// Writes the files that a pair's Envoy watches. Files with nodes that are there stay as they are.
    pub(crate) fn list_shards(&self, pair: u16) -> Result<(), HarnessError> {
        self.configure("shards", pair).map(drop)
    }

    /// The command of a spare node.
    pub(crate) fn spare(&self, number: u16) -> Program {
        node(
            &self.binaries,
            &self.folder,
            &format!("spare-node-{number}"),
            self.spare_port(number),
            self.master_key.as_deref(),
        )
    }

    /// The port on which a spare node listens.
    pub fn spare_port(&self, number: u16) -> u16 {
        self.watched.map_or(0, |watched| watched.first_spare) + number
    }

    /// Starts the nodes of one more shard, which no Envoy lists yet.
    pub fn start_shard(&mut self, lifetime: Lifetime) -> Result<Vec<Process>, HarnessError> {
        let grown = self.layout.with_another_shard()?;
        let shard = self.layout.shards();
        let replicas = 0..grown.replicas();
        for replica in replicas.clone() {
            grown.check_node_free(shard, replica)?;
        }
        self.layout = grown;
        replicas
            .map(|replica| Process::start(self.node(shard, replica), lifetime))
            .collect()
    }

    /// Waits until a shard's nodes answer, and then lists all shards in the files of all Envoys.
    pub async fn list_shard(&self, shard: u16) -> Result<(), HarnessError> {
        for replica in 0..self.layout.replicas() {
            let name = Layout::node_name(shard, replica);
            let node = Api::new(local(self.node_port(shard, replica)), None);
            until(&name, Deadline::after(STARTUP), || async {
                match node.get("/health").await {
                    Ok(reply) if reply.status == 200 => Ok(()),
                    Ok(reply) => Err(reply.text),
                    Err(error) => Err(error.line()),
                }
            })
            .await?;
        }
        (0..self.layout.mergers()).try_for_each(|pair| self.list_shards(pair))
    }
}

impl Cluster {
    /// Adds a shard while the cluster runs; returns its number once all Envoys send reads to its nodes.
    pub async fn add_shard(&mut self) -> Result<u16, HarnessError> {
        let shard = self.plan.layout.shards();
        let started = self.plan.start_shard(Lifetime::WithUs)?;
        self.nodes.extend(started);
        self.plan.list_shard(shard).await?;
        for pair in &self.pairs {
            for replica in 0..self.plan.layout.replicas() {
                let place = (shard, replica);
                self.wait_node_readable_at(pair, place, true).await?;
            }
        }
        Ok(shard)
    }

    /// A spare node's process.
    ///
    /// # Panics
    /// There is no such node.
    #[allow(
        clippy::indexing_slicing,
        reason = "a test that asks for a missing node is wrong"
    )]
    pub fn spare(&self, number: u16) -> &Process {
        &self.spares[usize::from(number)]
    }

    /// The URL of a spare node itself.
    pub fn spare_url(&self, number: u16) -> String {
        local(self.plan.spare_port(number))
    }

    /// The folder that the first pair's Envoy watches.
    pub fn watched_folder(&self) -> PathBuf {
        self.watched_folder_of(0)
    }

    /// The folder that a pair's Envoy watches.
    pub fn watched_folder_of(&self, pair: u16) -> PathBuf {
        self.plan.watched_folder(pair)
    }
}
