//! Stops waiting for a node that hangs, long before the timeout of a large write.

use std::time::Duration;

use super::Context;
use crate::cluster::NodeRef;
use crate::upstream::{NodeAnswer, Target, UpstreamError};

/// The pause between checks whether the node still answers probes.
const LOOK: Duration = Duration::from_millis(500);

/// Waits for the answer as long as the node answers the merger's probes. So a node that is down delays its shard only until the
/// merger notices that.
pub(super) async fn while_it_answers(
    ctx: &Context,
    node: &NodeRef,
    sending: impl Future<Output = Result<NodeAnswer, UpstreamError>>,
) -> Result<NodeAnswer, UpstreamError> {
    let hangs = async {
        // Not checked at once: after an outage of Envoy, no probe may have reached the node yet.
        tokio::time::sleep(LOOK).await;
        while ctx.cluster.is_up(&node.id) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        answer = sending => answer,
        () = hangs => Err(UpstreamError::TimedOut {
            target: Target::Node(node.address),
            within: ctx.cluster.down_after(),
        }),
    }
}
