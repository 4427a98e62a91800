//! A node that hangs is not waited for as long as a large write may take.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Context;
use crate::cluster::NodeRef;
use crate::upstream::{NodeAnswer, Target, UpstreamError};

/// How often it is looked whether the node still answers anything.
const LOOK: Duration = Duration::from_millis(500);

/// Waits for the answer as long as the node answers the merger's probes: a node that is down holds up its shard no longer
/// than it takes to notice that.
pub(super) async fn while_it_answers(
    ctx: Arc<Context>,
    node: NodeRef,
    sending: BoxFuture<'static, Result<NodeAnswer, UpstreamError>>,
) -> Result<NodeAnswer, UpstreamError> {
    let hangs = async {
        // After an outage of Envoy no probe may have got through yet: not at once.
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
