//! Explains how an answer came about.

use serde::Serialize;
use weft_routing::placement::ShardId;

use super::scatter::Gathered;

/// The `explain` member of an answer to a request with `x-weft-explain: true`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    /// Why these shards were asked.
    pub why: String,
    /// One entry for each request to a shard.
    pub shards: Vec<ShardPart>,
    /// Shards that gave no answer.
    pub missing: Vec<ShardId>,
    /// What was recomputed from all shards' answers instead of taken from one of them.
    pub rebuilt: Vec<String>,
    /// What is estimated although one node would count it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub estimated: Vec<String>,
    /// Shards that may count documents of others, because slots are moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counted_twice: Vec<ShardId>,
    /// Facets that may lack a value, or a part of a value's count, because a shard's list was cut.
    pub uncertain_facets: Vec<String>,
}

/// One request to a shard.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShardPart {
    /// The shard.
    pub shard: ShardId,
    /// The node that answered, where Envoy says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The time from request to answer, in milliseconds.
    pub took_ms: f64,
    /// The answer's size in bytes.
    pub bytes: usize,
    /// The position of the first hit that the shard was asked for.
    pub from: usize,
    /// How many hits it was asked for.
    pub asked: usize,

    /// How many documents it found.
    pub found: u64,
    /// How many of its hits are in the answer.
    pub kept: usize,
}

impl Explanation {
    /// Adds the requests of one round. `window` gives, for each request, the position of its first hit and the number of hits.
    pub(super) fn add(&mut self, gathered: &Gathered, window: impl Fn(usize) -> (usize, usize)) {
        for reply in &gathered.replies {
            let (from, asked) = window(reply.at);
            self.shards.push(ShardPart {
                shard: reply.shard,
                node: reply.node.clone(),
                took_ms: (reply.took.as_secs_f64() * 1e6).round() / 1e3,
                bytes: reply.body.len(),
                from,
                asked,
                found: 0,
                kept: 0,
            });
        }
        self.missing.extend(&gathered.missing);
        self.counted_twice.extend(&gathered.unsettled);
        self.counted_twice.sort_unstable();
        self.counted_twice.dedup();
    }

    /// Records what a shard found, and how much of that is in the answer.
    pub(super) fn outcome(&mut self, shard: ShardId, found: u64, kept: usize) {
        if let Some(part) = self.shards.iter_mut().find(|part| part.shard == shard) {
            part.found = found;
            part.kept += kept;
        }
    }
}
