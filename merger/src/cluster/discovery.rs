//! Learns which shards and nodes exist from Envoy's admin interface.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use weft_routing::{ShardNames, headers};

use super::Topology;
use crate::tls::Way;
use crate::upstream::{Connector, Home};

/// The largest list of clusters that is read, in bytes.
const MAX_CLUSTERS_BYTES: usize = 64 << 20;

/// How long Envoy's admin interface may take to accept a connection.
const CONNECTS_WITHIN: Duration = Duration::from_secs(1);

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
    client: Client<Connector, Empty<Bytes>>,
    way: Way,
    names: ShardNames,
}

impl EnvoyAdmin {
    /// The interface at the end of this way; clusters of these names are shards.
    pub fn new(way: Way, names: &ShardNames) -> Self {
        let home = Home::here();
        let connector = home.connector(&way, CONNECTS_WITHIN);
        Self {
            client: Client::builder(home).build(connector),
            way,
            names: names.clone(),
        }
    }

    async fn ask(&self) -> Result<Topology, AskError> {
        let uri = format!("{}/clusters?format=json", self.way.url());
        // Where the admin interface is reached through the egress listener, this header says that it is meant.
        let request = Request::get(uri).header(headers::CLUSTER, headers::ADMIN_CLUSTER);
        let response = self.client.request(request.body(Empty::new())?).await?;
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
