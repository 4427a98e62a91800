//! Whether a resync's source still is the node that it was when the resync began.
//!
//! What the target lacks is copied, and what the source lacks is deleted. A source that lost its disk lacks everything. So before
//! anything is changed at the target, the source is asked again: it must have answered all the time, and its tasks must go on where
//! they were. What was read before that was read from the good disk.

use super::ResyncError;
use crate::cluster::{Mark, NodeRef, NodeStatus, Probe};
use crate::repair::Context;
use crate::replication::{probe, went_back};

/// The source, as it was when the resync began.
pub(crate) struct SourceGuard<'a> {
    ctx: &'a Context,
    node: &'a NodeRef,
    mark: Option<u32>,
    doubts: u64,
}

impl<'a> SourceGuard<'a> {
    /// The node as it is now.
    ///
    /// # Errors
    /// It isn't fit to be a source: its mark isn't known.
    pub(crate) fn of(ctx: &'a Context, node: &'a NodeRef) -> Result<Self, ResyncError> {
        let Mark::At(mark) = ctx.cluster.marks.mark(&node.id) else {
            return Err(ResyncError::Overtaken);
        };
        let doubts = ctx.cluster.health.doubts(&node.id);
        Ok(Self {
            ctx,
            node,
            mark,
            doubts,
        })
    }

    /// Makes sure that it still is what it was.
    ///
    /// # Errors
    /// It isn't, or doesn't say.
    pub(crate) async fn check(&self) -> Result<(), ResyncError> {
        let broken = |detail: String| ResyncError::Source {
            node: self.node.id.clone(),
            detail,
        };
        let cluster = &self.ctx.cluster;
        let heard = probe(self.ctx, self.node).await;
        let mark = self.mark.max(cluster.marks.newest(&self.node.id));
        match heard {
            // A write under way may raise the mark after the node was asked; then it is asked once more.
            Probe::Answer(newest) if newest >= self.mark && newest < mark => {
                match probe(self.ctx, self.node).await {
                    Probe::Answer(newest) if newest >= mark => {}
                    _ => return Err(broken("its tasks don't go on where they were".to_owned())),
                }
            }
            Probe::Answer(newest) if newest < mark => return Err(broken(went_back(newest, mark))),
            Probe::Answer(_) => {}
            _ => return Err(broken("it does not answer".to_owned())),
        }
        if cluster.health.doubts(&self.node.id) != self.doubts {
            return Err(broken("it was away in between".to_owned()));
        }
        let is_up = matches!(
            cluster.health.status(&self.node.id),
            NodeStatus::Up | NodeStatus::Slow
        );
        match is_up && cluster.in_sync.holds(&self.node.id) {
            true => Ok(()),
            false => Err(ResyncError::Overtaken),
        }
    }
}
