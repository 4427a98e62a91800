//! Stops waiting for a node that hangs, long before the timeout of a large write.

use std::time::Duration;

use super::Context;
use crate::cluster::NodeRef;
use crate::upstream::{NodeAnswer, Target, UpstreamError};

/// A node isn't given up sooner than this: after an outage of Envoy, no probe may have reached it yet.
const AT_LEAST: Duration = Duration::from_millis(500);

/// Waits for the answer as long as the node answers the merger's probes. So a node that is down delays its shard only until the
/// merger notices that.
pub(super) async fn while_it_answers(
    ctx: &Context,
    node: &NodeRef,
    sending: impl Future<Output = Result<NodeAnswer, UpstreamError>>,
) -> Result<NodeAnswer, UpstreamError> {
    let hangs = async {
        tokio::time::sleep(AT_LEAST).await;
        loop {
            // If the node answers a probe meanwhile, it gets more time.
            let silence = ctx.cluster.health.silence(&node.id);
            let left = ctx.cluster.down_after().saturating_sub(silence);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
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
