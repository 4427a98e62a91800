//! Asks Envoy's admin interface for shards and nodes, again and again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use weft_routing::ShardNames;

use super::Topology;
use super::reconcile::reconcile;
use crate::app::App;

/// The largest list of clusters that is read.
const MAX_CLUSTERS_BYTES: usize = 64 << 20;

/// How long Envoy's admin interface may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Who knows which shards and nodes there are: Envoy, or a list in tests.
pub trait Directory: Send + Sync {
    /// The shards and nodes that there are now.
    ///
    /// # Errors
    /// Nobody answers, or not in a form that can be read.
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

/// Keeps the topology fresh; never ends. While Envoy doesn't answer, the last topology stays.
/// Before the first is taken over, replicas are compared: the merger may have ended in the middle of a write.
pub async fn discover(app: Arc<App>, directory: Arc<dyn Directory>) {
    let cluster = &app.cluster;
    let admin = &app.options.envoy_admin;
    let every = Duration::from_millis(app.options.discovery_interval_ms.max(10));
    let mut reconciled = false;
    let mut failing = false;
    loop {
        match tokio::time::timeout(TIMEOUT, directory.topology())
            .await
            .unwrap_or_else(|_| Err("no answer in time".into()))
        {
            Ok(topology) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("Envoy's admin interface answers again");
                }
                if !topology.shards().is_empty() && !std::mem::replace(&mut reconciled, true) {
                    reconcile(&app, &topology).await;
                }
                if let Err(error) = cluster.set_topology(topology).await {
                    tracing::error!(%error, "the topology changed and can't be stored; the last one stays");
                }
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, admin, "Envoy's admin interface gives no list of clusters; the last one stays");
            }
            Err(_) => {}
        }
        let none_yet = cluster.topology().shards().is_empty();
        tokio::time::sleep(if none_yet {
            every.min(Duration::from_millis(100))
        } else {
            every
        })
        .await;
    }
}
