//! How many documents each word finds on each shard, remembered until a write has settled. One node knows this about its
//! words, but a single shard doesn't know it about the whole index.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_routing::placement::ShardId;

use super::scatter::{Ask, Outcome, Reader};
use crate::filters::remembered::Remembered;

/// How many documents a word finds on each shard.
pub type WordCounts = Remembered<Key, Counts, 20_000>;
/// A word as it is searched for, and the parameters that decide where it is searched for.
type Key = (String, String);
type Counts = Arc<[(ShardId, u64)]>;

#[derive(Deserialize)]
struct Wire {
    results: Vec<Found>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    estimated_total_hits: u64,
}

/// For each of `queries`, how many documents it finds on each of `shards`; `None` if a shard doesn't answer. `scope` holds
/// the parameters that decide where the words are searched for.
///
/// Counts that aren't remembered are fetched in one round. The engine looks at the whole index, whatever the filter. So the
/// merger asks on its own authority: a tenant's filter doesn't change what one node would know.
pub(super) async fn counts_of(
    reader: &Reader<'_>,
    index: &str,
    queries: Vec<String>,
    scope: &Map<String, Value>,
    shards: &[ShardId],
) -> Option<Vec<Vec<u64>>> {
    let scope_text = serde_json::to_string(scope).unwrap_or_default();
    let keys: Vec<Key> = queries
        .into_iter()
        .map(|query| (query, scope_text.clone()))
        .collect();
    let cache = &reader.ctx.word_counts;
    let (mark, goes_by_memory) = (cache.mark(), reader.from().goes_by_memory());
    let known = |key: &Key| {
        let known = goes_by_memory.then(|| cache.look(index, key)).flatten();
        on(shards, &known?)
    };
    let mut known: Vec<Option<Vec<u64>>> = keys.iter().map(known).collect();
    let unknown: Vec<Key> = keys
        .iter()
        .zip(&known)
        .filter(|(_, known)| known.is_none())
        .map(|(key, _)| key.clone())
        .collect();
    if !unknown.is_empty() {
        let mut counts = ask(reader, index, &unknown, scope, shards).await?;
        let by_shard =
            |counts: &Vec<u64>| shards.iter().copied().zip(counts.iter().copied()).collect();
        if goes_by_memory {
            let said = unknown.into_iter().zip(counts.iter().map(by_shard));
            cache.remember(mark, index, said.collect());
        }
        for place in known.iter_mut().rev().filter(|known| known.is_none()) {
            *place = counts.pop();
        }
    }
    known.into_iter().collect()
}

/// The counts of these shards, if all of them are known.
fn on(shards: &[ShardId], counts: &Counts) -> Option<Vec<u64>> {
    let of = |shard: &ShardId| {
        let found = counts.iter().find(|(known, _)| known == shard);
        found.map(|(_, count)| *count)
    };
    shards.iter().map(of).collect()
}

/// Asks all shards, for all of `keys` at once.
async fn ask(
    reader: &Reader<'_>,
    index: &str,
    keys: &[Key],
    scope: &Map<String, Value>,
    shards: &[ShardId],
) -> Option<Vec<Vec<u64>>> {
    let query = |(word, _): &Key| {
        let mut query = scope.clone();
        query.extend([
            ("indexUid".to_owned(), Value::from(index)),
            ("q".to_owned(), Value::from(word.as_str())),
            ("matchingStrategy".to_owned(), Value::from("all")),
            ("limit".to_owned(), Value::from(0)),
        ]);
        query
    };
    let queries: Vec<_> = keys.iter().map(query).collect();
    let body = Bytes::from(serde_json::to_vec(&json!({ "queries": queries })).ok()?);
    let ask = |shard: &ShardId| Ask {
        shard: *shard,
        method: Method::POST,
        path_and_query: "/multi-search".to_owned(),
        body: Some(body.clone()),
    };
    let own = reader.on_own_authority();
    let gathered = own.gather(shards.iter().map(ask).collect()).await.ok()?;
    let Outcome::Answers(gathered) = gathered else {
        return None;
    };
    let mut counts = vec![Vec::with_capacity(shards.len()); keys.len()];
    for shard in shards {
        let reply = gathered
            .replies
            .iter()
            .find(|reply| reply.shard == *shard)?;
        let wire: Wire = serde_json::from_slice(&reply.body).ok()?;
        if wire.results.len() != keys.len() {
            return None;
        }
        for (counts, found) in counts.iter_mut().zip(wire.results) {
            counts.push(found.estimated_total_hits);
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_other_shards_are_not_enough() {
        let counts: Counts = Arc::new([(ShardId(0), 1), (ShardId(1), 2)]);
        assert_eq!(on(&[ShardId(1), ShardId(0)], &counts), Some(vec![2, 1]));
        assert_eq!(on(&[ShardId(1)], &counts), Some(vec![2]));
        assert_eq!(on(&[ShardId(1), ShardId(2)], &counts), None);
    }
}
