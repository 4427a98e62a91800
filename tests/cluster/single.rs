//! A single node, with which a cluster's answers are compared.

use std::time::Duration;

use reqwest::Client;
use tempfile::TempDir;

use crate::cluster::get;
use crate::commands::node;
use crate::{Binaries, Deadline, HarnessError, Lifetime, PortBlock, Process, until};

/// A single node. Dropping it ends its process.
#[derive(Debug)]
pub struct Single {
    port: u16,
    process: Process,
    _folder: TempDir,
    _ports: PortBlock,
}

impl Single {
    /// Starts the node and waits until it answers.
    pub async fn start(master_key: Option<&str>) -> Result<Self, HarnessError> {
        let binaries = Binaries::find()?;
        let ports = PortBlock::claim(1)?;
        let folder = tempfile::Builder::new()
            .prefix("weft-")
            .tempdir()
            .map_err(HarnessError::file(std::env::temp_dir()))?;
        let program = node(&binaries, folder.path(), "single", ports.base(), master_key);
        let single = Self {
            port: ports.base(),
            process: Process::start(program, Lifetime::WithUs)?,
            _folder: folder,
            _ports: ports,
        };
        let client = Client::builder().timeout(Duration::from_secs(2)).build()?;
        let health = format!("{}/health", single.url());
        until(
            "the single node",
            Deadline::after(Duration::from_secs(60)),
            || async {
                single.process.check_alive().map_err(|error| error.line())?;
                get(&client, &health).await
            },
        )
        .await?;
        Ok(single)
    }

    /// The node's URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The node's process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
