//! Learns which shards and nodes exist from Envoy's admin interface.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use weft_routing::ShardNames;

use super::Topology;

/// The largest list of clusters that is read, in bytes.
const MAX_CLUSTERS_BYTES: usize = 64 << 20;

/// The source of the topology: Envoy, or a list in tests.
pub trait Directory: Send + Sync {
    /// The current shards and nodes.
    ///
    /// # Errors
    /// The source doesn't answer, or its answer can't be read.
    fn topology(&self) -> BoxFuture<'_, Result<Topology, AskError>>;
}

/// Why there is no list of shards and nodes, for the log.
pub type AskError = Box<dyn std::error::Error + Send + Sync>;

/// Envoy's admin interface.
pub struct EnvoyAdmin {
    client: Client<HttpConnector, Empty<Bytes>>,
    address: String,
    names: ShardNames,
}

impl EnvoyAdmin {
    /// The interface at `address` (`host:port`); clusters of these names are shards.
    pub fn new(address: &str, names: &ShardNames) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            address: address.to_owned(),
            names: names.clone(),
        }
    }

    async fn ask(&self) -> Result<Topology, AskError> {
        let uri = format!("http://{}/clusters?format=json", self.address).parse()?;
        let response = self.client.get(uri).await?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status()).into());
        }
        let body = Limited::new(response.into_body(), MAX_CLUSTERS_BYTES)
            .collect()
            .await?
            .to_bytes();
        Ok(Topology::from_envoy(&body, &self.names)?)
    }
}

impl Directory for EnvoyAdmin {
    fn topology(&self) -> BoxFuture<'_, Result<Topology, AskError>> {
        Box::pin(self.ask())
    }
}
