//! Reads the cluster's own state: `/_cluster/…`, with the master key.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;
use weft_cluster::{Api, Deadline, until};

/// A replica, by its position in the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Place {
    pub(super) shard: u16,
    pub(super) replica: u16,
}

/// A client of the cluster's own API.
#[derive(Debug, Clone)]
pub(super) struct Control {
    api: Api,
}

impl Control {
    pub(super) fn new(api: Api) -> Self {
        Self { api }
    }

    /// The primary of a shard.
    pub(super) async fn primary(&self, shard: u16) -> Result<Place> {
        let list = self.get("/_cluster/nodes").await?;
        let primary = nodes(&list).find(|node| {
            node.get("shard").and_then(Value::as_u64) == Some(u64::from(shard))
                && node.get("role").is_some_and(|role| role == "primary")
        });
        let name = primary
            .and_then(|node| node.get("id"))
            .and_then(Value::as_str);
        match name.and_then(|name| name.rsplit('-').next()?.parse().ok()) {
            Some(replica) => Ok(Place { shard, replica }),
            None => bail!("shard {shard} has no primary: {list}"),
        }
    }

    /// Waits until the cluster is green and reports every node as in sync; returns how long that took.
    pub(super) async fn green(&self, count: usize, within: Duration) -> Result<Duration> {
        let begun = Instant::now();
        until("green", Deadline::after(within), || async {
            let health = self.ask("/_cluster/health").await?;
            if health.get("status").is_none_or(|status| status != "green") {
                let list = self.ask("/_cluster/nodes").await?;
                return Err(format!("{health} {list}"));
            }
            let list = self.ask("/_cluster/nodes").await?;
            let in_sync = nodes(&list)
                .filter(|node| node.get("inSync") == Some(&Value::Bool(true)))
                .count();
            if in_sync == count {
                Ok(())
            } else {
                Err(format!(
                    "green with {in_sync} of {count} nodes in sync: {list}"
                ))
            }
        })
        .await?;
        Ok(begun.elapsed())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.ask(path).await.map_err(anyhow::Error::msg)
    }

    async fn ask(&self, path: &str) -> Result<Value, String> {
        let patience = Duration::from_secs(5);
        match tokio::time::timeout(patience, self.api.get(path)).await {
            Ok(Ok(reply)) if reply.status == 200 => Ok(reply.body),
            Ok(Ok(reply)) => Err(format!("{path} answers {}: {}", reply.status, reply.text)),
            Ok(Err(error)) => Err(error.line()),
            Err(_) => Err(format!("no answer from {path}")),
        }
    }
}

fn nodes(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("nodes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}
