//! Which nodes have applied what was written before the notes of a move began.
//!
//! On such a node, a document to which nothing was written since is as it will stay. So it can be copied at any moment, also while
//! the node is busy with what clients write to other documents.

use hashbrown::HashMap;
use tokio::sync::Mutex;

use super::{MoveError, remote};
use crate::cluster::{NodeId, NodeRef};
use crate::repair::Context;

/// The nodes, and how often each of them had been away when it was waited for: it may have missed writes since. Where notes were taken
/// and worked in, only the nodes count that have applied those writes, too.
#[derive(Default)]
pub(super) struct Applied(Mutex<HashMap<NodeId, u64>>);

impl Applied {
    /// Notes that these nodes, and no others, have applied everything up to now but for what is noted. Beside each: how often it had
    /// been away before it was waited for.
    pub(super) async fn set(&self, nodes: impl IntoIterator<Item = (NodeId, u64)>) {
        *self.0.lock().await = nodes.into_iter().collect();
    }

    /// Waits for those of these nodes that weren't waited for yet. The notes must have begun.
    pub(super) async fn on(&self, ctx: &Context, nodes: &[&NodeRef]) -> Result<(), MoveError> {
        let mut waited = self.0.lock().await;
        for node in nodes {
            let doubts = ctx.cluster.health.doubts(&node.id);
            if waited.get(&node.id) != Some(&doubts) {
                remote(ctx, node).applied().await?;
                waited.insert(node.id.clone(), doubts);
            }
        }
        Ok(())
    }
}
