//! Whether a leader still reaches the nodes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::AGAIN;
use crate::edge::Context;

/// How long a leader may reach none of the nodes while there are other mergers.
const NO_NODE_FOR: Duration = Duration::from_secs(3);

/// Resolves when this leader has reached no node for a while, and another merger does.
pub(super) async fn reaches_no_node(ctx: &Context) {
    let mut since = None::<Instant>;
    loop {
        let topology = ctx.cluster.topology();
        let mut nodes = topology.all_nodes();
        let none = !nodes.any(|(_, node)| ctx.cluster.health.answers(&node.id));
        let mergers = ctx.cluster.mergers.registered();
        let another = mergers
            .iter()
            .any(|merger| !merger.leads && !merger.leaving && merger.reaches_nodes);
        match none && another {
            true => {
                let since = *since.get_or_insert_with(Instant::now);
                if since.elapsed() >= NO_NODE_FOR {
                    return;
                }
            }
            false => since = None,
        }
        sleep(AGAIN / 2).await;
    }
}
