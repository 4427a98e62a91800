//! `GET /version`: the nodes' version, and whether they differ.

use std::sync::Arc;

use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::BroadcastError;
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;
use crate::cluster::{ClusterError, NodeRef};
use crate::upstream::{NodeAnswer, NodeRequest, Target};

/// Names each node with its version, if not all run the same.
const VERSIONS: HeaderName = HeaderName::from_static("x-weft-versions");

/// Asks every node. The body is the first node's answer unchanged, so that typed clients can parse it.
pub(super) async fn version(ctx: &Arc<Context>, call: &Call) -> Result<Answer, BroadcastError> {
    let topology = ctx.cluster.topology();
    let nodes: Vec<NodeRef> = topology
        .shards()
        .into_iter()
        .flat_map(|shard| topology.nodes(shard).to_vec())
        .collect();
    let answers = join_all(nodes.iter().map(async |node| {
        let request = NodeRequest::new(
            Target::Node(node.address),
            Method::GET,
            call.path_and_query.clone(),
            &call.forwarded,
            ctx.search_timeout,
        );
        ctx.upstream.send(request).await
    }));
    let (mut first, mut failure, mut said) = (None, None, Vec::new());
    for (node, answer) in nodes.iter().zip(answers.await) {
        match answer {
            Ok(answer) => {
                said.push(format!("{}={}", node.id, read(&answer)));
                first.get_or_insert(answer);
            }
            // A node that is down has no version now; the other nodes' versions are the answer.
            Err(error) => failure = Some(error),
        }
    }
    let Some(first) = first else {
        let none = BroadcastError::Cluster(ClusterError::NoShards);
        return Err(failure.map_or(none, BroadcastError::from));
    };
    let own = format!("={}", read(&first));
    let differ = said.iter().any(|word| !word.ends_with(&own));
    let answer = first.pass_on();
    match HeaderValue::from_str(&said.join("; ")) {
        Ok(versions) if differ => Ok(answer.with_header(VERSIONS, versions)),
        _ => Ok(answer),
    }
}

/// The version in a node's answer, such as `1.50.0`.
fn read(answer: &NodeAnswer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let version = body.get("pkgVersion").and_then(Value::as_str);
    version.unwrap_or("unknown").to_owned()
}
