//! An Envoy beside a simulated merger: its way to nodes, and what it has heard of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::lock;
use crate::cluster::{AskError, Directory, Readiness, Topology};
use crate::sim::mesh::Mesh;
use crate::upstream::{NodeAnswer, NodeApi, NodeRequest, Target, UpstreamError};

/// How many checks in a row may stay unanswered.
const UNANSWERED: u32 = 3;

/// How often a frozen merger is looked at.
const FROZEN_FOR: Duration = Duration::from_millis(10);

/// A merger's Envoy: its way to nodes, and what it knows of them.
pub(super) struct Sidecar {
    mesh: Mesh,
    heard: Mutex<BTreeMap<String, Heard>>,
    random: Mutex<fastrand::Rng>,
    /// It reaches no node.
    pub(super) cut: AtomicBool,
    /// The merger beside it was killed.
    pub(super) gone: AtomicBool,
    /// The merger beside it was stopped: it sends nothing and hears nothing until it goes on.
    pub(super) frozen: AtomicBool,
}

#[derive(Clone, Copy, Default)]
struct Heard {
    ready: bool,
    unanswered: u32,
}

impl Sidecar {
    pub(super) fn new(mesh: Mesh, seed: u64) -> Self {
        Self {
            mesh,
            heard: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            cut: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
        }
    }

    /// Resolves while the merger isn't frozen.
    pub(super) async fn thaws(&self) {
        while self.frozen.load(Ordering::SeqCst) {
            sleep(FROZEN_FOR).await;
        }
    }

    pub(super) fn hears(&self, node: &str, readiness: Option<Readiness>) {
        let mut heard = lock(&self.heard);
        let heard = heard.entry(node.to_owned()).or_default();
        match readiness {
            Some(Readiness::Ready | Readiness::Degraded(_)) => {
                *heard = Heard {
                    ready: true,
                    unanswered: 0,
                };
            }
            Some(Readiness::NotReady(_)) => *heard = Heard::default(),
            Some(Readiness::Unknown) | None => {
                heard.unanswered += 1;
                heard.ready &= heard.unanswered < UNANSWERED;
            }
        }
    }

    /// The addresses of the nodes of a shard that get reads, in random order.
    fn ready(&self, target: &Target) -> Vec<Target> {
        let Target::Shard(shard) = target else {
            return vec![target.clone()];
        };
        let heard = lock(&self.heard).clone();
        let state = self.mesh.lock();
        let nodes = state.nodes.iter();
        let ready = nodes.filter(|(name, node)| {
            node.shard == *shard && heard.get(*name).is_some_and(|heard| heard.ready)
        });
        let mut ready: Vec<Target> = ready.map(|(_, node)| Target::Node(node.address)).collect();
        lock(&self.random).shuffle(&mut ready);
        ready
    }

    async fn go(&self, mut request: NodeRequest) -> Result<NodeAnswer, UpstreamError> {
        let target = request.target.clone();
        self.thaws().await;
        if self.gone.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if self.cut.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(5)).await;
            let detail = "connection refused".to_owned();
            return Err(UpstreamError::NoEgress { target, detail });
        }
        let Some(chosen) = self.ready(&target).into_iter().next() else {
            sleep(Duration::from_millis(1)).await;
            let detail = "no healthy upstream".to_owned();
            return Err(UpstreamError::Unreachable { target, detail });
        };
        request.target = chosen;
        let answer = self.mesh.exchange(request).await;
        self.thaws().await;
        if self.cut.load(Ordering::SeqCst) {
            // It is lost on its way back.
            let detail = "connection termination".to_owned();
            return Err(UpstreamError::Unreachable { target, detail });
        }
        answer
    }
}

impl NodeApi for Sidecar {
    fn exchange(&self, request: NodeRequest) -> BoxFuture<'_, Result<NodeAnswer, UpstreamError>> {
        Box::pin(self.go(request))
    }
}

impl Directory for Sidecar {
    fn topology(&self) -> BoxFuture<'_, Result<Topology, AskError>> {
        match self.gone.load(Ordering::SeqCst) {
            true => Box::pin(std::future::pending()),
            false => self.mesh.topology(),
        }
    }
}
