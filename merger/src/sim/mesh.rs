//! The network between the merger and the simulated nodes: Envoy's choice of a node, latencies, and lost requests and answers.
//!
//! It implements [`NodeApi`] and [`Directory`], in place of Envoy. The nodes behind it are in [`super::nodes`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use weft_routing::placement::ShardId;

use super::api::Asked;
use super::nodes::{Fate, Power, State};
use super::rules::What;
use crate::cluster::{AskError, Directory, NodeId, Topology};
use crate::upstream::{NodeAnswer, NodeApi, NodeRequest, Target, UpstreamError};

/// All nodes.
#[derive(Clone)]
pub(super) struct Mesh(Arc<Mutex<State>>);

impl Mesh {
    pub(super) fn new(seed: u64, shards: u16, replicas: u16) -> Self {
        Self(Arc::new(Mutex::new(State::new(seed, shards, replicas))))
    }

    pub(super) fn now(&self) -> u64 {
        self.lock().now()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pause(&self, node: &str) {
        let micros = {
            let mut state = self.lock();
            let slow = state.nodes.get(node).map_or(0, |node| node.slow_ms) * 1_000;
            state.random.u64(50..3_000) + slow
        };
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }

    /// The node to which a request is sent.
    fn choose(&self, target: &Target, not: Option<&str>) -> Result<String, UpstreamError> {
        let mut state = self.lock();
        state.advance();
        let unreachable = |detail: &str| UpstreamError::Unreachable {
            target: target.clone(),
            detail: detail.to_owned(),
        };
        let names: Vec<String> = match target {
            Target::Node(address) => {
                let own = state
                    .nodes
                    .iter()
                    .filter(|(_, node)| node.address == *address);
                own.map(|(name, _)| name.clone()).collect()
            }
            Target::Shard(shard) => {
                let ready = state
                    .nodes
                    .iter()
                    .filter(|(_, node)| node.shard == *shard && node.gets_reads);
                ready
                    .map(|(name, _)| name.clone())
                    .filter(|name| Some(name.as_str()) != not)
                    .collect()
            }
        };
        match names.len() {
            0 => Err(unreachable("no healthy upstream")),
            count => {
                let place = state.random.usize(..count);
                names
                    .get(place)
                    .cloned()
                    .ok_or_else(|| unreachable("no healthy upstream"))
            }
        }
    }

    async fn go(&self, request: NodeRequest) -> Result<NodeAnswer, UpstreamError> {
        let (target, asked) = take_apart(request).await?;
        let first = self.choose(&target, None)?;
        let outcome = self.ask(&first, &target, &asked).await;
        // If a connection fails, Envoy asks another replica, as long as there is one.
        match (&target, &outcome) {
            (Target::Shard(_), Err(UpstreamError::Unreachable { .. })) => {
                let Ok(other) = self.choose(&target, Some(&first)) else {
                    return outcome;
                };
                self.ask(&other, &target, &asked).await
            }
            _ => outcome,
        }
    }

    async fn ask(
        &self,
        name: &str,
        target: &Target,
        asked: &Asked,
    ) -> Result<NodeAnswer, UpstreamError> {
        let cut = || {
            UpstreamError::Unreachable {
            target: target.clone(),
            detail: "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
                .to_owned(),
        }
        };
        self.pause(name).await;
        if self.is_cut_off(name, asked) {
            return std::future::pending().await;
        }
        let (reply, life) = {
            let mut state = self.lock();
            state.advance();
            state.exchanges += 1;
            match state.rules.apply(name, asked) {
                None => {}
                Some(What::Unreachable) => return Err(cut()),
                Some(What::Says(status, body)) => return Ok(answer_of(status, &body)),
                Some(What::Panics) => {
                    drop(state);
                    panic!("a test wants it: {} at {name}", asked.path_and_query);
                }
            }
            if state.egress_is_down() {
                return Err(UpstreamError::NoEgress {
                    target: target.clone(),
                    detail: "connection refused".to_owned(),
                });
            }
            state.deliver(name, asked).ok_or_else(cut)?
        };
        let said = reply.await.map_err(|_| cut())?;
        self.pause(name).await;
        // While the process hangs, its answer is held back.
        while self.holds_back(name, life).ok_or_else(cut)? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (status, body) = said;
        Ok(answer_of(status, &body))
    }

    /// True if a test wants this to be the last request. The node may get it all the same.
    fn is_cut_off(&self, name: &str, asked: &Asked) -> bool {
        let mut state = self.lock();
        let fate = state.fate();
        if fate == Fate::NotAnswered {
            drop(state.deliver(name, asked));
        }
        fate != Fate::GoesOn
    }

    /// True if the node hangs; `None` if it can't be reached any more, or was restarted since.
    fn holds_back(&self, name: &str, life: u32) -> Option<bool> {
        let mut state = self.lock();
        state.advance();
        let node = state.nodes.get(name)?;
        let there = node.lives == life && node.power != Power::Apart;
        there.then_some(node.power == Power::Hanging)
    }
}

fn answer_of(status: u16, body: &serde_json::Value) -> NodeAnswer {
    NodeAnswer {
        status: StatusCode::from_u16(status).unwrap_or_default(),
        headers: HeaderMap::new(),
        body: body.to_string().into(),
    }
}

async fn take_apart(request: NodeRequest) -> Result<(Target, Asked), UpstreamError> {
    let (target, method, path_and_query, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| UpstreamError::Malformed {
            target: target.clone(),
            detail: error.to_string(),
        })?;
    let asked = Asked {
        method,
        path_and_query,
        body: body.to_bytes(),
    };
    Ok((target, asked))
}

impl NodeApi for Mesh {
    fn exchange(&self, request: NodeRequest) -> BoxFuture<'_, Result<NodeAnswer, UpstreamError>> {
        Box::pin(self.go(request))
    }
}

impl Directory for Mesh {
    fn topology(&self) -> BoxFuture<'_, Result<Topology, AskError>> {
        Box::pin(async move {
            let mut clusters: BTreeMap<ShardId, Vec<serde_json::Value>> = BTreeMap::new();
            for (name, node) in &self.lock().nodes {
                let socket =
                    json!({"address": node.address.ip(), "port_value": node.address.port()});
                let host = json!({"hostname": name, "address": {"socket_address": socket}});
                clusters.entry(node.shard).or_default().push(host);
            }
            let statuses: Vec<serde_json::Value> = clusters
                .into_iter()
                .map(|(shard, hosts)| json!({"name": format!("shard-{}", shard.0), "host_statuses": hosts}))
                .collect();
            let list = json!({"cluster_statuses": statuses});
            Ok(Topology::from_envoy(
                list.to_string().as_bytes(),
                &weft_routing::ShardNames::default(),
            )?)
        })
    }
}

/// The name of a node as the merger knows it.
pub(super) fn id(name: &str) -> NodeId {
    NodeId::from(name.to_owned())
}
