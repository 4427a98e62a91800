//! What Envoy's access log is told of an answer, where it asks for that (`weft config envoy --access-log detailed`): the operation,
//! the shards that were asked, and whether the answer was remembered. Envoy takes these headers off before the client sees them.

use http::request::Parts;
use http::{HeaderName, HeaderValue};
use weft_routing::headers::{LOG, OPERATION, REMEMBERED, SHARDS};

use crate::answer::Answer;
use crate::call::Asked;
use crate::edge::Reading;

/// Notes what is asked for this request, if Envoy wants to know.
pub(super) fn begin(parts: &mut Parts) -> Asked {
    if !parts.headers.contains_key(LOG) {
        return Asked::default();
    }
    let asked = Asked::noting();
    parts.extensions.insert(asked.clone());
    asked
}

/// Adds what Envoy wants to know to the answer.
pub(super) fn tell(ctx: &Reading, asked: &Asked, operation: &'static str, answer: &mut Answer) {
    if !asked.is_wanted() {
        return;
    }
    let topology = ctx.search.cluster.topology();
    let shards = asked.shards(|node| {
        let mut nodes = topology.all_nodes();
        let found = nodes.find(|(_, known)| known.address == node);
        found.map(|(shard, _)| shard)
    });
    let shards: Vec<String> = shards.iter().map(|shard| shard.0.to_string()).collect();
    let mut add = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            let name = HeaderName::from_static(name);
            answer.headers.push((name, value));
        }
    };
    add(OPERATION, operation);
    if !shards.is_empty() {
        add(SHARDS, &shards.join(","));
    }
    if asked.is_remembered() {
        add(REMEMBERED, "true");
    }
}
