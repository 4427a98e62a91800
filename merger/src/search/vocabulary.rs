//! Which of a query's words each shard has seen: asked only where a hit's score casts doubt on its exactness (see
//! [`super::rank::suspects`]), in one more round of small requests.

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use weft_routing::placement::ShardId;

use super::SearchError;
use super::rank::Known;
use super::scatter::{Ask, Outcome, Reader};

#[derive(Deserialize)]
struct Wire {
    results: Vec<Found>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    estimated_total_hits: u64,
}

/// For each of `shards`, which of `words` it knows and which any of them knows. Empty where a shard doesn't tell.
///
/// A word in quotes matches documents that hold exactly this word. The merger asks on its own authority: a tenant's
/// filter doesn't hide words from the engine either.
pub(super) async fn known_words(
    reader: &Reader<'_>,
    index: &str,
    words: &[String],
    shards: &[ShardId],
) -> Result<Vec<Known>, SearchError> {
    let queries: Vec<_> = words
        .iter()
        .map(|word| json!({"indexUid": index, "q": format!("\"{word}\""), "limit": 0}))
        .collect();
    let body = Bytes::from(serde_json::to_vec(&json!({ "queries": queries })).unwrap_or_default());
    let ask = |shard: &ShardId| Ask {
        shard: *shard,
        method: Method::POST,
        path_and_query: "/multi-search".to_owned(),
        body: Some(body.clone()),
    };
    let own = reader.on_own_authority();
    let Outcome::Answers(gathered) = own.gather(shards.iter().map(ask).collect()).await? else {
        return Ok(Vec::new());
    };
    let mut seen: Vec<Vec<bool>> = Vec::with_capacity(shards.len());
    for shard in shards {
        let reply = gathered.replies.iter().find(|reply| reply.shard == *shard);
        let Some(Ok(wire)) = reply.map(|reply| serde_json::from_slice::<Wire>(&reply.body)) else {
            return Ok(Vec::new());
        };
        seen.push(
            wire.results
                .iter()
                .map(|found| found.estimated_total_hits > 0)
                .collect(),
        );
    }
    let anywhere: Vec<bool> = (0..words.len())
        .map(|at| seen.iter().any(|shard| shard.get(at) == Some(&true)))
        .collect();
    Ok(seen
        .into_iter()
        .map(|shard| Known {
            words: shard.into_iter().zip(anywhere.iter().copied()).collect(),
        })
        .collect())
}
