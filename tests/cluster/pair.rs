//! An Envoy with the merger beside it.

use std::sync::Arc;

use crate::link::{Line, Link, Links};
use crate::{HarnessError, Layout, Process};

/// One Envoy and its merger. A cluster has at least one such pair; all of them share the nodes.
#[derive(Debug)]
pub struct Pair {
    pub(crate) layout: Layout,
    pub(crate) merger: Arc<Process>,
    pub(crate) envoy: Process,
    pub(crate) nodes: Option<Links>,
    pub(crate) etcd: Option<Links>,
}

impl Pair {
    /// The ports of this pair.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        local(self.layout.edge())
    }

    /// The URL of Envoy's admin interface.
    pub fn admin_url(&self) -> String {
        local(self.layout.admin())
    }

    /// The URL of Envoy's egress listener.
    pub fn egress_url(&self) -> String {
        local(self.layout.egress())
    }

    /// The URL of the merger itself, bypassing Envoy.
    pub fn merger_url(&self) -> String {
        local(self.layout.merger())
    }

    /// The merger's process.
    pub fn merger(&self) -> &Process {
        &self.merger
    }

    /// Envoy's process.
    pub fn envoy(&self) -> &Process {
        &self.envoy
    }

    /// The relay between this Envoy and a node, if the cluster has relays.
    pub fn link(&self, shard: u16, replica: u16) -> Option<&Link> {
        let place = shard * self.layout.replicas() + replica;
        self.nodes.as_ref()?.get(usize::from(place))
    }

    /// Sets the line between this Envoy and every node.
    ///
    /// # Errors
    /// The cluster has no relays.
    pub fn set_nodes(&self, line: Line) -> Result<(), HarnessError> {
        set(self.nodes.as_ref(), line)
    }

    /// Sets the line between this merger and every member of etcd.
    ///
    /// # Errors
    /// The cluster has no relays.
    pub fn set_etcd(&self, line: Line) -> Result<(), HarnessError> {
        set(self.etcd.as_ref(), line)
    }
}

fn set(links: Option<&Links>, line: Line) -> Result<(), HarnessError> {
    links.ok_or(HarnessError::NoRelays)?.set(line);
    Ok(())
}

pub(crate) fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}
