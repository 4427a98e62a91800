//! How many documents each word finds on each shard, remembered until a write has settled. One node knows this about its
//! words, but a single shard doesn't know it about the whole index.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use super::scatter::{Ask, Outcome, Reader};

/// Older counts are fetched again: someone may have written to a node directly, past Weft.
const STALE: Duration = Duration::from_secs(60);
/// The most words that are remembered of an index. Beyond this, all of its words are forgotten.
const MOST_WORDS: usize = 20_000;
/// The most indexes that are remembered. Beyond this, all are forgotten.
const MOST_INDEXES: usize = 1_000;

/// The remembered counts.
#[derive(Debug, Default)]
pub struct WordCounts {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Incremented each time something is forgotten, so that an answer from before isn't remembered afterwards.
    forgotten: u64,
    indexes: HashMap<String, HashMap<Key, Known>>,
}

/// A word as it is searched for, and the parameters that decide where it is searched for.
type Key = (String, String);

#[derive(Debug, Clone)]
struct Known {
    counts: Arc<[(ShardId, u64)]>,
    since: Instant,
}

impl WordCounts {
    /// Forgets an index's counts.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.lock();
        inner.forgotten += 1;
        inner.indexes.remove(uid);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        let mut inner = self.lock();
        inner.forgotten += 1;
        inner.indexes.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts of each of `keys` on `shards`, if they are known; and the mark that [`WordCounts::remember`] needs.
    fn look(&self, uid: &str, keys: &[Key], shards: &[ShardId]) -> (Vec<Option<Vec<u64>>>, u64) {
        let inner = self.lock();
        let known = |key: &Key| {
            let known = inner.indexes.get(uid)?.get(key)?;
            let of = |shard: &ShardId| {
                let found = known.counts.iter().find(|(known, _)| known == shard);
                found.map(|(_, count)| *count)
            };
            (known.since.elapsed() < STALE)
                .then(|| shards.iter().map(of).collect::<Option<Vec<u64>>>())?
        };
        (keys.iter().map(known).collect(), inner.forgotten)
    }

    /// Remembers the counts of each of `keys` on each of `shards`.
    fn remember(
        &self,
        uid: &str,
        mark: u64,
        keys: Vec<Key>,
        shards: &[ShardId],
        counts: &[Vec<u64>],
    ) {
        let mut inner = self.lock();
        if inner.forgotten != mark {
            return;
        }
        if inner.indexes.len() >= MOST_INDEXES && !inner.indexes.contains_key(uid) {
            inner.indexes.clear();
        }
        let index = inner.indexes.entry_ref(uid).or_default();
        if index.len() + keys.len() > MOST_WORDS {
            index.clear();
        }
        for (key, counts) in keys.into_iter().zip(counts) {
            let known = Known {
                counts: shards.iter().copied().zip(counts.iter().copied()).collect(),
                since: Instant::now(),
            };
            index.insert(key, known);
        }
    }
}

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
    let (mut known, mark) = cache.look(index, &keys, shards);
    let unknown: Vec<Key> = keys
        .iter()
        .zip(&known)
        .filter(|(_, known)| known.is_none())
        .map(|(key, _)| key.clone())
        .collect();
    if !unknown.is_empty() {
        let mut counts = ask(reader, index, &unknown, scope, shards).await?;
        cache.remember(index, mark, unknown, shards, &counts);
        for place in known.iter_mut().rev().filter(|known| known.is_none()) {
            *place = counts.pop();
        }
    }
    known.into_iter().collect()
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
    fn counts_from_before_a_forgetting_are_not_remembered_after_it() {
        let cache = WordCounts::default();
        let keys = || vec![("a".to_owned(), String::new())];
        let shards = [ShardId(0), ShardId(1)];
        let (known, mark) = cache.look("x", &keys(), &shards);
        assert_eq!(known, [None]);
        cache.forget("x");
        cache.remember("x", mark, keys(), &shards, &[vec![1, 2]]);
        let (known, mark) = cache.look("x", &keys(), &shards);
        assert_eq!(known, [None]);
        cache.remember("x", mark, keys(), &shards, &[vec![1, 2]]);
        assert_eq!(cache.look("x", &keys(), &shards).0, [Some(vec![1, 2])]);
        // Another set of shards is another key, and so is another word.
        assert_eq!(cache.look("x", &keys(), &[ShardId(2)]).0, [None]);
        let more = [keys().remove(0), ("b".to_owned(), String::new())];
        assert_eq!(cache.look("x", &more, &shards).0, [Some(vec![1, 2]), None]);
    }
}
