//! The replicas that hold every acknowledged write. Stored is who does *not*: a node that is new to the topology is taken
//! as it is, one that missed a write is out until it has been brought back.
//!
//! Invariant: a node is stored as out before the write that it missed is acknowledged.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::{ClusterError, NodeId};
use crate::store::{Change, Store, StoreError};

const PREFIX: &str = "out-of-sync/";

/// Who may answer and who may not.
pub struct InSync {
    store: Arc<dyn Store>,
    out: RwLock<BTreeSet<NodeId>>,
}

impl InSync {
    pub(super) async fn open(store: Arc<dyn Store>) -> Result<Self, ClusterError> {
        let out = store
            .range(PREFIX)
            .await?
            .into_iter()
            .filter_map(|(key, _)| {
                key.strip_prefix(PREFIX)
                    .map(|name| NodeId::from(name.to_owned()))
            })
            .collect();
        Ok(Self {
            store,
            out: RwLock::new(out),
        })
    }

    /// Whether the node holds every acknowledged write, as far as is known.
    pub fn holds(&self, node: &NodeId) -> bool {
        !self
            .out
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(node)
    }

    /// Takes a node out, durably: it missed or failed a write that another replica holds.
    ///
    /// # Errors
    /// The store failed: then the write must not be acknowledged.
    pub async fn take_out(&self, node: &NodeId, reason: &str) -> Result<(), StoreError> {
        self.store
            .commit(vec![Change::put(
                format!("{PREFIX}{node}"),
                reason.as_bytes().to_vec(),
            )])
            .await?;
        self.out
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.clone());
        tracing::warn!(%node, reason, "replica is out of sync: it serves no reads until it has caught up");
        Ok(())
    }

    /// The nodes that are out, in order.
    pub fn out(&self) -> Vec<NodeId> {
        self.out
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}
