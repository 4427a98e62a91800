//! Checks that a resync's source still is the same node as when the resync began.
//!
//! A resync copies what the target lacks and deletes what the source lacks. A source that lost its disk lacks everything. So
//! before each change at the target, the source is probed again: it must have answered all the time, and its tasks must continue
//! where they were. Then everything read before came from the right disk.

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
    /// Remembers the node as it is now.
    ///
    /// # Errors
    /// The node can't be a source, because its mark isn't known.
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

    /// Checks that the node still is the same.
    ///
    /// # Errors
    /// It isn't the same, is not up and in sync, or doesn't answer.
    pub(crate) async fn check(&self) -> Result<(), ResyncError> {
        let broken = |detail: String| ResyncError::Source {
            node: self.node.id.clone(),
            detail,
        };
        let cluster = &self.ctx.cluster;
        let heard = probe(self.ctx, self.node).await;
        let mark = self.mark.max(cluster.marks.newest(&self.node.id));
        match heard {
            // A write in progress may raise the mark after the probe. Then the node is probed once more.
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
